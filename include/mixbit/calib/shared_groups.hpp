// Layers that share state because one fused kernel runs them, q/k/v or gate/up: which groups they form, and where the
// layers of a group differ in what they should share. calib/shared_state.hpp makes them equal.
#pragma once

#include <algorithm>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mixbit/calib/max_algorithm.hpp"
#include "mixbit/calib/pre_quant_scale.hpp"
#include "mixbit/config/grouping_rule.hpp"
#include "mixbit/core/name_index.hpp"
#include "mixbit/core/span_of.hpp"
#include "mixbit/quantizer/describe.hpp"

namespace mixbit {

/// The names of layers that share state.
using layer_group = std::vector<std::string>;

struct shared_fields {
  bool input_amax = true;
  bool weight_amax = true;  ///< of the whole tensor: FP8's, NVFP4's; amaxes of blocks and channels are each layer's own
  bool pre_quant_scale = true;
};

/// What two layers of a group have not in common.
struct shared_difference {
  std::string first, second;  ///< layers
  std::string field;          ///< "input amax", "weight amax", "pre_quant_scale[3]", "weight format", ...
  std::string first_value, second_value;

  /// Are they quantized to several formats, so that no amax could be shared?
  bool is_format() const { return field.ends_with(" format"); }
  /// "a.q_proj and a.k_proj differ in input amax: 1.5 and 2"
  std::string text() const {
    return detail::concat(first, " and ", second, " differ in ", field, ": ", first_value, " and ", second_value);
  }
};

/// A group that is not what a fused kernel needs: each layer against the first.
struct unshared_group {
  layer_group layers;
  std::vector<shared_difference> differences;
};

namespace detail {

/// A layer of a group. Quantizers are there, on or off, where the module has them.
template <backend B>
struct sharing_layer {
  calibrated_layer<B> layer;
  sequential_quantizer<B>*input = nullptr, *weight = nullptr;

  explicit sharing_layer(calibrated_layer<B> const& l) : layer{l} {
    if (l.where->recipes.empty()) return;
    for (auto& q : l.quantizers().quantizers) {
      if (q.role() == quantizer_role::input) input = &q;
      if (q.role() == quantizer_role::weight) weight = &q;
    }
  }
  std::string const& name() const { return layer.name(); }
  bool is_quantized() const { return (input && input->acts()) || (weight && weight->acts()); }
  std::vector<float> scale(B& device) const {
    return input ? input->pre_quant_scale(device) : std::vector<float>{};
  }
};

template <backend B>
using sharing_group = std::vector<sharing_layer<B>>;

/// "int8 axis 0, static then ..." of what runs; "off" where nothing does.
template <backend B>
std::string shared_format(sequential_quantizer<B> const* q) {
  if (q == nullptr || !q->enabled()) return "off";
  std::string text;
  for (auto const& m : q->members()) {
    auto const& n = m.numerics();
    text += concat(text.empty() ? "" : " then ", name_of(n.how), ' ', describe(n.grouping),
                   n.amax_from == amax_source::data ? ", dynamic" : n.amax_from == amax_source::constant
                       ? concat(", amax ", n.constant_amax) : std::string{", static"});
    if (n.rotate && !n.rotate->block) text += ", rotated";
    if (n.rotate && n.rotate->block) text += concat(", rotated in blocks of ", *n.rotate->block);
    if (n.bias) text += ", with a bias";
  }
  return text;
}

/// Has the member one calibrated amax for the whole weight, which a fused weight then has once? One that happens to be
/// of a single channel or block has not: fused it is several, or (2-D blocks) io's share_fused_blocks settles it.
template <backend B>
bool has_whole_amax(tensor_quantizer<B> const& m) {
  auto const& n = m.numerics();
  if (n.amax_from != amax_source::calibration || !m.has_amax()) return false;
  return is_two_level(n.how.scaling) || n.calibrated().what == grouping_scheme::kind::tensor;
}

inline std::string value_text(float const* v) { return v ? concat(*v) : std::string{"none"}; }

/// The first place where two lists of values differ, as `field` or `field[i]`.
inline void compare_values(shared_difference d, std::vector<float> const& a, std::vector<float> const& b,
                           std::vector<shared_difference>& found) {
  std::size_t const count = std::max(a.size(), b.size());
  for (std::size_t i = 0; i < count; ++i) {
    float const *x = i < a.size() ? &a[i] : nullptr, *y = i < b.size() ? &b[i] : nullptr;
    if (x && y && *x == *y) continue;
    if (count > 1) d.field += concat('[', i, ']');
    d.first_value = value_text(x);
    d.second_value = value_text(y);
    return found.push_back(std::move(d));
  }
}

/// The formats of both, and whether the second is quantized at all; compared before values, which mean little where
/// they differ.
template <backend B>
std::optional<shared_difference> format_difference(sharing_layer<B> const& a, sharing_layer<B> const& b) {
  for (bool const weight : {false, true}) {
    auto const first = shared_format(weight ? a.weight : a.input), second = shared_format(weight ? b.weight : b.input);
    if (first != second)
      return shared_difference{a.name(), b.name(), weight ? "weight format" : "input format", first, second};
  }
  return std::nullopt;
}

template <backend B>
void compare_amaxes(B& device, sharing_layer<B> const& a, sharing_layer<B> const& b, shared_fields const& what,
                    std::vector<shared_difference>& found) {
  if (what.input_amax && a.input && a.input->enabled())
    for (std::size_t i = 0; i < a.input->members().size(); ++i)
      compare_values({a.name(), b.name(), "input amax", {}, {}}, a.input->members()[i].amax(device),
                     b.input->members()[i].amax(device), found);
  if (!what.weight_amax || !a.weight || !a.weight->enabled()) return;
  auto const whole = [&](sharing_layer<B> const& l, std::size_t i) {
    auto const& m = l.weight->members()[i];
    return has_whole_amax(m) ? std::vector{m.tensor_amax(device, l.layer.source())} : std::vector<float>{};
  };
  for (std::size_t i = 0; i < a.weight->members().size(); ++i)
    compare_values({a.name(), b.name(), "weight amax", {}, {}}, whole(a, i), whole(b, i), found);
}

/// The second layer against the first.
template <backend B>
std::vector<shared_difference> differences_of(B& device, sharing_layer<B> const& a, sharing_layer<B> const& b,
                                              shared_fields const& what) {
  if (auto format = format_difference(a, b)) return {std::move(*format)};
  std::vector<shared_difference> found;
  if (what.pre_quant_scale)
    compare_values({a.name(), b.name(), "pre_quant_scale", {}, {}}, a.scale(device), b.scale(device), found);
  compare_amaxes(device, a, b, what, found);
  return found;
}

/// Finds the layers of the groups, for `caller`, whose name errors have. Throws `config_no_match` for a name that is
/// no layer of the model, `config_conflict` for a layer named twice and for a group of fewer than two.
template <backend B>
std::vector<sharing_group<B>> find_groups(std::vector<calibrated_layer<B>> const& layers,
                                          std::vector<layer_group> const& groups, std::string_view caller) {
  name_index places;
  for (std::size_t i = 0; i < layers.size(); ++i) places.add(layers[i].name(), i);
  std::vector<std::size_t> group_of(layers.size(), name_index::none);
  std::vector<sharing_group<B>> found;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    if (groups[g].size() < 2)
      fail(error_id::config_conflict, caller, ": group ", g, groups[g].empty() ? " is empty" : " has one layer, '",
           groups[g].empty() ? "" : groups[g].front(), groups[g].empty() ? "" : "'", "; it takes two to share");
    auto& group = found.emplace_back();
    for (auto const& name : groups[g]) {
      std::size_t const place = places.find(name);
      if (place == name_index::none)
        fail(error_id::config_no_match, caller, ": group ", g, ": the model has no layer '", name, "'");
      if (std::size_t const other = std::exchange(group_of[place], g); other != name_index::none)
        fail(error_id::config_conflict, caller, ": the layer '", name, "' is in group ", other, " and again in group ",
             g);
      group.emplace_back(layers[place]);
    }
  }
  return found;
}

}  // namespace detail

/// The groups of those layers that rules put together, of two layers or more, at least one of which is quantized.
template <backend B>
std::vector<layer_group> layer_groups(std::vector<calibrated_layer<B>> const& layers,
                                      std::vector<grouping_rule> const& rules) {
  std::vector<std::string> names;
  for (auto const& l : layers) names.push_back(l.name());
  std::vector<layer_group> groups;
  for (auto const& g : group_modules(detail::span_of(names), detail::span_of(rules))) {
    bool const any = std::any_of(g.members.begin(), g.members.end(), [&](std::size_t i) {
      return detail::sharing_layer<B>{layers[i]}.is_quantized();
    });
    if (g.rules.empty() || g.members.size() < 2 || !any) continue;
    auto& group = groups.emplace_back();
    for (std::size_t const i : g.members) group.push_back(names[i]);
  }
  return groups;
}

/// The groups whose layers differ in what they should share, and in what. Throws what is wrong with the groups.
template <backend B>
std::vector<unshared_group> unshared_groups(calibration<B>& c, std::vector<layer_group> const& groups,
                                            shared_fields const& what) {
  workspace_lock<B> const held{c.home};
  std::vector<unshared_group> all;
  for (auto const& group : detail::find_groups(c.layers, groups, "unshared_groups")) {
    unshared_group unshared;
    for (std::size_t i = 1; i < group.size(); ++i)
      for (auto& d : detail::differences_of(c.home.device, group.front(), group[i], what))
        unshared.differences.push_back(std::move(d));
    if (unshared.differences.empty()) continue;
    for (auto const& l : group) unshared.layers.push_back(l.name());
    all.push_back(std::move(unshared));
  }
  return all;
}

}  // namespace mixbit
