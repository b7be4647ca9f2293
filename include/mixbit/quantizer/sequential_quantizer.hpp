// What one operand of a module goes through: usually one tensor quantizer, for formats such as W4A8 several in order.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "mixbit/quantizer/tensor_quantizer.hpp"

namespace mixbit {

/// Where in a module a quantizer sits.
enum class quantizer_role : std::uint8_t { input, weight, output, tensor };

template <backend B>
class sequential_quantizer {
 public:
  /// `leaf` is the name within the module ("weight_quantizer"), `path` the full one.
  sequential_quantizer(std::string leaf, std::string path, quantizer_role role, bool enabled,
                       std::vector<quantizer_attribute_config> const& attributes, numerics_options const& numerics)
      : leaf_{std::move(leaf)}, path_{std::move(path)}, role_{role}, attributes_{attributes} {
    if (attributes_.size() == 1) off_rotation_ = rotation_of(attributes_.front(), path_);
    if (off_rotation_ && off_rotation_->back) off_rotation_.reset();
    enable(enabled, numerics);
  }

  std::string const& leaf() const { return leaf_; }
  std::string const& path() const { return path_; }
  quantizer_role role() const { return role_; }
  bool enabled() const { return enabled_; }
  /// Those that run, in order: attributes may turn off one of a sequence.
  std::vector<tensor_quantizer<B>>& members() { return members_; }
  std::vector<tensor_quantizer<B>> const& members() const { return members_; }

  /// Attributes of all, also of those that are off.
  std::vector<quantizer_attribute_config> const& attributes() const { return attributes_; }
  /// The same as the config said them, before `change_unready`.
  std::vector<quantizer_attribute_config> const& configured() const {
    return configured_.empty() ? attributes_ : configured_;
  }
  void set_configured(std::vector<quantizer_attribute_config> attributes) { configured_ = std::move(attributes); }

  /// The members that cannot quantize yet are made anew, of what change(attributes) makes of theirs. Throws what
  /// interpreting those throws; nothing is changed then.
  template <class F>
  void change_unready(F&& change, numerics_options const& numerics) {
    auto next = attributes_;
    std::vector<tensor_quantizer<B>> made;
    std::vector<std::size_t> places;
    std::size_t place = 0;
    for (auto& a : next) {
      if (!a.enable) continue;
      if (std::size_t const here = place++; !members_[here].ready()) {
        change(a);
        made.emplace_back(members_[here].name(), a, numerics);
        places.push_back(here);
      }
    }
    for (std::size_t i = 0; i < made.size(); ++i) members_[places[i]] = std::move(made[i]);
    if (configured_.empty()) configured_ = std::move(attributes_);  // of a second change the first stays
    attributes_ = std::move(next);
  }

  /// Another of the same attributes, calibration and pre_quant_scale.
  sequential_quantizer copy(B& device, numerics_options const& numerics) const {
    sequential_quantizer to{leaf_, path_, role_, !members_.empty(), attributes_, numerics};
    to.configured_ = configured_;
    to.set_pre_quant_scale(device, pre_quant_scale(device));
    for (std::size_t i = 0; i < members_.size(); ++i) to.members_[i].adopt(device, members_[i]);
    to.enabled_ = enabled_;
    return to;
  }

  bool needs_calibration() const {
    if (enabled_)
      for (auto const& m : members_)
        if (m.needs_calibration()) return true;
    return false;
  }
  bool ready() const {
    if (enabled_)
      for (auto const& m : members_)
        if (!m.ready()) return false;
    return true;
  }

  /// Throws `state_nested` while a scale_training is at a member, whose amax is then of no one else's to change and not
  /// yet to be kept. `doing` is what the caller is about to do, "export".
  void refuse_learning(std::string_view doing) const {
    for (auto const& m : members_)
      if (m.learns())
        fail(error_id::state_nested, path_, ": a scale_training is at it, whose scales are not settled yet; finish or ",
             "end it before ", doing);
  }

  /// One factor for each index of the last axis, which multiplies the operand before everything else, also while the
  /// quantizer is off: AWQ and SmoothQuant set it. Empty: none. After a change the site's `refresh` is due, and
  /// `weight_changed` where a weight is cached. Throws `format_value` for a factor that is zero or not finite.
  void set_pre_quant_scale(B& device, std::vector<float> const& factors) {
    for (std::size_t i = 0; i < factors.size(); ++i)
      if (factors[i] == 0.0f || !fp::is_finite(factors[i]))
        fail(error_id::format_value, path_, ": pre_quant_scale[", i, "] is ", factors[i],
             "; it must be finite and not zero");
    scale_ = buffer_of(device, factors);
  }
  bool has_pre_quant_scale() const { return !scale_.empty(); }
  std::vector<float> pre_quant_scale(B& device) const {
    std::vector<float> factors(scale_.size());
    if (!factors.empty()) device.copy_to_host(factors.data(), scale_.data(), factors.size() * sizeof(float));
    return factors;
  }

  /// Does it change its operand while quantization is off? By a pre_quant_scale, or a rotation that does not go back.
  bool transforms() const { return has_pre_quant_scale() || off_rotation_; }
  /// The rotation that stays while it is off; none where that goes back.
  std::optional<rotation> const& off_rotation() const { return off_rotation_; }
  /// Does it leave its operand rotated, on or off?
  bool leaves_rotated() const {
    if (!enabled_) return off_rotation_.has_value();
    return std::any_of(members_.begin(), members_.end(), [](auto const& m) {
      return m.numerics().rotate && !m.numerics().rotate->back;
    });
  }
  /// Does it change its operand?
  bool acts() const { return enabled_ || transforms(); }

  /// What of x quantization sees: x itself, or scaled in scratch memory. Throws `tensor_shape` for a scale of another
  /// width.
  const_tensor_ref scaled(B& device, arena& scratch, const_tensor_ref x) const {
    if (!has_pre_quant_scale()) return x;
    geometry const dense = dense_like(x);
    tensor_ref const copy{dense, scratch.allocate(static_cast<std::size_t>(dense.bytes()))};
    multiply(device, x, copy);
    return copy;
  }

  /// y = members in order of the scaled x; where it is off, what `transform` gives. y may be x. Throws `tensor_dtype`
  /// for a tensor that kernels do not compute on, and what members throw, on a CPU before y is written.
  void quantize(B& device, arena& scratch, const_tensor_ref x, tensor_ref y) {
    if (!enabled_) return transform(device, x, y);
    require_compute(x.type, path_);
    for (auto const& m : members_) m.require_state_for(x);
    const_tensor_ref from = x;
    bool const late = refuses_negative();  // what a member makes of x may be refused by the next
    if (late) {
      from = scaled(device, scratch, x);
    } else if (has_pre_quant_scale()) {
      multiply(device, x, y);
      from = y;
    }
    for (auto& m : members_) {
      tensor_ref to = y;
      if (late && &m != &members_.back())
        to = {dense_like(x), scratch.allocate(static_cast<std::size_t>(dense_like(x).bytes()))};
      m.quantize(device, scratch, from, to);
      from = to;
    }
  }

  /// What is left of it while quantization is off. Only where `transforms`.
  void transform(B& device, const_tensor_ref x, tensor_ref y) const {
    require_compute(x.type, path_);
    std::int64_t const block = off_rotation_ ? off_rotation_->block_of(x, path_) : 1;
    if (has_pre_quant_scale()) multiply(device, x, y);
    if (off_rotation_) device.hadamard({has_pre_quant_scale() ? const_tensor_ref{y} : x, y, block});
  }

  /// The gradient of y to that of x, in place, through the members from last to first and the scale.
  void mask_backward(B& device, arena& scratch, const_tensor_ref x, tensor_ref grad) {
    require_compute(x.type, path_);
    arena_scope const borrowed{scratch};
    if (enabled_) {
      bool const looks = std::any_of(members_.begin(), members_.end(), [](auto const& m) { return m.looks_back(); });
      backward_from(0, device, scratch, looks ? scaled(device, scratch, x) : x, grad);
    } else if (off_rotation_) {
      device.hadamard({grad, grad, off_rotation_->block_of(grad, path_)});
    }
    if (has_pre_quant_scale()) multiply(device, grad, grad);
  }

  /// Enables or disables it; amaxes are kept. Attributes are interpreted when it is first enabled; those that cannot be
  /// throw, and nothing changes. Where all of them are off, all are turned on.
  void enable(bool on, numerics_options const& numerics) {
    if (on && members_.empty()) {
      auto next = attributes_when_on();
      members_ = interpreted(next, numerics);
      attributes_ = std::move(next);
    }
    enabled_ = on;
  }
  /// Throws what enabling it would throw, and changes nothing.
  void require_computable(numerics_options const& numerics) const {
    if (members_.empty()) (void)interpreted(attributes_when_on(), numerics);
  }

 private:
  bool refuses_negative() const {
    return std::any_of(members_.begin(), members_.end(),
                       [](auto const& m) { return m.numerics().how.element.is_unsigned; });
  }

  void multiply(B& device, const_tensor_ref x, tensor_ref y) const {
    auto const width = static_cast<std::int64_t>(scale_.size());
    if (x.rank == 0 || x.shape[x.rank - 1] != width)
      fail(error_id::tensor_shape, path_, ": a pre_quant_scale of ", width, " values for a tensor of shape ",
           to_string(x));
    if (x.size() != 0) device.scale_channels({x, y, x.rank - 1, width, scale_.data()});
  }

  /// Of member i and those behind it; `x` is what member i saw in the forward.
  void backward_from(std::size_t i, B& device, arena& scratch, const_tensor_ref x, tensor_ref grad) {
    if (i == members_.size()) return;
    auto const later = members_.begin() + static_cast<std::ptrdiff_t>(i) + 1;
    if (std::any_of(later, members_.end(), [](auto const& m) { return m.looks_back(); })) {
      geometry const dense = dense_like(x);
      tensor_ref const y{dense, scratch.allocate(static_cast<std::size_t>(dense.bytes()))};
      members_[i].quantize(device, scratch, x, y);
      backward_from(i + 1, device, scratch, y, grad);
    } else {
      backward_from(i + 1, device, scratch, x, grad);
    }
    members_[i].mask_backward(device, scratch, x, grad);
  }

  std::vector<quantizer_attribute_config> attributes_when_on() const {
    auto next = attributes_;
    if (std::none_of(next.begin(), next.end(), [](auto const& a) { return a.enable; }))
      for (auto& a : next) a.enable = true;
    return next;
  }
  /// Members of those that are on.
  std::vector<tensor_quantizer<B>> interpreted(std::vector<quantizer_attribute_config> const& all,
                                               numerics_options const& numerics) const {
    std::vector<tensor_quantizer<B>> members;
    for (std::size_t i = 0; i < all.size(); ++i)
      if (all[i].enable)
        members.emplace_back(all.size() == 1 ? path_ : path_ + "." + std::to_string(i), all[i], numerics);
    return members;
  }

  std::string leaf_, path_;
  quantizer_role role_;
  bool enabled_ = false;
  std::vector<quantizer_attribute_config> attributes_;
  std::vector<quantizer_attribute_config> configured_;  ///< empty: as attributes_
  std::vector<tensor_quantizer<B>> members_;
  std::optional<rotation> off_rotation_;  ///< the one that stays while it is off; one that goes back is then none
  buffer<B, float> scale_;
};

}  // namespace mixbit
