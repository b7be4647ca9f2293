// Scratch memory: a bump allocator over a few blocks that are kept between calls.
//
// Contract: `allocate` returns memory aligned to 64 bytes that stays valid until the enclosing `arena_scope` ends.
// After the first pass over a model an arena allocates nothing more. `limit` bounds it (0: no bound), `peak` says how
// much was ever in use. One arena belongs to one thread or stream.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <vector>

#include "mixbit/core/error.hpp"

namespace mixbit {

/// Where an arena gets its blocks; a device backend brings its own.
struct memory_source {
  void* (*allocate)(std::size_t bytes) = [](std::size_t n) { return ::operator new(n, std::align_val_t{64}); };
  void (*release)(void*) = [](void* p) { ::operator delete(p, std::align_val_t{64}); };
};

class arena {
 public:
  static constexpr std::size_t alignment = 64;

  explicit arena(std::size_t limit = 0, memory_source source = {}) : source_{source}, limit_{limit} {}
  arena(arena const&) = delete;
  arena& operator=(arena const&) = delete;
  ~arena() {
    for (auto const& b : blocks_) source_.release(b.data);
  }

  /// Throws `memory_exhausted` beyond the limit; nothing is changed then.
  void* allocate(std::size_t bytes) {
    std::size_t const size = rounded(bytes);
    std::size_t at = current_, offset = offset_;
    while (at < blocks_.size() && offset + size > blocks_[at].size) {
      ++at;  // the rest of a block is left unused until its scope ends
      offset = 0;
    }
    if (at == blocks_.size()) at = add_block(size);
    void* const p = static_cast<std::byte*>(blocks_[at].data) + offset;
    current_ = at;
    offset_ = offset + size;
    used_ += size;
    if (used_ > peak_) peak_ = used_;
    return p;
  }

  /// Allocates ahead of time, so that a later pass does not.
  void reserve(std::size_t bytes) {
    std::size_t free = 0;
    for (std::size_t i = current_; i < blocks_.size(); ++i)
      free = std::max(free, blocks_[i].size - (i == current_ ? offset_ : 0));
    if (free < rounded(bytes)) add_block(rounded(bytes));
  }

  /// True where p points into this arena: a host's result must not.
  bool owns(void const* p) const {
    auto const address = reinterpret_cast<std::uintptr_t>(p);
    for (auto const& b : blocks_) {
      auto const first = reinterpret_cast<std::uintptr_t>(b.data);
      if (address >= first && address < first + b.size) return true;
    }
    return false;
  }

  std::size_t used() const { return used_; }
  std::size_t peak() const { return peak_; }
  std::size_t capacity() const { return capacity_; }
  std::size_t limit() const { return limit_; }

 private:
  friend class arena_scope;
  struct block {
    void* data;
    std::size_t size;
  };

  static std::size_t rounded(std::size_t bytes) { return (bytes + alignment - 1) / alignment * alignment; }

  /// Returns the new block's index, which is the last.
  std::size_t add_block(std::size_t least) {
    std::size_t size = std::max<std::size_t>({least, capacity_, std::size_t{1} << 16});
    if (limit_ != 0 && capacity_ + size > limit_) size = least;
    if (limit_ != 0 && capacity_ + size > limit_) {
      std::size_t const held = capacity_ - idle();
      if (held + size > limit_)
        fail(error_id::memory_exhausted, "scratch arena: ", least, " bytes more would exceed the limit of ", limit_,
             " bytes (", held, " in use)");
      release_idle();
    }
    blocks_.reserve(blocks_.size() + 1);
    blocks_.push_back({source_.allocate(size), size});
    capacity_ += size;
    return blocks_.size() - 1;
  }

  // Blocks behind the current place hold nothing: only a limit makes them worth giving back.
  std::size_t first_idle() const { return offset_ == 0 ? current_ : current_ + 1; }
  std::size_t idle() const {
    std::size_t bytes = 0;
    for (std::size_t i = first_idle(); i < blocks_.size(); ++i) bytes += blocks_[i].size;
    return bytes;
  }
  void release_idle() {
    capacity_ -= idle();
    for (; blocks_.size() > first_idle(); blocks_.pop_back()) source_.release(blocks_.back().data);
  }

  memory_source source_;
  std::size_t limit_ = 0, used_ = 0, peak_ = 0, capacity_ = 0;
  std::size_t current_ = 0, offset_ = 0;
  std::vector<block> blocks_;
};

/// Everything allocated while it lives is given back when it ends. Scopes nest.
class arena_scope {
 public:
  explicit arena_scope(arena& a) : arena_{a}, current_{a.current_}, offset_{a.offset_}, used_{a.used_} {}
  arena_scope(arena_scope const&) = delete;
  arena_scope& operator=(arena_scope const&) = delete;
  ~arena_scope() {
    arena_.current_ = current_;
    arena_.offset_ = offset_;
    arena_.used_ = used_;
  }

 private:
  arena& arena_;
  std::size_t current_, offset_, used_;
};

}  // namespace mixbit
