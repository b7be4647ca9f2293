// Gradient scores: how much a recipe's change of a layer's output matters to the loss.
//
// For every candidate recipe r of a site: score_r += Σ clamp(∂L/∂y · (y_r − y), ±1e10)², y being the output under the
// active recipe (ModelOpt's gradient method; a diagonal empirical Fisher estimate of the loss increase). Sums are
// double, in an order that shapes and strides decide, one sum a step, so that results do not depend on threads and a
// standard error over steps can be given.
//
// Two ways, with the same bits: `score(slots, x, w, op, grad_y)` in a backward recomputes the outputs and keeps
// nothing; `apply(..., &kept)` keeps the differences of one call for `score(slots, kept, grad_y)`.
// `score(slots, kept, x, w, op, grad_y)` does what `kept` says: a pass that limits the memory of differences
// (search_options::difference_bytes) has `apply` keep those that fit, and the others are recomputed.
// Outside a scoring pass every call here returns at once, so a host leaves them in its backward.
//
// Threads: a site is scored by one thread a step, so that its sum has one order; another thread is refused
// (`state_busy`). Several threads may score different sites, each with a workspace of its own. A region switches the
// recipes of its members, so nothing else may run them meanwhile.
#pragma once

#include <algorithm>
#include <optional>
#include <vector>

#include "mixbit/quantizer/apply.hpp"

namespace mixbit {

namespace detail {

template <backend B>
void require_gradient(site<B> const& s, geometry const& grad, geometry const& y) {
  if (!grad.same_shape(y))
    fail(error_id::tensor_shape, s.name, ": an output gradient of shape ", to_string(grad), " for an output of shape ",
         to_string(y));
  if (grad.type != y.type)
    fail(error_id::tensor_dtype, s.name, ": an output gradient of type ", name_of(grad.type), " for an output of type ",
         name_of(y.type));
  require_compute(y.type, s.name);
}

/// Differences of all candidates in scratch memory; nothing is committed, so an op may throw.
template <backend B>
std::vector<const_tensor_ref> differences_of(workspace<B>& ws, std::size_t count, const_tensor_ref y,
                                             function_ref<tensor_ref(std::size_t)> output_of) {
  std::vector<const_tensor_ref> all(count);
  for (std::size_t i = 0; i < count; ++i) {
    tensor_ref const yr = output_of(i);
    tensor_ref const difference = allocate_like(y, ws.scratch);
    ws.device.subtract({yr, y, difference});
    all[i] = difference;
  }
  return all;
}

template <backend B>
void commit_scores(workspace<B>& ws, site<B> const& s, const_tensor_ref grad,
                   std::vector<const_tensor_ref> const& differences) {
  score_state<B>& state = *s.scoring;
  state.claim(s.name);
  for (std::size_t i = 0; i < differences.size(); ++i)
    ws.device.gradient_score({grad, differences[i], state.sum(i)});
  ++state.calls;
}

}  // namespace detail

/// What sites do while a scoring pass is on: the active recipe runs, and differences are kept where asked for.
template <backend B>
class score_hook final : public apply_hook<B> {
 public:
  void on_apply(site<B>& s, workspace<B>& ws, operands o, erased_op& op, pending<B>* kept) override {
    tensor_ref const y = s.run(ws, o, op, s.active, pass::result);
    if (!s.probed) probe_layout(s, ws, o, op, {});
    s.quantize_output(ws, y, s.active);
    if (kept == nullptr || !s.scoring || s.scoring->at_region) return;
    require_compute(y.type, s.name);
    pending<B> next;
    next.owner = s.shared_from_this();
    next.pass = s.scoring;
    next.shape = dense_like(y);
    if (s.scoring->memory) {
      auto const bytes = next.shape.bytes() * static_cast<std::int64_t>(s.scoring->candidates.size());
      next.declined = !s.scoring->memory->take(bytes);
      if (!next.declined) next.memory = std::make_shared<taken_memory const>(s.scoring->memory, bytes);
    }
    if (next.declined) return void(*kept = std::move(next));
    for (int const r : s.scoring->candidates) {
      tensor_ref const yr = s.run(ws, o, op, r, pass::trial);
      s.quantize_output(ws, yr, r);
      auto& memory = next.differences.emplace_back(ws.device, static_cast<std::size_t>(next.shape.bytes()));
      ws.device.subtract({yr, y, tensor_ref{next.shape, memory.data()}});
    }
    *kept = std::move(next);
  }
  void on_tensor(site<B>& s, workspace<B>& ws, std::size_t index, tensor_ref x) override {
    auto& q = s.quantizers().quantizers[index];
    if (q.acts()) q.quantize(ws.device, ws.scratch, x, x);
  }
  bool runs_active_recipe() const override { return true; }
};

/// In a backward: recomputes the output under the active recipe and each candidate and adds to the scores. Throws
/// `state_busy` where another thread has scored this site in this step.
template <backend B, operand_host X, operand_host W, class Op, host_tensor G>
void score(workspace<B>& ws, quantizer_slots<B> const& slots, X const& x, W const& w, Op&& op, G const& grad_y) {
  std::shared_ptr<site<B>> const s = slots.shared_site();
  if (!s || !s->scoring || s->scoring->at_region) return;
  using Y = detail::result_of<Op, operand_t<X>, operand_t<W>>;
  auto erased = [&op](operand_t<X> xq, operand_t<W> wq, pass p) -> Y { return detail::invoke_op(op, p, xq, wq); };
  workspace_lock<B> const held{ws};
  bound_op<X, W, Y> bound{x, w, erased};
  operands const o{read_view(x), read_view(w)};
  auto const run = [&](int recipe) {
    tensor_ref const y = s->run(ws, o, bound, recipe, pass::trial);
    s->quantize_output(ws, y, recipe);
    return y;
  };
  tensor_ref const active = run(s->active);
  detail::require_gradient(*s, read_view(grad_y), active);
  const_tensor_ref const y = detail::kept_copy(ws, active);
  auto const differences = detail::differences_of<B>(ws, s->scoring->candidates.size(), y,
                                                     [&](std::size_t i) { return run(s->scoring->candidates[i]); });
  detail::commit_scores(ws, *s, read_view(grad_y), differences);
}

template <backend B, operand_host X, operand_host W, class Op, host_tensor G>
void score(quantizer_slots<B> const& slots, X const& x, W const& w, Op&& op, G const& grad_y) {
  auto const& s = slots.shared_site();
  if (s && s->scoring) score(*s->home, slots, x, w, std::forward<Op>(op), grad_y);
}

/// From the differences that `apply(..., &kept)` kept; empties `kept`. Throws `state_missing` for differences of
/// another layer or pass, `tensor_shape` for another call's gradient, and `state_busy` as above.
template <backend B, host_tensor G>
void score(workspace<B>& ws, quantizer_slots<B> const& slots, pending<B>& kept, G const& grad_y) {
  std::shared_ptr<site<B>> const s = slots.shared_site();
  if (!s || !s->scoring) return;
  if (kept.declined && kept.pass.lock() == s->scoring)
    fail(error_id::state_missing, s->name, ": the differences of this call are over the limit of ",
         s->scoring->memory->limit(), " bytes and were not kept; call score(slots, kept, x, w, op, grad_y), which ",
         "recomputes them");
  if (kept.differences.empty()) return;
  if (kept.owner != s)
    fail(error_id::state_missing, s->name, ": these differences were kept by a call of ", kept.owner->name);
  if (kept.pass.lock() != s->scoring)
    fail(error_id::state_missing, s->name, ": these differences were kept in another scoring pass, whose candidates ",
         "were its own; keep them anew in each forward");
  detail::require_gradient(*s, read_view(grad_y), kept.shape);
  workspace_lock<B> const held{ws};
  std::vector<const_tensor_ref> differences;
  for (auto const& d : kept.differences) differences.push_back({kept.shape, d.data()});
  detail::commit_scores(ws, *s, read_view(grad_y), differences);
  kept = {};
}

template <backend B, host_tensor G>
void score(quantizer_slots<B> const& slots, pending<B>& kept, G const& grad_y) {
  auto const& s = slots.shared_site();
  if (s && s->scoring) score(*s->home, slots, kept, grad_y);
}

/// From what the forward kept, or recomputed where a limit of memory had it keep nothing: the same bits either way.
template <backend B, operand_host X, operand_host W, class Op, host_tensor G>
void score(workspace<B>& ws, quantizer_slots<B> const& slots, pending<B>& kept, X const& x, W const& w, Op&& op,
           G const& grad_y) {
  if (!kept.declined) return score(ws, slots, kept, grad_y);
  kept = {};
  score(ws, slots, x, w, std::forward<Op>(op), grad_y);
}

template <backend B, operand_host X, operand_host W, class Op, host_tensor G>
void score(quantizer_slots<B> const& slots, pending<B>& kept, X const& x, W const& w, Op&& op, G const& grad_y) {
  auto const& s = slots.shared_site();
  if (s && s->scoring) score(*s->home, slots, kept, x, w, std::forward<Op>(op), grad_y);
}

/// Several sites that are scored together where they meet: a mixture of experts at the MLP's output.
///
/// Members are the region's sites; their layers leave their own `score` calls out, or a search leaves them out whose
/// score rule names the region. Every candidate recipe
/// is run for all members at once. The op recomputes the region from its input; it is run as trials (members'
/// in_trial() is true, on every thread) and once more as the result at the end, so that what layers saved is what it
/// was. A tape records none of these calls.
template <backend B>
class score_region {
 public:
  /// Throws `state_missing` for no members and for one without a site, and what require_same_recipes throws.
  explicit score_region(std::vector<std::shared_ptr<site<B>>> members) : members_{std::move(members)} {
    if (members_.empty()) fail(error_id::state_missing, "a score region needs at least one member");
    for (std::size_t i = 0; i < members_.size(); ++i)
      if (!members_[i])
        fail(error_id::state_missing, "score region: member ", i, " has no site yet; its slots get one when a model ",
             "is walked (quantize, search)");
    require_same_recipes();
  }
  std::vector<std::shared_ptr<site<B>>> const& members() const { return members_; }

  /// Throws `search_input` where members differ in how many recipes they have or in whether a pass scores them: a
  /// search may have disabled one of them after the region was made.
  void require_same_recipes() const {
    auto const scored = [](site<B> const& s) { return s.scoring != nullptr; };
    auto const described = [&](site<B> const& s) {
      return detail::concat(s.name, " has ", s.recipes.size(), " recipe(s)", scored(s) ? " and is scored" : "");
    };
    auto const& first = *members_.front();
    for (auto const& m : members_)
      if (m->recipes.size() != first.recipes.size() || scored(*m) != scored(first))
        fail(error_id::search_input, "score region: ", described(*m), ", ", described(first),
             "; disable all members of a region or none");
  }
  /// Is a scoring pass on for any member?
  bool is_scored() const {
    return std::any_of(members_.begin(), members_.end(), [](auto const& m) { return m->scoring != nullptr; });
  }

  /// Runs every member under recipe `index` until it is destroyed.
  class switched {
   public:
    switched(std::vector<std::shared_ptr<site<B>>> const& members, std::optional<int> index) : members_{members} {
      for (auto const& m : members_) {
        before_.push_back({m->active, m->in_trial});
        if (index) m->active = *index;
        m->in_trial = true;
        m->refresh();
      }
    }
    switched(switched const&) = delete;
    switched& operator=(switched const&) = delete;
    ~switched() {
      for (std::size_t i = 0; i < members_.size(); ++i) {
        members_[i]->active = before_[i].first;
        members_[i]->in_trial = before_[i].second;
        members_[i]->refresh();
      }
    }

   private:
    std::vector<std::shared_ptr<site<B>>> const& members_;
    std::vector<std::pair<int, bool>> before_;
  };

 private:
  std::vector<std::shared_ptr<site<B>>> members_;
};

/// Scores a region in a backward: `op(x)` recomputes its output. The sums are kept by the first member, so
/// members belong to one group of a search. Uses the model's own workspace. Throws what require_same_recipes throws.
template <backend B, operand_host X, class Op, host_tensor G>
void score(score_region<B> const& region, X const& x, Op&& op, G const& grad_y) {
  if (!region.is_scored()) return;
  region.require_same_recipes();
  auto const& first = *region.members().front();
  using Y = std::remove_cvref_t<decltype(op(x))>;
  static_assert(writable_host_tensor<Y>, "mixbit: op must return a tensor that owns its elements");
  workspace<B>& ws = *first.home;
  workspace_lock<B> const held{ws};
  [[maybe_unused]] typename detail::no_grad_of<X>::type unrecorded{};
  std::optional<Y> output;
  auto const run = [&](std::optional<int> recipe) {
    typename score_region<B>::switched const guard{region.members(), recipe};
    detail::trial_scope const trial;
    output.emplace(op(x));
    return write_view(*output);
  };
  tensor_ref const active = run(std::nullopt);
  detail::require_gradient(first, read_view(grad_y), active);
  const_tensor_ref const y = detail::kept_copy(ws, active);
  auto const differences = detail::differences_of<B>(ws, first.scoring->candidates.size(), y,
                                                     [&](std::size_t i) { return run(first.scoring->candidates[i]); });
  (void)op(x);
  detail::commit_scores(ws, first, read_view(grad_y), differences);
}

}  // namespace mixbit
