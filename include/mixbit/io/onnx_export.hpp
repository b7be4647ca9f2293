// Writing a quantized network as an ONNX graph with QuantizeLinear and DequantizeLinear where the model quantizes. The
// library does not know a host's graph: the host says it, once, in the order in which it computes.
//
//   mixbit::onnx_export g{m, "digits"};                       // m: calibrated
//   auto x = g.input("images", {"n", 1, 8, 8});
//   x = g.op("Relu", {g.conv("conv1", x, conv1.bias, {{"pads", mixbit::onnx_shape{1, 1, 1, 1}}})});
//   x = g.op("Flatten", {x});
//   x = g.linear("fc1", x, fc1.bias);
//   g.output("logits", x, {"n", 10});
//   g.write("digits.onnx");
//
// Contract: `conv` and `linear` name a module of the walk, whose weight they take: codes and scales where it is
// quantized, else float32. Before them its input quantizer becomes a QuantizeLinear and a DequantizeLinear, behind them
// its output quantizer. Codes and scales are those of policy `stored`: with its optimisations off, a runtime computes
// what fake quantization under `stored` does, but for the order of its sums. `linear` is Add and MatMul by the
// transposed weight [in, out], which is what onnxruntime looks for. A quantizer that ONNX has no form for is refused
// when its module is named (io/onnx_format.hpp says which there are), one that the graph never came to when it is
// written. Errors: `format_value`, `format_amax`, `state_folded`, `state_not_calibrated`, `state_missing`,
// `tensor_shape`, naming module or quantizer, and what write_onnx throws.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <numeric>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mixbit/calib/host_floats.hpp"
#include "mixbit/io/hf_encoding.hpp"
#include "mixbit/io/onnx_weight.hpp"
#include "mixbit/model/model.hpp"
#include "mixbit/quantizer/describe.hpp"

namespace mixbit {

template <backend B>
class onnx_export {
 public:
  /// Values of the graph go by their names.
  using value = std::string;

  onnx_export(model<B>& m, std::string name) : model_{m}, modules_{m.modules()}, graph_{std::move(name)} {}

  value input(std::string name, std::vector<onnx_dimension> shape) {
    return graph_.input(std::move(name), std::move(shape));
  }

  /// Any other node, of one output.
  value op(std::string type, std::vector<value> inputs, std::vector<onnx_attribute> attributes = {}) {
    return node(std::move(type), std::move(inputs), std::move(attributes), "");
  }

  /// A float32 tensor of the host's.
  template <host_tensor T>
  value constant(std::string name, T const& tensor) {
    return constant_of(std::move(name), read_view(tensor));
  }

  /// y = x Wᵀ (+ bias, of as many elements as W has rows).
  template <host_tensor Bias>
  value linear(std::string const& module, value x, Bias const& bias) {
    return finish(module, node("Add", {linear_product(module, x), vector_of(module, read_view(bias))}, {}, module));
  }
  value linear(std::string const& module, value x) { return finish(module, linear_product(module, std::move(x))); }

  /// `attributes`: strides, pads, dilations, group of ONNX's Conv.
  template <host_tensor Bias>
  value conv(std::string const& module, value x, Bias const& bias, std::vector<onnx_attribute> attributes = {}) {
    return conv_of(module, std::move(x), read_view(bias), std::move(attributes));
  }
  value conv(std::string const& module, value x, std::vector<onnx_attribute> attributes = {}) {
    return conv_of(module, std::move(x), {}, std::move(attributes));
  }

  /// An operand of a module without a weight, by the quantizer's name within it ("q_bmm_quantizer").
  value operand(std::string const& module, std::string_view leaf, value x) {
    auto* const recipe = require_recipe(find(module), false);
    if (recipe)
      for (auto& q : recipe->quantizers)
        if (q.leaf() == leaf) return quantized(q, std::move(x));
    fail(error_id::state_missing, module, ": has no quantizer ", in_quotes(leaf));
  }

  void output(std::string const& name, value const& x, std::vector<onnx_dimension> shape) {
    graph_.output(name, x, std::move(shape));
  }

  onnx_graph const& graph() const { return graph_.graph(); }

  void write(std::filesystem::path const& path) const {
    for (auto const& module : modules_)
      if (auto* const recipe = active(module))
        for (auto const& q : recipe->quantizers)
          if (q.acts() && !used_.contains(q.path()))
            fail(error_id::state_missing, q.path(), ": is on, but the graph does not have it");
    write_onnx(path, graph_.graph());
  }

 private:
  using axes = std::vector<std::int8_t>;

  [[noreturn]] static void refuse(std::string const& path, std::string_view what) {
    fail(error_id::format_value, path, ": ONNX's QuantizeLinear has no ", what);
  }

  value node(std::string type, std::vector<value> inputs, std::vector<onnx_attribute> attributes, std::string name) {
    return graph_.node(std::move(type), std::move(inputs), std::move(attributes), std::move(name));
  }
  value constant_of(std::string name, const_tensor_ref const& t) {
    return graph_.floats(std::move(name), detail::onnx::sizes(t), fetch_floats(model_.device(), t));
  }

  module_ref<B> const& find(std::string const& name) {
    for (auto const& module : modules_)
      if (module.name == name) return module;
    fail(error_id::state_missing, name, ": the model's walk has no such module");
  }

  /// The recipe by which a module is quantized, or null.
  static recipe_quantizers<B>* active(module_ref<B> const& module) {
    auto& s = *module.slots->shared_site();
    auto* const recipe = s.recipes.empty() ? nullptr : &s.quantizers();
    return recipe != nullptr && recipe->any_acts() ? recipe : nullptr;
  }

  /// Checks what the module is, once it is named.
  recipe_quantizers<B>* require_recipe(module_ref<B> const& module, bool has_weight) {
    if (has_weight != (module.weight.data != nullptr))
      fail(error_id::state_missing, module.name, has_weight ? ": has no weight" : ": has a weight: name it as a layer");
    if (module.slots->shared_site()->folded)
      fail(error_id::state_folded, module.name, ": fold_weight has replaced this weight by its quantized values; ",
           "export before folding");
    auto* const recipe = active(module);
    if (recipe != nullptr && recipe->branch)
      fail(error_id::format_value, module.name, ": svdquant computes a branch beside this weight, which this version ",
           "does not write to ONNX");
    return recipe;
  }

  /// The one member of a quantizer that is on; null where nothing is done.
  tensor_quantizer<B>* member_of(sequential_quantizer<B>& q) {
    used_.insert(q.path());
    if (q.has_pre_quant_scale()) refuse(q.path(), "pre_quant_scale; fold it (fold_pre_quant_scales)");
    if (q.transforms()) refuse(q.path(), "rotation");
    if (!q.enabled()) return nullptr;
    if (q.members().size() != 1) refuse(q.path(), "sequence of quantizers");
    auto& m = q.members().front();
    if (m.numerics().rotate) refuse(q.path(), "rotation");
    if (m.numerics().bias) refuse(q.path(), "bias that is no whole code");
    q.refuse_learning("an export");
    return &m;
  }

  onnx_type type_of(tensor_quantizer<B> const& q) {
    auto const type = onnx_type_of(q.numerics());
    if (!type)
      fail(error_id::format_value, q.name(), ": ONNX graphs of this version have no ", name_of(q.numerics().how),
           "; they have integers of 8 and 4 bits and E4M3");
    return *type;
  }

  /// x behind a quantizer, which has one scale for all of it.
  value quantized(sequential_quantizer<B>& q, value x) {
    auto* const m = member_of(q);
    if (m == nullptr) return x;
    onnx_type const type = type_of(*m);
    auto const& n = m->numerics();
    if (n.amax_from == amax_source::data) refuse(q.path(), "scale from each call's data; make it static");
    if (n.grouping.what != grouping_scheme::kind::tensor) refuse(q.path(), "scale of a part of an operand");
    if (!saturates_as_onnx(n)) refuse(q.path(), "narrow range");
    float const amax = detail::hf::tensor_amax(model_.device(), *m);
    float const scale = detail::hf::tensor_scale(n, amax);
    if (!(scale > 0.0f) || !fp::is_finite(scale))
      fail(error_id::format_amax, q.path(), ": its amax is ", amax, ", and ONNX divides by the scale that it gives");
    value const by = graph_.floats(q.path() + ".scale", {}, {scale});
    std::vector<onnx_attribute> attributes;
    std::vector<value> inputs{std::move(x), by};
    if (detail::onnx::has_zero_point(type)) inputs.push_back(graph_.zeros(q.path() + ".zero_point", type, {}));
    else attributes.push_back({"output_dtype", static_cast<std::int64_t>(type)});
    value const codes = node("QuantizeLinear", inputs, std::move(attributes), q.path() + ".codes");
    inputs.front() = codes;
    return node("DequantizeLinear", inputs, {}, q.path());
  }

  value quantized_in(module_ref<B> const& module, quantizer_role role, value x) {
    auto* const recipe = active(module);
    auto* const q = recipe == nullptr ? nullptr : recipe->acting(role);
    return q == nullptr ? x : quantized(*q, std::move(x));
  }

  /// Behind a layer: its output quantizer.
  value finish(std::string const& name, value y) {
    return quantized_in(find(name), quantizer_role::output, std::move(y));
  }

  value weight_once(module_ref<B> const& module, axes const& order) {
    auto const at = weights_.find(module.name);
    return at != weights_.end() ? at->second : weights_[module.name] = weight(module, order);
  }

  /// The weight in this order of its axes, dequantized where it is quantized.
  value weight(module_ref<B> const& module, axes const& order) {
    auto* const recipe = require_recipe(module, true);
    const_tensor_ref const w = recipe == nullptr ? const_tensor_ref{canonical_weight(module)} : source_weight(module);
    if (w.rank != static_cast<int>(order.size()))
      fail(error_id::tensor_shape, module.name, ": its weight is ", to_string(w), ", and this layer takes one of rank ",
           order.size());
    std::string const name = module.name + ".weight";
    auto* const q = recipe == nullptr ? nullptr : recipe->acting(quantizer_role::weight);
    auto* const m = q == nullptr ? nullptr : member_of(*q);
    if (m == nullptr) return constant_of(name, permuted(w, order));
    partition const groups = m->grouping(w);
    auto const places = onnx_scales_of(w, groups);
    onnx_type const type = type_of(*m);
    if (!places)
      fail(error_id::format_value, q->path(), ": ONNX has scales of a tensor, an axis or blocks of one axis, not for ",
           describe(m->numerics().grouping), " of a weight of shape ", to_string(w));
    hf_encoding<B> const encoding{model_.device(), *m, w, groups};
    workspace_lock<B> const held{model_.scratch()};
    auto const codes = encoding.codes(model_.device());
    detail::code_view const view{m->numerics().how.element, w, codes};
    return detail::onnx::dequantized(graph_, name, {type, *places, w, groups, order}, view, encoding.scales());
  }

  value linear_product(std::string const& name, value x) {
    auto const& module = find(name);
    value const w = weight_once(module, {1, 0});
    x = quantized_in(module, quantizer_role::input, std::move(x));
    return node("MatMul", {x, w}, {}, name + ".product");
  }

  value conv_of(std::string const& name, value x, const_tensor_ref const& bias,
                std::vector<onnx_attribute> attributes) {
    auto const& module = find(name);
    axes order(static_cast<std::size_t>(canonical_weight(module).rank));
    std::iota(order.begin(), order.end(), std::int8_t{0});
    std::vector<value> inputs{"", weight_once(module, order)};
    inputs.front() = quantized_in(module, quantizer_role::input, std::move(x));
    if (bias.data != nullptr) inputs.push_back(vector_of(name, bias));
    return finish(name, node("Conv", std::move(inputs), std::move(attributes), name));
  }

  value vector_of(std::string const& module, const_tensor_ref const& t) {
    return graph_.floats(module + ".bias", {t.size()}, fetch_floats(model_.device(), t));
  }

  model<B>& model_;
  std::vector<module_ref<B>> modules_;  ///< of the walk
  detail::onnx::builder graph_;
  std::set<std::string> used_;                 ///< quantizers
  std::map<std::string, value> weights_;       ///< by module: a layer may run twice
};

}  // namespace mixbit
