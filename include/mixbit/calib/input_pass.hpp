// A pass that looks at the inputs of layers: inputs are quantized as under the active recipe, weights are not, so that
// what is seen is the full-precision weights' doing (ModelOpt's Hessians are collected like this). Sums that algorithms
// make of it depend on the order of batches: one thread shows a layer all of them.
#pragma once

#include <functional>
#include <mutex>
#include <utility>
#include <vector>

#include "mixbit/calib/algorithm.hpp"
#include "mixbit/calib/one_thread.hpp"
#include "mixbit/quantizer/hooked_sites.hpp"
#include "mixbit/quantizer/score.hpp"

namespace mixbit {

/// The pass itself: a hook on every site from its construction to its end.
template <backend B>
class input_pass final : public apply_hook<B> {
 public:
  /// `see(i, input)` is called for each layer i that is watched, with a workspace that it may borrow from, once a call.
  using see = std::function<void(std::size_t layer, workspace<B>&, seen_input const&)>;

  input_pass(calibration<B>& c, std::vector<bool> watched, see f)
      : watched_{std::move(watched)}, shown_by_(watched_.size()), see_{std::move(f)}, hooked_{c.sites(), *this} {}

  void on_apply(site<B>& s, workspace<B>& ws, operands o, erased_op& op, pending<B>*) override {
    bool const measured = detail::trial_scope::is_on();     // inside another layer's probe: the data is not the host's
    if (!measured && !s.probed) probe_layout(s, ws, o, op, {});  // first: it takes copies of the operands for itself
    seen_input const seen = s.run_with_plain_weight(ws, o, op);
    std::size_t const i = hooked_.place(s);
    if (measured || !watched_[i] || o.x.size() == 0) return;
    std::lock_guard const committing{mutex_};
    shown_by_[i].claim(s.name);
    see_(i, ws, seen);
  }
  void on_tensor(site<B>& s, workspace<B>& ws, std::size_t index, tensor_ref x) override {
    if (auto& q = s.quantizers().quantizers[index]; q.acts()) q.quantize(ws.device, ws.scratch, x, x);
  }
  bool runs_active_recipe() const override { return false; }

 private:
  std::vector<bool> watched_;
  std::vector<detail::one_thread> shown_by_;
  see see_;
  std::mutex mutex_;
  hooked_sites<B> hooked_;
};

}  // namespace mixbit
