// Gradient scores: how much a recipe's change of a layer's output matters to the loss.
//
// For every candidate recipe r of a site: score_r += Σ clamp(∂L/∂y · (y_r − y), ±1e10)², y being the output under the
// active recipe (ModelOpt's gradient method; a diagonal empirical Fisher estimate of the loss increase). Sums are
// double, in an order that shapes and strides decide, one sum a step, so that results do not depend on threads and a
// standard error over steps can be given.
//
// Two ways, with the same bits: `score(slots, x, w, op, grad_y)` in a backward recomputes the outputs and keeps
// nothing; `apply(..., &kept)` keeps the differences of one call for `score(slots, kept, grad_y)`.
// Outside a scoring pass every call here returns at once, so a host leaves them in its backward.
//
// Threads: a site is scored by one thread a step, so that its sum has one order; another thread is refused
// (`state_busy`). Several threads may score different sites, each with a workspace of its own. A region switches the
// recipes of its members, so nothing else may run them meanwhile.
#pragma once

#include <atomic>
#include <optional>
#include <thread>
#include <vector>

#include "mixbit/quantizer/apply.hpp"

namespace mixbit {

/// The candidates and sums of one site while a scoring pass is on.
template <backend B>
struct score_state {
  score_state(B& device, std::vector<int> recipes, int step_count)
      : candidates{std::move(recipes)}, sums{device, candidates.size() * static_cast<std::size_t>(step_count)},
        steps{step_count} {}

  std::vector<int> candidates;  ///< indices into site::recipes
  buffer<B, double> sums;       ///< [steps, candidates]
  int steps = 0;
  int step = 0;                 ///< the step that runs
  std::int64_t calls = 0;       ///< times it was scored
  std::vector<double> on_host;  ///< the sums, read back after the pass
  std::atomic<std::thread::id> scorer{};  ///< the thread whose order the step's sum has; none yet: no thread's id

  void begin(int next) {
    step = next;
    scorer = std::thread::id{};
  }
  /// Throws `state_busy` where another thread has scored this site in this step.
  void claim(std::string const& site_name) {
    std::thread::id first{};
    auto const me = std::this_thread::get_id();
    if (!scorer.compare_exchange_strong(first, me) && first != me)
      fail(error_id::state_busy, site_name, ": scored by two threads in step ", step,
           "; the sum would depend on their order, so score a step's batches on one thread");
  }
  double* sum(std::size_t candidate) {
    return sums.data() + static_cast<std::size_t>(step) * candidates.size() + candidate;
  }
};

/// Output differences of one call of one site, kept from its forward to its backward. One per call.
template <backend B>
struct pending {
  std::shared_ptr<site<B>> owner;
  geometry shape;
  std::vector<buffer<B, std::byte>> differences;  ///< dense, in the order of the site's candidates
};

namespace detail {

template <backend B>
void require_gradient(site<B> const& s, geometry const& grad, geometry const& y) {
  if (!grad.same_shape(y))
    fail(error_id::tensor_shape, s.name, ": an output gradient of shape ", to_string(grad), " for an output of shape ",
         to_string(y));
  if (grad.type != y.type)
    fail(error_id::tensor_dtype, s.name, ": an output gradient of type ", name_of(grad.type), " for an output of type ",
         name_of(y.type));
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
    if (kept == nullptr || !s.scoring) return;
    pending<B> next;
    next.owner = s.shared_from_this();
    next.shape = dense_like(y);
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
    if (q.enabled()) q.quantize(ws.device, ws.scratch, x, x);
  }
  bool runs_active_recipe() const override { return true; }
};

/// In a backward: recomputes the output under the active recipe and each candidate and adds to the scores. Throws
/// `state_busy` where another thread has scored this site in this step.
template <backend B, operand_host X, operand_host W, class Op, host_tensor G>
void score(workspace<B>& ws, quantizer_slots<B> const& slots, X const& x, W const& w, Op&& op, G const& grad_y) {
  std::shared_ptr<site<B>> const s = slots.shared_site();
  if (!s || !s->scoring) return;
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
  const_tensor_ref const y = detail::kept_copy(ws, run(s->active));
  detail::require_gradient(*s, read_view(grad_y), y);
  auto const differences = detail::differences_of<B>(ws, s->scoring->candidates.size(), y,
                                                     [&](std::size_t i) { return run(s->scoring->candidates[i]); });
  detail::commit_scores(ws, *s, read_view(grad_y), differences);
}

template <backend B, operand_host X, operand_host W, class Op, host_tensor G>
void score(quantizer_slots<B> const& slots, X const& x, W const& w, Op&& op, G const& grad_y) {
  auto const& s = slots.shared_site();
  if (s && s->scoring) score(*s->home, slots, x, w, std::forward<Op>(op), grad_y);
}

/// From the differences that `apply(..., &kept)` kept; empties `kept`. Throws `tensor_shape` for another call's
/// gradient, and `state_busy` as above.
template <backend B, host_tensor G>
void score(workspace<B>& ws, quantizer_slots<B> const& slots, pending<B>& kept, G const& grad_y) {
  std::shared_ptr<site<B>> const s = slots.shared_site();
  if (!s || !s->scoring || kept.differences.empty()) return;
  if (kept.owner != s)
    fail(error_id::state_missing, s->name, ": these differences were kept by a call of ", kept.owner->name);
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

/// Several sites that are scored together where they meet: a mixture of experts at the MLP's output.
///
/// Members are the region's sites; their layers leave their own `score` calls out. Every candidate recipe
/// is run for all members at once. The op recomputes the region from its input; it is run as trials (members'
/// in_trial() is true) and once more as the result at the end, so that what layers saved is what it was.
template <backend B>
class score_region {
 public:
  explicit score_region(std::vector<std::shared_ptr<site<B>>> members) : members_{std::move(members)} {
    if (members_.empty()) fail(error_id::state_missing, "a score region needs at least one member");
    for (auto const& m : members_)
      if (m->recipes.size() != members_[0]->recipes.size())
        fail(error_id::search_input, "score region: ", m->name, " has ", m->recipes.size(), " recipes, ",
             members_[0]->name, " has ", members_[0]->recipes.size());
  }
  std::vector<std::shared_ptr<site<B>>> const& members() const { return members_; }

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

/// Scores a region in a backward: `op(x)` recomputes its output. The sums are kept by the first member. Uses the
/// model's own workspace.
template <backend B, operand_host X, class Op, host_tensor G>
void score(score_region<B> const& region, X const& x, Op&& op, G const& grad_y) {
  auto const& first = *region.members().front();
  if (!first.scoring) return;
  using Y = std::remove_cvref_t<decltype(op(x))>;
  static_assert(writable_host_tensor<Y>, "mixbit: op must return a tensor that owns its elements");
  workspace<B>& ws = *first.home;
  workspace_lock<B> const held{ws};
  std::optional<Y> output;
  auto const run = [&](std::optional<int> recipe) {
    typename score_region<B>::switched const guard{region.members(), recipe};
    output.emplace(op(x));
    return write_view(*output);
  };
  const_tensor_ref const y = detail::kept_copy(ws, run(std::nullopt));
  detail::require_gradient(first, read_view(grad_y), y);
  auto const differences = detail::differences_of<B>(ws, first.scoring->candidates.size(), y,
                                                     [&](std::size_t i) { return run(first.scoring->candidates[i]); });
  (void)op(x);
  detail::commit_scores(ws, first, read_view(grad_y), differences);
}

}  // namespace mixbit
