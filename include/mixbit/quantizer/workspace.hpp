// A workspace: a backend (with its executor or stream) and the scratch memory of one thread or stream.
#pragma once

#include <atomic>

#include "mixbit/core/arena.hpp"
#include "mixbit/core/backend.hpp"
#include "mixbit/core/thread_mark.hpp"

namespace mixbit {

template <backend B>
struct workspace {
  explicit workspace(B b = {}, std::size_t scratch_limit = 0) : device{b}, scratch{scratch_limit, B::memory()} {}

  B device;
  arena scratch;

 private:
  template <backend>
  friend class workspace_lock;
  std::atomic<detail::thread_mark> owner_{};
  int depth_ = 0;
};

/// Holds a workspace for one call: another thread is refused with `state_busy`, the same thread may nest.
/// Scratch memory taken while it lives is given back when it ends, also by an exception.
template <backend B>
class workspace_lock {
 public:
  explicit workspace_lock(workspace<B>& w) : workspace_{enter(w)}, scope_{w.scratch} {}
  workspace_lock(workspace_lock const&) = delete;
  workspace_lock& operator=(workspace_lock const&) = delete;

 private:
  // a base that leaves last: the scratch scope must end while the workspace is still held
  struct entered {
    workspace<B>& w;
    explicit entered(workspace<B>& held) : w{held} {}
    entered(entered const&) = delete;
    entered& operator=(entered const&) = delete;
    ~entered() {
      if (--w.depth_ == 0) w.owner_.store(nullptr, std::memory_order_release);
    }
  };
  static workspace<B>& enter(workspace<B>& w) {
    auto const me = detail::this_thread();
    if (w.owner_.load(std::memory_order_relaxed) != me) {
      detail::thread_mark none = nullptr;
      if (!w.owner_.compare_exchange_strong(none, me, std::memory_order_acquire))
        fail(error_id::state_busy, "one workspace is used by two threads at once; give each thread its own and call ",
             "apply(workspace, slots, ...), lend(workspace, slots, ...) and the like");
    }
    ++w.depth_;
    return w;
  }

  entered workspace_;
  arena_scope scope_;
};

/// A dense tensor in a backend's memory.
template <backend B>
class held_tensor {
 public:
  /// Zeroed, of that type and shape.
  held_tensor(B& device, geometry const& like)
      : shape_{dense_like(like)}, memory_{device, static_cast<std::size_t>(shape_.bytes())} {}
  tensor_ref view() { return {shape_, memory_.data()}; }
  const_tensor_ref view() const { return {shape_, memory_.data()}; }

 private:
  geometry shape_;
  buffer<B, std::byte> memory_;
};

/// to = from, element by element, whatever their strides. Takes scratch memory.
template <backend B>
void copy_elements(B& device, arena& scratch, const_tensor_ref from, tensor_ref to) {
  auto* const one = static_cast<float*>(scratch.allocate(sizeof(float)));
  float const value = 1.0f;
  device.copy_from_host(one, &value, sizeof value);
  device.scale_channels({from, to, 0, 1, one});
}

}  // namespace mixbit
