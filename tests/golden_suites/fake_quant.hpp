// Suite fake_quant: every case of ModelOpt's fake quantization, bit for bit, under policy `modelopt`.
#pragma once

#include <filesystem>

#include "golden_suites/quantizer_case.hpp"
#include "golden_suites/suite.hpp"
#include "mixbit/config/attribute_json.hpp"
#include "mixbit/formats/check.hpp"
#include "mixbit/quantizer/tensor_quantizer.hpp"

namespace golden {

template <mixbit::backend B>
class fake_quant_suite {
 public:
  fake_quant_suite(std::filesystem::path const& dir, B const& on)
      : backend_{on},
        document_(mixbit::read_json_file(dir / "fake_quant.json")),
        file_{mixbit::safetensors_file::open(dir / "fake_quant.safetensors")} {
    result_.name = "fake_quant";
  }

  suite_result run() {
    for (auto const& c : document_.at("cases")) {
      id_ = c.at("id");
      try {
        run_case(c);
      } catch (std::exception const& e) {
        result_.check(false, "fake_quant.json, case " + id_ + ": " + reason_of(e));
      }
    }
    return result_;
  }

 private:
  using json = mixbit::json_document;

  tensor load(std::string const& name) { return tensor{file_.at(name)}; }

  void run_case(json const& c) {
    tensor x = load(c.at("input"));
    if (c.contains("error")) return refused(c, x);
    if (c.contains("grad_output")) return backward(c, x);
    if (c.at("attributes").contains("bias")) return affine(c, x);
    std::vector<json> members;
    if (c.at("attributes").is_array()) members.assign(c.at("attributes").begin(), c.at("attributes").end());
    else members.push_back(c.at("attributes"));
    tensor y{x.g};
    std::memcpy(y.as<char>(), x.as<char>(), static_cast<std::size_t>(x.g.bytes()));
    for (std::size_t m = 0; m < members.size(); ++m)
      if (!member(c, members[m], m, x, y)) return;
    compare(y, c);
  }

  void compare(tensor& y, json const& c) {
    tensor expected = load(c.at("output"));
    auto const at = first_difference(y, expected);
    if (at >= 0)
      result_.check(false,
                    mixbit::detail::concat(id_, ": output[", at, "] is ", y.value(at), ", not ", expected.value(at)));
    else result_.check(true, id_);
  }

  /// Quantizes `y` in place; false if the amax is another, which is then noted. The amax is that of the raw input, as
  /// every member is calibrated with the others off.
  bool member(json const& c, json const& attributes, std::size_t index, tensor& x, tensor& y) {
    auto const how = format_of(attributes, mixbit::policy::modelopt);
    mixbit::check_format(how, id_);
    auto const shared = grouping_of(attributes, x.g);
    auto amax = calibrate(c, attributes, shared, x);
    if (!amax_matches(c, index, shared, x.g, amax)) return false;
    // the file holds the calibrated amax there, but 448 is used
    if (attributes.value("use_constant_amax", false)) amax[0] = 448.0f;
    mixbit::data_flags flags;
    tensor before = y;
    backend_.fake_quantize({y.ref(), y.ref(), shared.groups, amax.data(), how, &flags});
    mixbit::check_flags(backend_, &flags, before.ref(), how, id_);
    return true;
  }

  std::vector<float> calibrate(json const& c, json const& attributes, grouping const& shared, tensor& x) {
    std::vector<float> amax(static_cast<std::size_t>(shared.groups.group_count()));
    if (c.contains("given_amax")) std::fill(amax.begin(), amax.end(), c.at("given_amax").get<float>());
    else if (attributes.contains("constant_amax")) amax[0] = attributes.at("constant_amax").get<float>();
    else backend_.amax({x.ref(), shared.groups, amax.data(), nullptr});
    mixbit::check_amax(amax, format_of(attributes, mixbit::policy::modelopt), x.g.type, id_);
    return amax;
  }

  /// Dynamic quantizers have no amax of their own in the file.
  bool amax_matches(json const& c, std::size_t index, grouping const& shared, mixbit::geometry const& g,
                    std::vector<float> const& amax) {
    if (c.at("amax").size() <= index) return true;
    tensor expected = load(c.at("amax").at(index));
    bool ok = same_shape(expected.g, mixbit::amax_shape_of(g, shared.groups, shared.blocks));
    for (std::size_t i = 0; ok && i < amax.size(); ++i) ok = amax[i] == expected.as<float>()[i];
    if (!ok) result_.check(false, id_ + ": another amax");
    return ok;
  }

  /// Affine quantizers as a model has them: calibrated on the input, then quantizing it.
  void affine(json const& c, tensor& x) {
    json const& attributes = c.at("attributes");
    mixbit::tensor_quantizer<B> q{
        id_, mixbit::attributes_from_json(mixbit::config_json::parse(attributes.dump())), mixbit::policy::modelopt};
    q.observe(backend_, scratch_, x.ref());
    if (!c.at("bias").empty() && !static_bias(c, x, q)) return;
    if (!amax_matches(c, 0, grouping_of(attributes, x.g), x.g, q.amax(backend_))) return;
    tensor y{x.g};
    q.quantize(backend_, scratch_, x.ref(), y.ref());
    compare(y, c);
  }

  /// A midpoint is the golden one to the bit. A mean depends on the order of summation: ours is near the golden one, by
  /// what float32 sums of |x| err and a step of the type, and then replaced by it, with the amax that follows.
  template <class Quantizer>
  bool static_bias(json const& c, tensor& x, Quantizer& q) {
    tensor golden = load(c.at("bias").at(0));
    bool const mean = c.at("attributes").at("bias").value("method", "mean") == "mean";
    float const step = x.g.type == mixbit::dtype::f32 ? 0x1p-22f : x.g.type == mixbit::dtype::f16 ? 0x1p-10f : 0x1p-7f;
    float largest = 0;
    for (std::int64_t i = 0; i < x.g.size(); ++i) largest = std::max(largest, mixbit::fp::abs(x.value(i)));
    auto const ours = q.bias()->values();
    bool ok = static_cast<std::int64_t>(ours.size()) == golden.g.size();
    std::vector<float> values;
    for (std::int64_t i = 0; ok && i < golden.g.size(); ++i) {
      values.push_back(golden.value(i));
      float const off = mixbit::fp::abs(ours[static_cast<std::size_t>(i)] - values.back());
      ok = off <= (mean ? 1e-6f * largest + step * mixbit::fp::abs(values.back()) : 0.0f);
    }
    if (!ok) result_.check(false, id_ + ": another bias");
    if (!ok || !mean) return ok;
    q.bias()->set(backend_, q.bias()->grouping(x.g), values);
    tensor less{x.g};
    std::vector<float> amax(static_cast<std::size_t>(q.grouping(x.g).group_count()));
    backend_.shift({x.ref(), less.ref(), q.bias()->grouping(x.g), values.data(), true});
    backend_.amax({less.ref(), q.grouping(x.g), amax.data(), nullptr});
    q.set_amax(backend_, q.grouping(x.g), amax);
    return true;
  }

  /// Negative values under an unsigned format: noticed, and refused by the check that entries make.
  void refused(json const& c, tensor& x) {
    auto const how = format_of(c.at("attributes"), mixbit::policy::modelopt);
    auto const shared = grouping_of(c.at("attributes"), x.g);
    std::vector<float> amax(static_cast<std::size_t>(shared.groups.group_count()));
    mixbit::data_flags flags;
    backend_.amax({x.ref(), shared.groups, amax.data(), &flags});
    tensor y{x.g};
    backend_.fake_quantize({x.ref(), y.ref(), shared.groups, amax.data(), how, &flags});
    bool thrown = false;
    try {
      mixbit::check_flags(backend_, &flags, x.ref(), how, id_);
    } catch (mixbit::error const& e) {
      thrown = e.id() == mixbit::error_id::format_unsigned;
    }
    result_.check(thrown, id_ + ": not refused");
  }

  void backward(json const& c, tensor& x) {
    auto const shared = grouping_of(c.at("attributes"), x.g);
    tensor amax = load(c.at("amax").at(0)), grad = load(c.at("grad_output")), expected = load(c.at("grad_input"));
    if (!grad.g.same_shape(x.g) || amax.g.size() != shared.groups.group_count())
      return result_.check(false, id_ + ": grad_output or amax do not fit the input's shape");
    backend_.backward_mask({x.ref(), grad.ref(), shared.groups, amax.as<float>()});
    result_.check(first_difference(grad, expected) < 0, id_ + ": another gradient");
  }

  B backend_;
  mixbit::arena scratch_;
  json document_;
  mixbit::safetensors_file file_;
  std::string id_;
  suite_result result_;
};

}  // namespace golden

template <mixbit::backend B>
suite_result run_fake_quant(std::filesystem::path const& dir, B const& on) {
  return golden::fake_quant_suite<B>{dir, on}.run();
}
