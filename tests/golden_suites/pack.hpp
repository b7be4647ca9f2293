// Suite pack: the bytes, scales and dequantized values of ModelOpt's tensor classes, under policy `modelopt_pack`.
#pragma once

#include <algorithm>
#include <filesystem>

#include "golden_suites/quantizer_case.hpp"
#include "golden_suites/suite.hpp"
#include "mixbit/formats/check.hpp"

namespace golden {

template <mixbit::backend B>
class pack_suite {
 public:
  pack_suite(std::filesystem::path const& dir, B const& on)
      : backend_{on},
        document_(mixbit::read_json_file(dir / "pack.json")),
        file_{mixbit::safetensors_file::open(dir / "pack.safetensors")} {
    result_.name = "pack";
  }

  suite_result run() {
    int undefined = 0;
    for (auto const& c : document_.at("cases")) {
      std::string const name = c.at("format");
      bool const per_group = name.starts_with("int") || name.starts_with("fp8") || name.starts_with("nf4");
      if (c.at("input") == "zero_blocks_f32" && per_group && !name.ends_with("_tensor")) ++undefined;
      else run_case(c);
    }
    result_.skip(undefined, "groups of zeros, which ModelOpt casts from NaN to an integer");
    return result_;
  }

 private:
  using json = mixbit::json_document;

  static mixbit::format format_of_class(std::string const& name, mixbit::dtype type) {
    using namespace mixbit;
    if (name.starts_with("nvfp4"))
      return {e2m1_element, policy::modelopt_pack, dtype::f8_e4m3, packing::dense_rows, scale_rule::two_level};
    if (name.starts_with("mxfp4"))
      return {e2m1_element, policy::modelopt_pack, dtype::f8_e8m0, packing::dense_rows, scale_rule::mx_nv};
    if (name.starts_with("mxfp8"))
      return {e4m3_element, policy::modelopt_pack, dtype::f8_e8m0, packing::bytes, scale_rule::mx_nv};
    if (name.starts_with("nf4")) return {nf4_element, policy::modelopt_pack, type, packing::nibbles_high_first};
    if (name.starts_with("fp8")) return {e4m3_element, policy::modelopt_pack, type, packing::bytes};
    if (name.starts_with("int8")) return {integer_element(8), policy::modelopt_pack, type, packing::bytes};
    return {integer_element(4), policy::modelopt_pack, type, packing::nibbles_high_first};
  }

  static mixbit::partition groups_of_class(json const& c, mixbit::geometry const& g) {
    using namespace mixbit;
    if (c.contains("block_size"))
      return mixbit::blocks_of(g, std::vector<axis_block>{{-1, c.at("block_size").get<int>()}});
    return grouping_of(c, g).groups;
  }

  tensor load(json const& c, char const* field) { return tensor{file_.at(c.at(field).get<std::string>())}; }

  /// Blocks of INT4, NF4 and MXFP4 run over the flattened tensor.
  static void flatten(tensor& t) { t.g = mixbit::dense_geometry(t.g.type, std::array{t.g.size()}); }

  void run_case(json const& c) {
    std::string const id = c.at("id"), name = c.at("format");
    tensor x = load(c, "input"), data = load(c, "data"), scales = load(c, "scale0");
    bool const flat = name.starts_with("int4") || name.starts_with("nf4") || name.starts_with("mxfp4");
    if (flat) flatten(x);
    auto const how = format_of_class(name, x.g.type);
    auto const groups = groups_of_class(c, x.g);
    mixbit::check_encodable(how, id);
    std::vector<float> amax(static_cast<std::size_t>(groups.group_count()));
    backend_.amax({x.ref(), groups, amax.data(), nullptr});
    mixbit::check_amax(amax, how, x.g.type, id);
    auto const size = mixbit::storage_size_of(how, x.g, groups);
    // ModelOpt pads the scales of NF4 to whole blocks of scales
    if (c.contains("scale_block_size") && scales.g.bytes() > size.scales)
      scales.g = mixbit::dense_geometry(scales.g.type, std::array{groups.group_count()});
    bool ok = size.payload == data.g.bytes() && size.scales == scales.g.bytes();
    result_.check(ok, id + ": another storage size");
    if (!ok) return;

    float const tensor_amax = *std::max_element(amax.begin(), amax.end());
    float tensor_scale = 0;
    tensor our_data{data.g}, our_scales{scales.g};
    backend_.encode({x.ref(), groups, amax.data(), how, our_data.as<std::uint8_t>(), our_scales.as<void>(), nullptr,
                     &tensor_amax, &tensor_scale});
    result_.check(first_difference(our_data, data) < 0, id + ": other bytes");
    result_.check(first_difference(our_scales, scales) < 0, id + ": other scales");
    if (c.contains("scale1")) {
      tensor expected = load(c, "scale1");
      result_.check(expected.value(0) == tensor_scale, id + ": another tensor scale");
    }
    if (!c.contains("dequantized")) return;
    tensor y = load(c, "dequantized");
    if (flat) flatten(y);
    if (!y.g.same_shape(x.g)) return result_.check(false, id + ": dequantized to another shape");
    tensor our_y{y.g}, fake{y.g};
    backend_.decode({our_data.as<std::uint8_t>(), our_scales.as<void>(), groups, how, our_y.ref(), &tensor_scale});
    backend_.fake_quantize({x.ref(), fake.ref(), groups, amax.data(), how, nullptr, &tensor_amax});
    result_.check(first_difference(our_y, y) < 0, id + ": other dequantized values");
    result_.check(first_difference(fake, y) < 0, id + ": fake quantization differs from the dequantized values");
  }

  B backend_;
  json document_;
  mixbit::safetensors_file file_;
  suite_result result_;
};

}  // namespace golden

template <mixbit::backend B>
suite_result run_pack(std::filesystem::path const& dir, B const& on) {
  return golden::pack_suite<B>{dir, on}.run();
}
