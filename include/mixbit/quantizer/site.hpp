// A site: the place in a host's model where quantizers sit. Slots point to it, sessions share it; it holds the
// quantizers of every recipe and runs the host's op through them.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "mixbit/config/algorithm_config.hpp"
#include "mixbit/quantizer/layout.hpp"
#include "mixbit/quantizer/operation.hpp"
#include "mixbit/quantizer/packed_weight.hpp"
#include "mixbit/quantizer/sequential_quantizer.hpp"

namespace mixbit {

/// What an algorithm computes beside a quantized weight (SVDQuant): y += up · down · x, x as its pre_quant_scale leaves
/// it, unquantized. In PyTorch's axis order.
template <backend B>
struct low_rank_branch {
  held_tensor<B> down, up;  ///< [rank, in] and [out, rank]
  held_tensor<B> negative;  ///< -(up · down), [out, in]: the branch runs through the host's op, and is subtracted
};

/// The quantizers of one module under one recipe.
template <backend B>
struct recipe_quantizers {
  std::string recipe;  ///< label, as in candidate_stats; empty outside a search
  std::vector<sequential_quantizer<B>> quantizers;
  /// Stands for the host's weight where an algorithm has rewritten it (GPTQ, SVDQuant); in PyTorch's axis order.
  std::optional<held_tensor<B>> weight = {};
  /// The weight quantizer's pre_quant_scale that `weight` was made under and has in it; the input's is still in use.
  std::vector<float> absorbed_scale = {};
  std::optional<low_rank_branch<B>> branch = {};
  /// Stands for the weight and the cast of its first quantizer, once compressed; may be shared by tied weights. Further
  /// members of a sequence cast what it decodes to.
  std::shared_ptr<packed_weight<B> const> packed = {};
  std::optional<algorithm_config> algorithm = {};  ///< that has calibrated it
  std::optional<std::uint64_t> tokens = {};  ///< rows of input that its calibration was shown; none: it ran no loop

  /// The enabled quantizer in that role, or null.
  sequential_quantizer<B>* find(quantizer_role role) {
    for (auto& q : quantizers)
      if (q.role() == role && q.enabled()) return &q;
    return nullptr;
  }
  /// The quantizer in that role that changes its operand, enabled or not, or null.
  sequential_quantizer<B>* acting(quantizer_role role) {
    for (auto& q : quantizers)
      if (q.role() == role && q.acts()) return &q;
    return nullptr;
  }
  /// The quantizer of that leaf name, enabled or not, or null.
  sequential_quantizer<B>* named(std::string_view leaf) {
    for (auto& q : quantizers)
      if (q.leaf() == leaf) return &q;
    return nullptr;
  }
  /// `weight` was made under the weight quantizer's scale, if it had one, and has it in it from now on. What an earlier
  /// rewrite had in it stays.
  void absorb_scale(B& device, sequential_quantizer<B>& q) {
    if (!q.has_pre_quant_scale()) return;
    absorbed_scale = q.pre_quant_scale(device);
    q.set_pre_quant_scale(device, {});
  }
  bool any_acts() const {
    if (weight || branch || packed) return true;
    for (auto const& q : quantizers)
      if (q.acts()) return true;
    return false;
  }
};

template <backend B>
struct site;
template <backend B>
struct pending;
template <backend B>
struct score_state;

/// The operands of one call as the host holds them; `x.data` is null for a lookup.
struct operands {
  const_tensor_ref x, w;
};

/// One input of a layer, in PyTorch's axis order: as the host gives it, and as the op gets it.
struct seen_input {
  const_tensor_ref given, quantized;
};

/// What a pass over the model does at each site instead of quantizing: calibration, scoring, and later AWQ and the
/// like. A hook calls the op exactly once with pass::result.
template <backend B>
class apply_hook {
 public:
  virtual void on_apply(site<B>&, workspace<B>&, operands, erased_op&, pending<B>* kept) = 0;
  /// One tensor on its own; `index` is the quantizer's place in the module.
  virtual void on_tensor(site<B>&, workspace<B>&, std::size_t index, tensor_ref x) = 0;
  /// Do calls run the active recipe while this hook is on? Then `lend` hands out quantized operands.
  virtual bool runs_active_recipe() const = 0;

 protected:
  ~apply_hook() = default;
};

/// A weight quantized once and kept while it does not change; opt-in. Threads that share it quantize it once.
struct weight_cache {
  bool enabled = false;
  bool valid = false;
  int recipe = -1;
  void const* source = nullptr;
  geometry shape;
  void const* made_for = nullptr;  // erased_op::weight_type
  std::shared_ptr<void> holder;  // scratch memory or a tensor of the host's own kind
};

template <backend B>
struct site : std::enable_shared_from_this<site<B>> {
  std::string name, class_name;
  site_layout layout;
  geometry weight;                            ///< of the host's weight, as the last walk showed it
  std::shared_ptr<workspace<B>> home;         ///< used where the host passes no workspace
  std::vector<recipe_quantizers<B>> recipes;  ///< one outside a search
  int active = 0;                             ///< the recipe that runs
  std::uint64_t generation = 0;               ///< how often a phase has replaced the recipes
  apply_hook<B>* hook = nullptr;              ///< set for the length of a pass
  bool in_trial = false;                      ///< is it a member of a region that runs as a trial?
  bool folded = false;                        ///< fold_weight has overwritten the host's weight
  std::set<std::string> scales_folded_into;   ///< by fold_pre_quant_scales: tensors outside of the walk
  std::atomic<bool> probed = false;           ///< has the layout been probed?
  bool live = false;                          ///< must `apply` do more than call the op?
  std::atomic<std::uint64_t> rows_shown = 0;  ///< of inputs, to the passes that were on (calib/algorithm.hpp)
  weight_cache cache;
  std::mutex cache_mutex;  ///< held while the cache is looked at or filled

  recipe_quantizers<B>& quantizers() { return recipes[static_cast<std::size_t>(active)]; }

  /// The active recipe's compressed weight, or null.
  packed_weight<B> const* packed() const {
    auto const at = static_cast<std::size_t>(active);
    return at < recipes.size() ? recipes[at].packed.get() : nullptr;
  }
  /// Throws `state_folded` for a compressed weight: `so` says what cannot be done with it.
  void refuse_packed(std::string_view so) const {
    if (packed()) fail(error_id::state_folded, name, ": its weight is compressed, ", so);
  }

  /// To be called after recipes, active or hook changed.
  void refresh() { live = hook != nullptr || (!recipes.empty() && quantizers().any_acts()); }

  /// An operand or output in PyTorch's axis order. Throws `tensor_layout`, naming the site, for a layout that does not
  /// fit.
  template <class Ref>
  Ref canonical(operand_role role, Ref const& t) const {
    return detail::named(name,
                         [&] { return role == operand_role::input ? layout.input.apply(t) : weight_view(layout, t); });
  }
  template <class Ref>
  Ref canonical_output(Ref const& y) const {
    return detail::named(name, [&] { return layout.output.apply(y); });
  }

  /// Counts the rows of an input that a pass is shown; what another layer tries is none of it.
  void count_rows(const_tensor_ref x) {
    if (x.data == nullptr || detail::trial_scope::is_on()) return;
    const_tensor_ref const seen = canonical(operand_role::input, x);
    int const channels = input_channel_axis(layout, seen.rank);
    if (channels >= 0 && seen.size() != 0)
      rows_shown += static_cast<std::uint64_t>(seen.size() / seen.shape[channels]);
  }

  /// Runs the op on operands quantized under recipe `index`, as result or as a trial.
  tensor_ref run(workspace<B>& ws, operands o, erased_op& op, int index, pass p) {
    auto& q = recipes[static_cast<std::size_t>(index)];
    const_tensor_ref const x =
        o.x.data ? quantized(ws, op, operand_role::input, o.x, q.acting(quantizer_role::input), p) : o.x;
    return with_branch(ws, o, op, q, call(ws, op, x, quantized_weight(ws, op, o.w, index, p), p), p);
  }

  /// Runs the op as a calibration does: quantization is off, but operands are scaled and rotated as under the active
  /// recipe. Gradients do not flow through it.
  tensor_ref run_unquantized(workspace<B>& ws, operands o, erased_op& op) {
    auto& q = quantizers();
    const_tensor_ref const x =
        o.x.data ? transformed(ws, op, operand_role::input, o.x, q.acting(quantizer_role::input)) : o.x;
    return call(ws, op, x, plain_weight(ws, op, o.w, q, q.branch.has_value()), pass::result);
  }
  /// Runs the op as algorithms do that look at inputs: they are quantized under the active recipe, the weight is not.
  /// Returns the input, in PyTorch's order: as it came, and as the op got it.
  seen_input run_with_plain_weight(workspace<B>& ws, operands o, erased_op& op) {
    auto& q = quantizers();
    const_tensor_ref const x =
        o.x.data ? quantized(ws, op, operand_role::input, o.x, q.acting(quantizer_role::input), pass::result) : o.x;
    const_tensor_ref const w = plain_weight(ws, op, o.w, q, joins_weight(q));
    tensor_ref const y = call(ws, op, x, w, pass::result);
    const_tensor_ref seen = o.x.data ? canonical(operand_role::input, x) : x;
    if (o.x.data && q.branch) {  // which asks the op for another copy of the input, and an owning host then drops this
      tensor_ref const kept = detail::allocate_like(seen, ws.scratch);
      copy_elements(ws.device, ws.scratch, seen, kept);
      seen = kept;
    }
    quantize_output(ws, with_branch(ws, o, op, q, y, pass::result), active);
    return o.x.data ? seen_input{canonical(operand_role::input, o.x), seen} : seen_input{};
  }
  /// What recipe `index` quantizes in place of the host's weight, or null: nothing once that is folded.
  held_tensor<B> const* rewritten(int index) const {
    auto const at = static_cast<std::size_t>(index);
    return folded || at >= recipes.size() || !recipes[at].weight ? nullptr : &*recipes[at].weight;
  }
  /// Do operands that are not quantized differ from the host's?
  bool transforms() {
    if (recipes.empty()) return false;
    if (rewritten(active) || quantizers().branch) return true;
    auto const& all = quantizers().quantizers;
    return std::any_of(all.begin(), all.end(), [](auto const& q) { return q.transforms(); });
  }

  /// The output through recipe `index`'s output quantizer, in place.
  void quantize_output(workspace<B>& ws, tensor_ref y, int index) {
    if (auto* const q = recipes[static_cast<std::size_t>(index)].acting(quantizer_role::output)) {
      tensor_ref const canonical_y = canonical_output(y);
      q->quantize(ws.device, ws.scratch, canonical_y, canonical_y);
    }
  }

  /// Runs the op on operands that are ready. Throws `tensor_alias` for a result over the memory they were lent in.
  tensor_ref call(workspace<B>& ws, erased_op& op, const_tensor_ref x, const_tensor_ref w, pass p) {
    std::optional<detail::trial_scope> trial;
    if (p == pass::trial) trial.emplace();
    tensor_ref const y = op.call(x, w, p);
    if (!op.writes_into_scratch() && ws.scratch.owns(y.data))
      fail(error_id::tensor_alias, name, ": op returned a tensor over borrowed scratch memory; operands are lent ",
           "until op returns, so the result must own its elements");
    return y;
  }

  /// The operand through its quantizer, in scratch memory; the host's own where there is none.
  const_tensor_ref quantized(workspace<B>& ws, erased_op& op, operand_role role, const_tensor_ref host,
                             sequential_quantizer<B>* q, pass p) {
    if (q == nullptr) return host;
    tensor_ref const copy = op.scratch(role, ws.scratch);
    q->quantize(ws.device, ws.scratch, canonical(role, host), canonical(role, copy));
    if (p == pass::result && op.links(role)) link(op, role, host);
    return copy;
  }
  /// The same for a weight that recipe `index` holds in place of the host's. No gradient flows to the host's.
  const_tensor_ref quantized_copy(workspace<B>& ws, tensor_ref copy, held_tensor<B> const& held,
                                  sequential_quantizer<B>* q) {
    tensor_ref const y = canonical(operand_role::weight, copy);
    if (!y.same_shape(held.view()))
      fail(error_id::tensor_shape, name, ": an algorithm has rewritten a weight of shape ", to_string(held.view()),
           ", and the host's is now ", to_string(y), "; calibrate again");
    if (q != nullptr)
      q->quantize(ws.device, ws.scratch, held.view(), y);
    else
      copy_elements(ws.device, ws.scratch, held.view(), y);
    return copy;
  }

  /// grad of a quantized operand -> grad of the host's operand, in place (both in the host's axis order). Nothing
  /// while a pass runs the op on unquantized operands. Throws `state_missing` for the input of a layer with a branch
  /// beside the op: no gradient comes back through that.
  void mask_backward(workspace<B>& ws, operand_role role, const_tensor_ref host, tensor_ref grad) {
    if (recipes.empty() || (hook != nullptr && !hook->runs_active_recipe())) return;
    auto* const q = role == operand_role::input ? quantizers().acting(quantizer_role::input)
                                                : acting_on_weight(quantizers());
    if (role == operand_role::input && quantizers().branch && !joins_weight(quantizers()))
      fail(error_id::state_missing, name, ": svdquant's branch is computed beside the quantized input and gives no ",
           "gradient, so nothing before this layer can be trained; train first, or turn its input quantizer off");
    if (q == nullptr) return;
    if (!grad.same_shape(host))
      fail(error_id::tensor_shape, name, ": a gradient of shape ", to_string(grad), " for an operand of shape ",
           to_string(host));
    if (grad.type != host.type)
      fail(error_id::tensor_dtype, name, ": a gradient of type ", name_of(grad.type), " for an operand of type ",
           name_of(host.type));
    workspace_lock<B> const held{ws};
    q->mask_backward(ws.device, ws.scratch, canonical(role, host), canonical(role, grad));
  }

  /// Takes part in the gradient score while a scoring pass is on; null otherwise (quantizer/score.hpp).
  std::shared_ptr<score_state<B>> scoring;

 private:
  /// A folded weight is already what its quantizer makes of it.
  sequential_quantizer<B>* acting_on_weight(recipe_quantizers<B>& q) const {
    return folded ? nullptr : q.acting(quantizer_role::weight);
  }

  const_tensor_ref transformed(workspace<B>& ws, erased_op& op, operand_role role, const_tensor_ref host,
                               sequential_quantizer<B>* q) {
    auto const* const held = role == operand_role::weight ? rewritten(active) : nullptr;
    bool const transforms = q != nullptr && q->transforms();
    if (!held && !transforms) return host;
    tensor_ref const copy = op.scratch(role, ws.scratch);
    if (!transforms) return quantized_copy(ws, copy, *held, nullptr);
    q->transform(ws.device, held ? held->view() : canonical(role, host), canonical(role, copy));
    return copy;
  }

  // A branch whose input is the op's own needs no call of its own: it is added to the weight.
  bool joins_weight(recipe_quantizers<B>& q) const {
    return q.branch.has_value() && q.find(quantizer_role::input) == nullptr;
  }
  void join(workspace<B>& ws, tensor_ref copy, low_rank_branch<B> const& b) const {
    tensor_ref const w = canonical(operand_role::weight, copy);
    ws.device.subtract({w, b.negative.view(), w});
  }
  /// The weight while it is not quantized, with the branch or without. Who has a branch has rewritten the weight too,
  /// so that it comes as a copy.
  const_tensor_ref plain_weight(workspace<B>& ws, erased_op& op, const_tensor_ref host, recipe_quantizers<B>& q,
                                bool with_branch) {
    const_tensor_ref const w = transformed(ws, op, operand_role::weight, host, acting_on_weight(q));
    if (with_branch) join(ws, {w, const_cast<void*>(w.data)}, *q.branch);
    return w;
  }
  /// y plus the branch, through the op: what it gives for x, less what it gives for zeros, which is its bias. A trial's
  /// result comes back in scratch memory.
  tensor_ref with_branch(workspace<B>& ws, operands o, erased_op& op, recipe_quantizers<B>& q, tensor_ref y, pass p) {
    if (!q.branch || joins_weight(q)) return y;
    if (y.data == nullptr)
      fail(error_id::state_missing, name, ": svdquant's branch is computed beside the operands that are lent; a ",
           "backward through lend would miss it");
    auto const copy_of = [&](const_tensor_ref t) {
      tensor_ref const copy = detail::allocate_like(t, ws.scratch);
      copy_elements(ws.device, ws.scratch, t, copy);
      return copy;
    };
    if (p == pass::trial) y = copy_of(y);
    tensor_ref const x = op.scratch(operand_role::input, ws.scratch), w = weight_scratch(ws, op, q);
    const_tensor_ref const given = canonical(operand_role::input, o.x);
    auto const& input = *q.find(quantizer_role::input);
    copy_elements(ws.device, ws.scratch, input.scaled(ws.device, ws.scratch, given), canonical(operand_role::input, x));
    copy_elements(ws.device, ws.scratch, q.branch->negative.view(), canonical(operand_role::weight, w));
    tensor_ref const less = copy_of(call(ws, op, x, w, pass::trial));
    ws.device.subtract({x, x, x});
    ws.device.subtract({less, call(ws, op, x, w, pass::trial), less});
    ws.device.subtract({y, less, y});
    return y;
  }

  const_tensor_ref quantized_weight(workspace<B>& ws, erased_op& op, const_tensor_ref w, int index, pass p) {
    auto& recipe = recipes[static_cast<std::size_t>(index)];
    if (recipe.packed) return unpacked_weight(ws, op, recipe);
    auto* const q = acting_on_weight(recipe);
    auto const* const held = rewritten(index);
    if (q == nullptr && held == nullptr) return w;
    // A tape needs a copy of its own for each call. Candidates of a scoring pass leave the cache alone: it holds one
    // recipe, and another thread may be reading the active one's.
    if (!cache.enabled || index != active || op.links(operand_role::weight)) {
      if (held == nullptr) return quantized(ws, op, operand_role::weight, w, q, p);
      tensor_ref const copy = op.scratch(operand_role::weight, ws.scratch);
      quantized_copy(ws, copy, *held, q);
      if (joins_weight(recipe)) join(ws, copy, *recipe.branch);
      return copy;
    }
    std::lock_guard const filling{cache_mutex};
    bool const fresh = cache.valid && cache.recipe == index && cache.source == w.data && same_view(cache.shape, w) &&
                       cache.made_for == op.weight_type();
    if (!fresh) {
      cache.valid = false;
      cache.holder.reset();
    }
    tensor_ref const kept = op.cached(operand_role::weight, cache.holder, B::memory());
    if (!fresh) {
      if (held)
        quantized_copy(ws, kept, *held, q);
      else
        q->quantize(ws.device, ws.scratch, canonical(operand_role::weight, w), canonical(operand_role::weight, kept));
      if (joins_weight(recipe)) join(ws, kept, *recipe.branch);
      cache.valid = true;
      cache.recipe = index;
      cache.source = w.data;
      cache.shape = w;
      cache.made_for = op.weight_type();
    }
    return kept;
  }

  /// The host may not show a compressed weight any more.
  tensor_ref weight_scratch(workspace<B>& ws, erased_op& op, recipe_quantizers<B> const& recipe) {
    if (!recipe.packed) return op.scratch(operand_role::weight, ws.scratch);
    return detail::named(name, [&] { return op.weight_scratch(weight, ws.scratch); });
  }
  /// Decoded anew at each call: a cache would hold it whole. No gradient flows to the host's weight.
  const_tensor_ref unpacked_weight(workspace<B>& ws, erased_op& op, recipe_quantizers<B>& recipe) {
    tensor_ref const copy = weight_scratch(ws, op, recipe);
    tensor_ref const y = canonical(operand_role::weight, copy);
    recipe.packed->decode(ws.device, ws.scratch, y);
    if (auto* const q = recipe.find(quantizer_role::weight))
      for (std::size_t i = 1; i < q->members().size(); ++i) q->members()[i].quantize(ws.device, ws.scratch, y, y);
    if (joins_weight(recipe)) join(ws, copy, *recipe.branch);
    return copy;
  }

  // Tapes: the copy's gradient becomes the host's by the mask alone. The tape keeps the host's operand alive.
  void link(erased_op& op, operand_role role, const_tensor_ref host) {
    op.link(role, [self = this->shared_from_this(), role, host](tensor_ref grad) {
      self->mask_backward(*self->home, role, host, grad);
    });
  }
};

}  // namespace mixbit
