// Suite pack: the bytes, scales and dequantized values of ModelOpt's INT4, INT8 and FP8 tensor classes, under policy
// `modelopt_pack`.
#pragma once

#include <filesystem>
#include <map>

#include "golden_suites/quantizer_case.hpp"
#include "golden_suites/suite.hpp"
#include "mixbit/formats/check.hpp"
#include "mixbit/reference/scalar.hpp"

namespace golden {

class pack_suite {
 public:
  explicit pack_suite(std::filesystem::path const& dir)
      : document_(mixbit::read_json_file(dir / "pack.json")),
        file_{mixbit::safetensors_file::open(dir / "pack.safetensors")} {
    result_.name = "pack";
  }

  suite_result run() {
    std::map<std::string, int> later;
    int undefined = 0;
    for (auto const& c : document_.at("cases")) {
      std::string const name = c.at("format");
      if (name.starts_with("nvfp4") || name.starts_with("mx") || name.starts_with("nf4")) ++later[name];
      else if (c.at("input") == "zero_blocks_f32" && !name.ends_with("_tensor")) ++undefined;
      else run_case(c);
    }
    for (auto const& [name, cases] : later) result_.skip(cases, name + " is not there yet");
    result_.skip(undefined, "groups of zeros, which ModelOpt casts from NaN to an integer");
    return result_;
  }

 private:
  using json = mixbit::json_document;

  static mixbit::format format_of_class(std::string const& name, mixbit::dtype type) {
    using namespace mixbit;
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

  void run_case(json const& c) {
    std::string const id = c.at("id");
    tensor x{file_.at(c.at("input").get<std::string>())}, data{file_.at(c.at("data").get<std::string>())},
        scales{file_.at(c.at("scale0").get<std::string>())}, y{file_.at(c.at("dequantized").get<std::string>())};
    auto const how = format_of_class(c.at("format"), x.g.type);
    auto const groups = groups_of_class(c, x.g);
    mixbit::check_encodable(how, id);
    std::vector<float> amax(static_cast<std::size_t>(groups.group_count()));
    cpu_.amax({x.ref(), groups, amax.data(), nullptr});
    mixbit::check_amax(amax, how, x.g.type, id);
    auto const size = mixbit::storage_size_of(how, x.g, groups);
    bool ok = size.payload == data.g.bytes() && size.scales == scales.g.bytes() && x.g.same_shape(y.g);
    result_.check(ok, id + ": another storage size");
    if (!ok) return;

    tensor our_data{data.g}, our_scales{scales.g}, our_y{y.g}, fake{y.g};
    cpu_.encode({x.ref(), groups, amax.data(), how, our_data.as<std::uint8_t>(), our_scales.as<void>(), nullptr});
    cpu_.decode({our_data.as<std::uint8_t>(), our_scales.as<void>(), groups, how, our_y.ref()});
    cpu_.fake_quantize({x.ref(), fake.ref(), groups, amax.data(), how, nullptr});
    result_.check(first_difference(our_data, data) < 0, id + ": other bytes");
    result_.check(first_difference(our_scales, scales) < 0, id + ": other scales");
    result_.check(first_difference(our_y, y) < 0, id + ": other dequantized values");
    result_.check(first_difference(fake, y) < 0, id + ": fake quantization differs from the dequantized values");
  }

  mixbit::reference::scalar cpu_;
  json document_;
  mixbit::safetensors_file file_;
  suite_result result_;
};

}  // namespace golden

inline suite_result run_pack(std::filesystem::path const& dir) { return golden::pack_suite{dir}.run(); }
