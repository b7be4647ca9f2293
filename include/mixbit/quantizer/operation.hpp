// A host's operation, erased: the core sees geometry and pointers, the host sees its own types.
//
// `apply` binds the host's operands and op here; hooks (calibration, scoring, AWQ) then call the op as often as they
// need with operands that the core made. Erasing keeps a call site at a few milliseconds of compile time.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "mixbit/core/arena.hpp"
#include "mixbit/core/function_ref.hpp"
#include "mixbit/core/tensor_traits.hpp"

namespace mixbit {

/// An op is told why it is called where it takes this as its last argument: the first call yields the result, all
/// others, and all within a trial of another layer, are trials whose output is only measured. What a layer saves for
/// its backward belongs to `result`.
enum class pass : std::uint8_t { result, trial };

enum class operand_role : std::uint8_t { input, weight };

namespace detail {

/// Alive while this thread runs an op as a trial. Whatever runs inside it, other layers too, is part of the trial; what
/// other threads run is not.
class trial_scope {
 public:
  trial_scope() { ++depth_; }
  trial_scope(trial_scope const&) = delete;
  trial_scope& operator=(trial_scope const&) = delete;
  ~trial_scope() { --depth_; }
  static bool is_on() { return depth_ > 0; }

 private:
  static inline thread_local int depth_ = 0;
};

}  // namespace detail

/// What hooks see of a host's op. Views are in the host's axis order.
class erased_op {
 public:
  /// A writable tensor of that operand's geometry, for one quantized copy; new memory at each call. For a wrapping host
  /// it lives as long as the arena's scope; for an owning one until the next `scratch` or `cached` of that role.
  virtual tensor_ref scratch(operand_role role, arena& a) = 0;
  /// `scratch` for a weight of this geometry, which the host's own need not show any more (compressed weights). Throws
  /// `tensor_shape` and `tensor_dtype` for a host's that contradicts it, or that has to be there to make one.
  virtual tensor_ref weight_scratch(geometry const& g, arena& a) = 0;
  /// The same as `scratch`, kept by the caller between calls (the weight cache).
  virtual tensor_ref cached(operand_role role, std::shared_ptr<void>& holder, memory_source from) = 0;
  /// Tells types of the host's weight apart: what `cached` made for one is nothing to another.
  virtual void const* weight_type() const = 0;
  /// Runs the op on operands that are the host's own or came from `scratch` or `cached`.
  virtual tensor_ref call(const_tensor_ref x, const_tensor_ref w, pass p) = 0;
  /// Is the memory that trials write into scratch? Otherwise every result must own its elements.
  virtual bool writes_into_scratch() const { return false; }
  /// Does the host record a tape for its operands?
  virtual bool links(operand_role) const { return false; }
  /// For those hosts: the copy's gradient becomes the operand's through `backward` (in place).
  virtual void link(operand_role, std::function<void(tensor_ref)>) {}

 protected:
  ~erased_op() = default;
};

/// Hosts whose traits say that they record a tape (tensor_traits' `no_grad` or `link`).
template <class H>
concept taping_host = requires { typename traits_of<H>::no_grad; } ||
                      requires(std::remove_cvref_t<H> const& x, std::remove_cvref_t<H>& xq,
                               std::function<void(tensor_ref)> f) { traits_of<H>::link(x, xq, f); };

namespace detail {

/// Its address stands for the type.
template <class H>
inline constexpr char type_mark = 0;

inline tensor_ref allocate_like(geometry const& g, arena& a) {
  geometry const dense = dense_like(g);
  return {dense, a.allocate(static_cast<std::size_t>(dense.bytes()))};
}

/// One operand of an op: the host's tensor and, for hosts whose operands own, the quantized copy.
template <operand_host H>
class bound_operand {
 public:
  explicit bound_operand(H const& host) : host_{host} {}
  const_tensor_ref view() const { return read_view(host_); }

  tensor_ref scratch(arena& a) {
    if constexpr (wrapping_host<H>) {
      return allocate_like(view(), a);
    } else {
      copy_ = std::make_shared<H>(traits_of<H>::like(host_));
      return write_view(*copy_);
    }
  }

  tensor_ref scratch_like(geometry const& g, arena& a) {
    geometry const own = view();
    if (own.type != g.type)
      fail(error_id::tensor_dtype, "its compressed weight is ", name_of(g.type), ", and the host's tensor ",
           name_of(own.type));
    bool const given_up = wrapping_host<H> && own.size() == 0;
    if (!given_up && !own.same_shape(g))
      fail(error_id::tensor_shape, "its compressed weight is ", to_string(g), ", and the host's tensor ",
           to_string(own), wrapping_host<H> ? "" : "; a host whose operands own their memory keeps one of that shape");
    if constexpr (wrapping_host<H>) return allocate_like(g, a);
    else return scratch(a);
  }

  tensor_ref cached(std::shared_ptr<void>& holder, memory_source from) {
    geometry const g = dense_like(view());
    if constexpr (wrapping_host<H>) {
      if (!holder) holder = {from.allocate(static_cast<std::size_t>(g.bytes())), from.release};
      return {g, holder.get()};
    } else {
      if (!holder) holder = std::make_shared<H>(traits_of<H>::like(host_));
      copy_ = std::static_pointer_cast<H>(holder);
      return write_view(*copy_);
    }
  }

  operand_t<H> resolve(const_tensor_ref r) const {
    if constexpr (wrapping_host<H>)
      return traits_of<H>::wrap(r);
    else
      return r.data == view().data ? host_ : *copy_;
  }

  static constexpr bool links = requires(H const& x, H& xq, std::function<void(tensor_ref)> f) {
    traits_of<H>::link(x, xq, f);
  };
  void link(std::function<void(tensor_ref)> backward) {
    if constexpr (links) traits_of<H>::link(host_, *copy_, std::move(backward));
  }

 private:
  H const& host_;
  std::shared_ptr<H> copy_;  // owning hosts only
};

}  // namespace detail

/// A host's op over an input and a weight, returning a tensor of its own.
template <operand_host X, operand_host W, writable_host_tensor Y>
class bound_op final : public erased_op {
 public:
  using signature = Y(operand_t<X>, operand_t<W>, pass);
  bound_op(X const& x, W const& w, function_ref<signature> op) : x_{x}, w_{w}, op_{op} {}

  tensor_ref scratch(operand_role role, arena& a) override {
    return role == operand_role::input ? x_.scratch(a) : w_.scratch(a);
  }
  tensor_ref weight_scratch(geometry const& g, arena& a) override { return w_.scratch_like(g, a); }
  tensor_ref cached(operand_role role, std::shared_ptr<void>& holder, memory_source from) override {
    return role == operand_role::input ? x_.cached(holder, from) : w_.cached(holder, from);
  }
  void const* weight_type() const override { return &detail::type_mark<W>; }
  tensor_ref call(const_tensor_ref x, const_tensor_ref w, pass p) override {
    if (p == pass::result) return write_view(result_.emplace(op_(x_.resolve(x), w_.resolve(w), p)));
    [[maybe_unused]] typename detail::no_grad_of<X>::type guard{};
    return write_view(trial_.emplace(op_(x_.resolve(x), w_.resolve(w), p)));
  }
  bool links(operand_role role) const override {
    return role == operand_role::input ? detail::bound_operand<X>::links : detail::bound_operand<W>::links;
  }
  void link(operand_role role, std::function<void(tensor_ref)> backward) override {
    role == operand_role::input ? x_.link(std::move(backward)) : w_.link(std::move(backward));
  }
  Y take() { return std::move(*result_); }

 private:
  detail::bound_operand<X> x_;
  detail::bound_operand<W> w_;
  function_ref<signature> op_;
  std::optional<Y> result_, trial_;
};

/// Operands lent to a callable that returns nothing (hand-written backwards).
template <operand_host X, operand_host W>
class bound_loan final : public erased_op {
 public:
  using signature = void(operand_t<X>, operand_t<W>);
  bound_loan(X const& x, W const& w, function_ref<signature> f) : x_{x}, w_{w}, f_{f} {}

  tensor_ref scratch(operand_role role, arena& a) override {
    return role == operand_role::input ? x_.scratch(a) : w_.scratch(a);
  }
  tensor_ref weight_scratch(geometry const& g, arena& a) override { return w_.scratch_like(g, a); }
  tensor_ref cached(operand_role role, std::shared_ptr<void>& holder, memory_source from) override {
    return role == operand_role::input ? x_.cached(holder, from) : w_.cached(holder, from);
  }
  void const* weight_type() const override { return &detail::type_mark<W>; }
  tensor_ref call(const_tensor_ref x, const_tensor_ref w, pass) override {
    f_(x_.resolve(x), w_.resolve(w));
    return {};
  }

 private:
  detail::bound_operand<X> x_;
  detail::bound_operand<W> w_;
  function_ref<signature> f_;
};

/// A lookup: an op over a weight alone.
template <operand_host W, writable_host_tensor Y>
class bound_lookup final : public erased_op {
 public:
  using signature = Y(operand_t<W>, pass);
  bound_lookup(W const& w, function_ref<signature> op) : w_{w}, op_{op} {}

  tensor_ref scratch(operand_role, arena& a) override { return w_.scratch(a); }
  tensor_ref weight_scratch(geometry const& g, arena& a) override { return w_.scratch_like(g, a); }
  tensor_ref cached(operand_role, std::shared_ptr<void>& holder, memory_source from) override {
    return w_.cached(holder, from);
  }
  void const* weight_type() const override { return &detail::type_mark<W>; }
  tensor_ref call(const_tensor_ref, const_tensor_ref w, pass p) override {
    std::optional<Y>& y = p == pass::result ? result_ : trial_;
    return write_view(y.emplace(op_(w_.resolve(w), p)));
  }
  bool links(operand_role) const override { return detail::bound_operand<W>::links; }
  void link(operand_role, std::function<void(tensor_ref)> backward) override { w_.link(std::move(backward)); }
  Y take() { return std::move(*result_); }

 private:
  detail::bound_operand<W> w_;
  function_ref<signature> op_;
  std::optional<Y> result_, trial_;
};

/// An op that writes into a tensor the host has allocated; trials write into scratch memory. Not for hosts that record
/// a tape (apply_into refuses them): a tape knows results that an op returns, not memory that it was lent.
template <operand_host X, operand_host W, writable_host_tensor Y>
  requires requires(tensor_ref t) { traits_of<Y>::wrap(t); }
class bound_op_into final : public erased_op {
 public:
  using target = decltype(traits_of<Y>::wrap(std::declval<tensor_ref>()));
  using signature = void(operand_t<X>, operand_t<W>, target, pass);
  bound_op_into(X const& x, W const& w, Y& y, arena& a, function_ref<signature> op)
      : x_{x}, w_{w}, y_{y}, arena_{a}, op_{op} {}

  tensor_ref scratch(operand_role role, arena& a) override {
    return role == operand_role::input ? x_.scratch(a) : w_.scratch(a);
  }
  tensor_ref weight_scratch(geometry const& g, arena& a) override { return w_.scratch_like(g, a); }
  tensor_ref cached(operand_role role, std::shared_ptr<void>& holder, memory_source from) override {
    return role == operand_role::input ? x_.cached(holder, from) : w_.cached(holder, from);
  }
  void const* weight_type() const override { return &detail::type_mark<W>; }
  bool writes_into_scratch() const override { return true; }
  tensor_ref call(const_tensor_ref x, const_tensor_ref w, pass p) override {
    tensor_ref const result = write_view(y_);
    tensor_ref const y = p == pass::result ? result : detail::allocate_like(result, arena_);
    op_(x_.resolve(x), w_.resolve(w), traits_of<Y>::wrap(y), p);
    return y;
  }

 private:
  detail::bound_operand<X> x_;
  detail::bound_operand<W> w_;
  Y& y_;
  arena& arena_;
  function_ref<signature> op_;
};

}  // namespace mixbit
