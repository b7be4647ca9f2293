// A pass that looks at the inputs of layers: inputs are quantized as under the active recipe, weights are not, so that
// what is seen is the full-precision weights' doing (ModelOpt's Hessians are collected like this). Sums that algorithms
// make of it depend on the order of batches: one thread shows a layer all of them.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "mixbit/calib/algorithm.hpp"
#include "mixbit/quantizer/score.hpp"

namespace mixbit {

/// Set as hook on every site, taken off when it ends, also by an exception.
template <backend B>
class input_pass final : public apply_hook<B> {
 public:
  /// `see(i, input)` is called for layer i, with a workspace that it may borrow from, once a call.
  using see = std::function<void(std::size_t layer, workspace<B>&, seen_input const&)>;

  input_pass(calibration<B>& c, see f) : sites_{c.sites()}, see_{std::move(f)} {
    for (std::size_t i = 0; i < sites_.size(); ++i) index_[sites_[i].get()] = i;
    for (auto& s : sites_) {  // nothing throws from here on
      s->hook = this;
      s->refresh();
    }
  }
  input_pass(input_pass const&) = delete;
  input_pass& operator=(input_pass const&) = delete;
  ~input_pass() {
    for (auto& s : sites_) {
      s->hook = nullptr;
      s->refresh();
    }
  }

  void on_apply(site<B>& s, workspace<B>& ws, operands o, erased_op& op, pending<B>*) override {
    bool const measured = detail::trial_scope::is_on();     // inside another layer's probe: the data is not the host's
    if (!measured && !s.probed) probe_layout(s, ws, o, op, {});  // first: it takes copies of the operands for itself
    seen_input const seen = s.run_with_plain_weight(ws, o, op);
    if (measured) return;
    if (o.x.data == nullptr) return;
    std::lock_guard const committing{mutex_};
    see_(index_.at(&s), ws, seen);
  }
  void on_tensor(site<B>& s, workspace<B>& ws, std::size_t index, tensor_ref x) override {
    if (auto& q = s.quantizers().quantizers[index]; q.acts()) q.quantize(ws.device, ws.scratch, x, x);
  }
  bool runs_active_recipe() const override { return false; }

 private:
  std::vector<std::shared_ptr<site<B>>> sites_;
  std::unordered_map<site<B> const*, std::size_t> index_;
  see see_;
  std::mutex mutex_;
};

}  // namespace mixbit
