// Suite blocks: MX and NVFP4 fake quantization, outputs and scales bit for bit, under the policies of ModelOpt's
// kernels.
#pragma once

#include <cmath>
#include <filesystem>

#include "golden_suites/quantizer_case.hpp"
#include "golden_suites/suite.hpp"
#include "mixbit/formats/check.hpp"

namespace golden {

template <mixbit::backend B>
class blocks_suite {
 public:
  blocks_suite(std::filesystem::path const& dir, B const& on)
      : backend_{on},
        document_(mixbit::read_json_file(dir / "blocks.json")),
        file_{mixbit::safetensors_file::open(dir / "blocks.safetensors")} {
    result_.name = "blocks";
  }

  suite_result run() {
    for (auto const& c : document_.at("cases")) run_case(c);
    return result_;
  }

 private:
  using json = mixbit::json_document;

  tensor load(json const& name) { return tensor{file_.at(name.get<std::string>())}; }

  static mixbit::element_type element_of(std::string const& name) {
    if (name == "mx_int8") return mixbit::integer_element(8);
    return mixbit::minifloat_element(name[4] - '0', name[6] - '0');
  }

  static mixbit::format format_of_case(json const& c) {
    using namespace mixbit;
    std::string const name = c.at("format");
    if (!name.starts_with("mx_")) {
      bool const triton = c.contains("policy") && c.at("policy") == "triton";
      policy const p = triton ? policy::modelopt_triton : policy::modelopt;
      return {e2m1_element, p, dtype::f8_e4m3, packing::dense_rows, scale_rule::two_level};
    }
    scale_rule const rule = c.at("scale_rule") == "nv" ? scale_rule::mx_nv : scale_rule::mx_ocp;
    return {element_of(name), policy::modelopt, dtype::f8_e8m0, packing::dense_rows, rule};
  }

  void run_case(json const& c) {
    using namespace mixbit;
    std::string const id = c.at("id");
    tensor x = load(c.at("input")), expected = load(c.at("output")), y{x.g};
    auto const how = format_of_case(c);
    check_format(how, id);
    auto const groups = mixbit::blocks_of(x.g, std::vector<axis_block>{{-1, c.at("block_size").get<int>()}});
    std::vector<float> amax(static_cast<std::size_t>(groups.group_count()));
    backend_.amax({x.ref(), groups, amax.data(), nullptr});
    amax_use const use = c.at("format") == "nvfp4_static" ? amax_use::given : amax_use::data;
    for (float& a : amax) a *= c.value("block_amax_multiplier", 1.0f);
    float const global = c.value("global_amax", 0.0f);
    backend_.fake_quantize({x.ref(), y.ref(), groups, amax.data(), how, nullptr, &global, use});
    auto const at = first_difference(y, expected);
    if (at < 0) result_.check(true, id);
    else
      result_.check(false, detail::concat(id, ": output[", at, "] is ", y.value(at), ", not ", expected.value(at),
                                          ", for ", x.value(at)));
    check_scales(c, how, {x.g.type, global, use == amax_use::data}, amax);
  }

  void check_scales(json const& c, mixbit::format const& how, mixbit::formats::rule_inputs const& inputs,
                    std::vector<float> const& amax) {
    bool const mx = c.contains("exponent");
    tensor expected = load(mx ? c.at("exponent") : c.at("scale"));
    bool equal = expected.g.size() == static_cast<std::int64_t>(amax.size());
    mixbit::formats::visit_rule(how, inputs, [&](auto const& rule) {
      for (std::size_t i = 0; equal && i < amax.size(); ++i) {
        float const ours = rule.prepare(amax[i]).backward;
        equal = ours == (mx ? std::ldexp(1.0f, expected.as<std::int16_t>()[i]) : expected.as<float>()[i]);
      }
    });
    result_.check(equal, c.at("id").get<std::string>() + ": other scales");
  }

  B backend_;
  json document_;
  mixbit::safetensors_file file_;
  suite_result result_;
};

}  // namespace golden

template <mixbit::backend B>
suite_result run_blocks(std::filesystem::path const& dir, B const& on) {
  return golden::blocks_suite<B>{dir, on}.run();
}
