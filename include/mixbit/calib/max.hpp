// The algorithm "max": every quantizer's calibrator sees the data once. Most keep the largest |x| over all batches; the
// name is ModelOpt's, whose max calibration runs the quantizers' own calibrators too.
//
// One pass over the data serves every recipe of every site: while it is on, the host's op runs unquantized once a
// call, and each static quantizer of each recipe observes the operand. Quantizers that divide the operand alike for
// their amax and have the same calibrator share one observation. Weights are observed from the walk, so a layer that
// sees no data still gets its weight's amax.
//
// Threads: a running max does not depend on the order of batches, so several threads may run them, each with a
// workspace of its own. The range of a histogram does, and so do the bias of an affine quantizer and its amax of what
// the bias so far leaves: one thread shows such quantizers all of a pass's data, and another is refused (`state_busy`).
#pragma once

#include <algorithm>
#include <memory>
#include <mutex>
#include <vector>

#include "mixbit/calib/calibrators.hpp"
#include "mixbit/core/thread_mark.hpp"
#include "mixbit/quantizer/hooked_sites.hpp"
#include "mixbit/quantizer/score.hpp"

namespace mixbit {

/// Quantizers of one operand that see the same of it while they are calibrated: the first observes, the others adopt.
template <backend B>
struct observer_group {
  sequential_quantizer<B> const* owner;  ///< of the first: its pre_quant_scale comes before what it sees
  std::vector<tensor_quantizer<B>*> members;
  std::unique_ptr<calibrator<B>> by = {};  ///< what the first observes with; null: its running max
  bool shown = false;                      ///< has `by` been shown anything?
  detail::thread_mark shown_by = nullptr;  ///< the thread whose order of batches decides; null: none yet

  bool takes(sequential_quantizer<B> const& q, tensor_quantizer<B> const& member) const {
    bool const same_scale = owner == &q || (!owner->has_pre_quant_scale() && !q.has_pre_quant_scale());
    return same_scale && members.front()->numerics().same_calibration(member.numerics());
  }

  /// Throws `state_busy` where the order of batches matters and another thread has shown one.
  void claim() {
    auto const* const bias = members.front()->bias();
    bool const has_bias = bias != nullptr && bias->is_static();
    if (!has_bias && !(by && by->order_matters())) return;
    auto const me = detail::this_thread();
    if (shown_by != nullptr && shown_by != me)
      fail(error_id::state_busy, members.front()->name(), ": its ", has_bias ? "static bias" : "calibrator",
           " is shown data by two threads; the result would depend on their order, so run the batches of this layer ",
           "on one thread");
    shown_by = me;
  }
};

/// All quantizers that `selects` picks (by role, or by index for single tensors) and that need data, grouped: of the
/// active recipe, or of every one. Throws what `known` says of the calibrators' names and of what they are asked for.
template <backend B, class Select>
std::vector<observer_group<B>> observers_of(site<B>& s, bool every_recipe, calibrator_registry<B> const& known,
                                            Select&& selects) {
  std::vector<observer_group<B>> groups;
  for (std::size_t r = 0; r < s.recipes.size(); ++r) {
    if (!every_recipe && static_cast<std::size_t>(s.active) != r) continue;
    auto& recipe = s.recipes[r];
    for (std::size_t i = 0; i < recipe.quantizers.size(); ++i) {
      auto& q = recipe.quantizers[i];
      if (!q.enabled() || !selects(q, i)) continue;
      for (auto& member : q.members()) {
        if (!member.needs_calibration()) continue;
        auto const at = std::find_if(groups.begin(), groups.end(), [&](auto const& g) { return g.takes(q, member); });
        if (at != groups.end()) {
          at->members.push_back(&member);
          continue;
        }
        groups.push_back({&q, {&member}});
        if (member.needs_calibrator())
          groups.back().by = known.make({member.numerics().calibrator, member.numerics(), member.name()});
      }
    }
  }
  return groups;
}

/// Shows a tensor to the first of a group. Throws `tensor_dtype` for one that kernels do not compute on.
template <backend B>
void observe_first(observer_group<B>& g, workspace<B>& ws, const_tensor_ref x) {
  require_compute(x.type, g.members.front()->name());
  arena_scope const borrowed{ws.scratch};
  g.members.front()->observe(ws.device, ws.scratch, g.owner->scaled(ws.device, ws.scratch, x), g.by.get());
  g.shown = g.shown || x.size() != 0;
}

/// Ends the calibration of a group: what the first has observed serves all. Notes of calibrators are added to `notes`.
template <backend B>
void finish_group(observer_group<B>& g, B& device, std::vector<std::string>& notes) {
  auto& first = *g.members.front();
  if (!g.by) {
    first.finish(device);
    for (std::size_t i = 1; i < g.members.size(); ++i) g.members[i]->adopt(device, first);
    return;
  }
  for (std::size_t i = g.shown ? g.members.size() : 0; i-- > 0;) {
    g.members[i]->finish(device, *g.by, first);
    std::string note = g.by->note();
    if (!note.empty()) notes.push_back(g.members[i]->name() + ": " + std::move(note));
  }
}

/// What one site observes during a max calibration pass.
template <backend B>
struct max_observers {
  std::vector<observer_group<B>> input, output;
  std::vector<std::vector<observer_group<B>>> tensors;  ///< by quantizer index

  max_observers(site<B>& s, bool every, calibrator_registry<B> const& known) {
    input = observers_of(s, every, known, [](auto& q, std::size_t) { return q.role() == quantizer_role::input; });
    output = observers_of(s, every, known, [](auto& q, std::size_t) { return q.role() == quantizer_role::output; });
    std::size_t const count = s.recipes.empty() ? 0 : s.recipes.front().quantizers.size();
    for (std::size_t index = 0; index < count; ++index)
      tensors.push_back(observers_of(s, every, known, [index](auto&, std::size_t i) { return i == index; }));
  }
};

/// The pass itself: a hook on every site from its construction to its end.
template <backend B>
class max_calibration final : public apply_hook<B> {
 public:
  /// Of the active recipe of each site, or of every recipe.
  explicit max_calibration(std::vector<std::shared_ptr<site<B>>> sites, bool every_recipe = true,
                           calibrator_registry<B> const& known = {})
      : hooked_{std::move(sites), *this} {
    for (auto& s : hooked_.all()) observers_.emplace_back(*s, every_recipe, known);
    each_group([](observer_group<B>& g) {
      if (g.owner->role() == quantizer_role::weight) return;  // seen already, before the pass
      for (auto* const member : g.members) member->count_anew();
    });
  }

  void on_apply(site<B>& s, workspace<B>& ws, operands o, erased_op& op, pending<B>*) override {
    auto& watching = observers_[hooked_.place(s)];
    bool const as_given = !s.transforms();
    tensor_ref const y = s.run_unquantized(ws, o, op);
    if (detail::trial_scope::is_on()) return;  // inside another layer's probe: the data is not the host's
    if (!s.probed) probe_layout(s, ws, o, op, as_given ? const_tensor_ref{y} : const_tensor_ref{});
    std::lock_guard const committing{mutex_};
    for (auto* groups : {&watching.input, &watching.output})
      for (auto& g : *groups) g.claim();
    if (o.x.data) observe(ws, watching.input, s.canonical(operand_role::input, o.x));
    observe(ws, watching.output, s.canonical_output(y));
  }
  void on_tensor(site<B>& s, workspace<B>& ws, std::size_t index, tensor_ref x) override {
    if (!detail::trial_scope::is_on()) {
      std::lock_guard const committing{mutex_};
      auto& groups = observers_[hooked_.place(s)].tensors[index];
      for (auto& g : groups) g.claim();
      observe(ws, groups, x);
    }
    if (auto const& q = s.quantizers().quantizers[index]; q.transforms()) q.transform(ws.device, x, x);
  }
  bool runs_active_recipe() const override { return false; }

  /// Ends the calibration: what the first of each group has observed serves all of them. Returns calibrators' notes.
  std::vector<std::string> share(workspace<B>& ws) {
    std::vector<std::string> notes;
    each_group([&](observer_group<B>& g) { finish_group(g, ws.device, notes); });
    return notes;
  }

 private:
  template <class F>
  void each_group(F&& f) {
    for (auto& o : observers_) {
      for (auto* groups : {&o.input, &o.output})
        for (auto& g : *groups) f(g);
      for (auto& groups : o.tensors)
        for (auto& g : groups) f(g);
    }
  }
  static void observe(workspace<B>& ws, std::vector<observer_group<B>>& groups, const_tensor_ref x) {
    for (auto& g : groups) observe_first<B>(g, ws, x);
  }

  std::vector<max_observers<B>> observers_;
  std::mutex mutex_;
  hooked_sites<B> hooked_;
};

/// Observes a weight with every weight quantizer of a site: of its active recipe, or of every one. What they knew, of
/// another weight or by another algorithm, is forgotten. Calibrators' notes are added to `notes`.
template <backend B>
void observe_weight(site<B>& s, workspace<B>& ws, const_tensor_ref canonical, bool every_recipe,
                    calibrator_registry<B> const& known, std::vector<std::string>& notes) {
  auto groups = observers_of(s, every_recipe, known,
                             [](auto& q, std::size_t) { return q.role() == quantizer_role::weight; });
  for (auto& g : groups) {
    for (auto* const member : g.members) member->forget();
    observe_first<B>(g, ws, canonical);
    finish_group(g, ws.device, notes);
    g.by.reset();
  }
}

}  // namespace mixbit
