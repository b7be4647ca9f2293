// apply: the one call through which a host routes its compute.
//
//   y = apply(slots, x, w, [](auto const& xq, auto const& wq) { return matmul(xq, wq); });
//
// With quantizers off the op is called once on the host's own operands. Otherwise the operands are quantized into
// scratch memory of the host's own layout, or handed to the pass that is on (calibration, scoring). The op may be a
// generic lambda; it always receives one operand type (operand_t), and `pass` as its last argument if it takes one.
// It returns a tensor that owns its elements. Exceptions from the op leave the site as it was.
//
// Without a workspace the model's own is used, by one thread at a time (`state_busy` otherwise); concurrent hosts pass
// one workspace a thread, to apply, apply_into, lend, score, input_backward and weight_backward alike. Two things
// always use the model's own: score of a region, and the backward that a tape runs for `link`.
#pragma once

#include "mixbit/quantizer/probe.hpp"
#include "mixbit/quantizer/score_state.hpp"
#include "mixbit/quantizer/slots.hpp"

namespace mixbit {

namespace detail {

template <class Op, class... Operands>
decltype(auto) invoke_op(Op& op, [[maybe_unused]] pass p, Operands&&... operands) {
  if constexpr (requires { op(std::forward<Operands>(operands)..., p); })
    return op(std::forward<Operands>(operands)..., p);
  else
    return op(std::forward<Operands>(operands)...);
}

/// What an op is told: within a trial of another layer or of a region its result is only measured, too.
template <backend B>
pass told(quantizer_slots<B> const& slots, pass p) {
  return slots.in_trial() ? pass::trial : p;
}

/// Of an op called as it is called: with lvalues, so that one instantiation serves both.
template <class Op, class... Operands>
using result_of =
    std::remove_cvref_t<decltype(invoke_op(std::declval<Op&>(), pass::result, std::declval<Operands&>()...))>;

/// An operand as the op receives it when nothing is done to it.
template <operand_host H>
operand_t<H> host_operand(H const& h) {
  if constexpr (wrapping_host<H>)
    return traits_of<H>::wrap(read_view(h));
  else
    return h;
}

template <backend B>
void run_site(site<B>& s, workspace<B>& ws, operands o, erased_op& op, pending<B>* kept) {
  check_layout(s, o);
  if (s.hook != nullptr) {
    s.count_rows(o.x);
    s.hook->on_apply(s, ws, o, op, kept);
    return;
  }
  tensor_ref const y = s.run(ws, o, op, s.active, pass::result);
  if (!s.probed && !s.packed()) probe_layout(s, ws, o, op, {});  // which needs the host's weight
  s.quantize_output(ws, y, s.active);
}

}  // namespace detail

namespace detail {

/// `apply` and its lookup; a null workspace stands for the model's own. Nothing here depends on the type of the op, so
/// that a further call site costs its own lambda and little else to compile.
template <class Y, backend B, operand_host X, operand_host W>
Y apply_erased(workspace<B>* ws, quantizer_slots<B> const& slots, X const& x, W const& w,
               function_ref<typename bound_op<X, W, Y>::signature> op, pending<B>* kept) {
  if (slots.in_trial()) kept = nullptr;  // what a layer saves belongs to the result
  if (kept != nullptr) *kept = {};
  if (!slots.live()) return op(host_operand(x), host_operand(w), told(slots, pass::result));
  auto told_op = [&](operand_t<X> xq, operand_t<W> wq, pass p) -> Y { return op(xq, wq, told(slots, p)); };
  std::shared_ptr<site<B>> const s = slots.shared_site();
  workspace<B>& used = ws ? *ws : *s->home;
  workspace_lock<B> const held{used};
  bound_op<X, W, Y> bound{x, w, told_op};
  run_site(*s, used, {read_view(x), read_view(w)}, bound, kept);
  return bound.take();
}

template <class Y, backend B, operand_host W>
Y apply_erased(workspace<B>* ws, quantizer_slots<B> const& slots, W const& w,
               function_ref<typename bound_lookup<W, Y>::signature> op) {
  if (!slots.live()) return op(host_operand(w), told(slots, pass::result));
  auto told_op = [&](operand_t<W> wq, pass p) -> Y { return op(wq, told(slots, p)); };
  std::shared_ptr<site<B>> const s = slots.shared_site();
  workspace<B>& used = ws ? *ws : *s->home;
  workspace_lock<B> const held{used};
  bound_lookup<W, Y> bound{w, told_op};
  run_site(*s, used, {{}, read_view(w)}, bound, static_cast<pending<B>*>(nullptr));
  return bound.take();
}

/// The op of a call site, erased, and what it returns.
template <class Op, class... Operands>
struct erased_call {
  using result = result_of<Op, Operands...>;
  static_assert(writable_host_tensor<result>,
                "mixbit: op must return a tensor that owns its elements and has tensor_traits, not a lazy expression");
  static function_ref<result(Operands..., pass)> of(Op& op) {
    if constexpr (std::is_function_v<Op>)
      return {reinterpret_cast<void*>(&op), &call};
    else
      return {const_cast<void*>(static_cast<void const*>(std::addressof(op))), &call};
  }

 private:
  static result call(void* op, Operands... operands, pass p) {
    return invoke_op(*reinterpret_cast<Op*>(op), p, operands...);
  }
};

}  // namespace detail

/// y = op(Q(x), Q(w)) with a workspace of the caller's. `kept` gets the output differences while a scoring pass is on
/// and is emptied by any other call; a call within a trial leaves it alone.
template <backend B, operand_host X, operand_host W, class Op>
auto apply(workspace<B>& ws, quantizer_slots<B> const& slots, X const& x, W const& w, Op&& op,
           pending<B>* kept = nullptr) {
  using call = detail::erased_call<std::remove_reference_t<Op>, operand_t<X>, operand_t<W>>;
  return detail::apply_erased<typename call::result>(&ws, slots, x, w, call::of(op), kept);
}

template <backend B, operand_host X, operand_host W, class Op>
auto apply(quantizer_slots<B> const& slots, X const& x, W const& w, Op&& op, pending<B>* kept = nullptr) {
  using call = detail::erased_call<std::remove_reference_t<Op>, operand_t<X>, operand_t<W>>;
  constexpr workspace<B>* own = nullptr;
  return detail::apply_erased<typename call::result>(own, slots, x, w, call::of(op), kept);
}

/// A lookup (embedding): y = op(Q(w)).
template <backend B, operand_host W, class Op>
  requires std::is_invocable_v<Op&, operand_t<W>> || std::is_invocable_v<Op&, operand_t<W>, pass>
auto apply(workspace<B>& ws, quantizer_slots<B> const& slots, W const& w, Op&& op) {
  using call = detail::erased_call<std::remove_reference_t<Op>, operand_t<W>>;
  return detail::apply_erased<typename call::result>(&ws, slots, w, call::of(op));
}

template <backend B, operand_host W, class Op>
  requires std::is_invocable_v<Op&, operand_t<W>> || std::is_invocable_v<Op&, operand_t<W>, pass>
auto apply(quantizer_slots<B> const& slots, W const& w, Op&& op) {
  using call = detail::erased_call<std::remove_reference_t<Op>, operand_t<W>>;
  constexpr workspace<B>* own = nullptr;
  return detail::apply_erased<typename call::result>(own, slots, w, call::of(op));
}

/// op(Q(x), Q(w), y) into a tensor the host has allocated; op's third argument is wrap(tensor_ref) of Y.
template <backend B, operand_host X, operand_host W, writable_host_tensor Y, class Op>
void apply_into(workspace<B>& ws, quantizer_slots<B> const& slots, X const& x, W const& w, Y& y, Op&& op) {
  static_assert(!taping_host<X> && !taping_host<W> && !taping_host<Y>,
                "mixbit: apply_into is not for hosts that record a tape (traits with no_grad or link); use apply");
  using target = typename bound_op_into<X, W, Y>::target;
  auto call = [&](operand_t<X> xq, operand_t<W> wq, target out, pass p) {
    detail::invoke_op(op, detail::told(slots, p), xq, wq, out);
  };
  if (!slots.live()) {
    call(detail::host_operand(x), detail::host_operand(w), traits_of<Y>::wrap(write_view(y)), pass::result);
    return;
  }
  std::shared_ptr<site<B>> const s = slots.shared_site();
  workspace_lock<B> const held{ws};
  bound_op_into<X, W, Y> bound{x, w, y, ws.scratch, call};
  detail::run_site(*s, ws, {read_view(x), read_view(w)}, bound, static_cast<pending<B>*>(nullptr));
}

template <backend B, operand_host X, operand_host W, writable_host_tensor Y, class Op>
void apply_into(quantizer_slots<B> const& slots, X const& x, W const& w, Y& y, Op&& op) {
  if (slots.live()) return apply_into(*slots.shared_site()->home, slots, x, w, y, std::forward<Op>(op));
  detail::invoke_op(op, detail::told(slots, pass::result), detail::host_operand(x), detail::host_operand(w),
                    traits_of<Y>::wrap(write_view(y)));
}

/// One tensor in place, through the module's quantizer `index` (attention operands, KV cache; index 0 where the
/// module has one). Throws `state_missing` for an index the module does not have.
template <backend B, writable_host_tensor X>
void apply(workspace<B>& ws, quantizer_slots<B> const& slots, X& x, std::size_t index = 0) {
  if (!slots.live()) return;
  std::shared_ptr<site<B>> const s = slots.shared_site();
  std::size_t const count = s->recipes.empty() ? 0 : s->quantizers().quantizers.size();
  if (index >= count)
    fail(error_id::state_missing, s->name, ": quantizer ", index, " of a module that has ", count);
  workspace_lock<B> const held{ws};
  tensor_ref const canonical = s->canonical(operand_role::input, write_view(x));
  if (s->hook != nullptr)
    s->hook->on_tensor(*s, ws, index, canonical);
  else if (auto& q = s->quantizers().quantizers[index]; q.acts())
    q.quantize(ws.device, ws.scratch, canonical, canonical);
}

template <backend B, writable_host_tensor X>
void apply(quantizer_slots<B> const& slots, X& x, std::size_t index = 0) {
  if (slots.live()) apply(*slots.shared_site()->home, slots, x, index);
}

/// For a hand-written backward: calls f(xq, wq) with the operands as the forward quantized them.
template <backend B, operand_host X, operand_host W, class F>
void lend(workspace<B>& ws, quantizer_slots<B> const& slots, X const& x, W const& w, F&& f) {
  std::shared_ptr<site<B>> const s = slots.shared_site();
  if (!slots.live() || (s->hook != nullptr && !s->hook->runs_active_recipe())) {
    f(detail::host_operand(x), detail::host_operand(w));
    return;
  }
  auto erased = [&f](operand_t<X> xq, operand_t<W> wq) { f(xq, wq); };
  workspace_lock<B> const held{ws};
  bound_loan<X, W> loan{x, w, erased};
  s->run(ws, {read_view(x), read_view(w)}, loan, s->active, pass::result);
}

template <backend B, operand_host X, operand_host W, class F>
void lend(quantizer_slots<B> const& slots, X const& x, W const& w, F&& f) {
  if (slots.live()) return lend(*slots.shared_site()->home, slots, x, w, std::forward<F>(f));
  f(detail::host_operand(x), detail::host_operand(w));
}

/// Gradient of Q(x) -> gradient of x, in place: nothing for straight-through, a mask for clipped quantizers.
template <backend B, host_tensor X, writable_host_tensor G>
void input_backward(workspace<B>& ws, quantizer_slots<B> const& slots, X const& x, G& grad_x) {
  if (slots.live())
    slots.shared_site()->mask_backward(ws, operand_role::input, read_view(x), write_view(grad_x));
}

template <backend B, host_tensor X, writable_host_tensor G>
void input_backward(quantizer_slots<B> const& slots, X const& x, G& grad_x) {
  if (slots.live()) input_backward(*slots.shared_site()->home, slots, x, grad_x);
}

namespace detail {
template <backend B>
void refuse_training_folded(quantizer_slots<B> const& slots) {
  auto const& s = slots.shared_site();
  if (s && s->folded)
    fail(error_id::state_folded, s->name, ": fold_weight has replaced this weight by its quantized values; it can no ",
         "longer be trained");
  if (s) s->refuse_packed("so that training the host's would change nothing");
  if (s && s->rewritten(s->active))
    fail(error_id::state_folded, s->name, ": calibration has rewritten this weight for its recipe (as GPTQ does); ",
         "training the host's would change nothing");
}
}  // namespace detail

/// The same for the weight. Throws `state_folded` once fold_weight has replaced its values, or compress stands for it.
template <backend B, host_tensor W, writable_host_tensor G>
void weight_backward(workspace<B>& ws, quantizer_slots<B> const& slots, W const& w, G& grad_w) {
  detail::refuse_training_folded(slots);
  if (slots.live())
    slots.shared_site()->mask_backward(ws, operand_role::weight, read_view(w), write_view(grad_w));
}

template <backend B, host_tensor W, writable_host_tensor G>
void weight_backward(quantizer_slots<B> const& slots, W const& w, G& grad_w) {
  detail::refuse_training_folded(slots);
  if (slots.live()) weight_backward(*slots.shared_site()->home, slots, w, grad_w);
}

}  // namespace mixbit
