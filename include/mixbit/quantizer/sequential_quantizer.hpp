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

  /// Calibration shows every member the raw tensor: while it runs, quantization is off.
  void observe(B& device, const_tensor_ref x) {
    require_compute(x.type, path_);
    for (auto& m : members_)
      if (m.needs_calibration()) m.observe(device, x);
  }

  /// y = members in order of x; y may be x. Throws `tensor_dtype` for a tensor that kernels do not compute on.
  void quantize(B& device, arena& scratch, const_tensor_ref x, tensor_ref y) {
    require_compute(x.type, path_);
    const_tensor_ref from = x;
    for (auto& m : members_) {
      m.quantize(device, scratch, from, y);
      from = y;
    }
  }

  void mask_backward(B& device, arena& scratch, const_tensor_ref x, tensor_ref grad) {
    require_compute(x.type, path_);
    for (auto& m : members_) m.mask_backward(device, scratch, x, grad);
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
  std::vector<tensor_quantizer<B>> members_;
};

}  // namespace mixbit
