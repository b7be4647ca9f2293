// What tests of compressed-tensors checkpoints start from: configs of each form, and an export of one.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "mixbit/io/ct_checkpoint.hpp"
#include "mixbit/model/control.hpp"
#include "support/ct_decoded.hpp"
#include "support/export_bench.hpp"

namespace mixbit::test {

inline quantizer_attribute_config dynamic(quantizer_attribute_config a) {
  a.type = quantizer_type::dynamic_type;
  return a;
}
inline quantizer_attribute_config per_token(bit_spec bits) {
  return dynamic(blocks(std::move(bits), {{-1, std::nullopt}}));
}
/// MX blocks of 32 where `scale_exponent` is 8, NVFP4's of 16 where it is 4.
inline quantizer_attribute_config scaled_blocks(bit_spec bits, int scale_exponent) {
  auto a = blocks(std::move(bits), {{-1, scale_exponent == 8 ? 32 : 16}});
  a.block_sizes->type = quantizer_type::dynamic_type;
  a.block_sizes->scale_bits = scale_exponent == 8 ? bit_spec{8, 0} : bit_spec{4, 3};
  return a;
}
inline quantizer_attribute_config nvfp4() { return scaled_blocks({2, 1}, 4); }
inline quantizer_attribute_config mxfp4() { return scaled_blocks({2, 1}, 8); }
inline quantizer_attribute_config mxfp8() { return scaled_blocks({4, 3}, 8); }

/// A form, as quantizers make it.
struct ct_case {
  char const* format;
  quantizer_attribute_config weight;
  std::optional<quantizer_attribute_config> input = {};
  std::int64_t columns = 96;
};

inline std::vector<ct_case> ct_cases() {
  bit_spec const e4m3{4, 3};
  return {{"pack-quantized", blocks(4, {{-1, 32}})},
          {"pack-quantized", per_axis(4, 0), {}, 19},
          {"pack-quantized", blocks(8, {{-1, 16}})},
          {"pack-quantized", per_axis(8, 0), {}, 19},
          {"pack-quantized", whole(4), {}, 19},
          {"int-quantized", per_axis(8, 0), whole(8), 19},
          {"int-quantized", per_axis(8, 0), per_token(8)},
          {"int-quantized", whole(8), whole(8)},
          {"int-quantized", whole(8), per_token(8)},
          {"float-quantized", whole(e4m3), whole(e4m3), 19},
          {"float-quantized", per_axis(e4m3, 0), per_token(e4m3)},
          {"float-quantized", per_axis(e4m3, 0)},
          {"float-quantized", whole(e4m3)},
          {"float-quantized", blocks(e4m3, {{-1, 16}, {-2, 4}})},
          {"float-quantized", blocks(e4m3, {{-1, 32}, {-2, 4}}), dynamic(blocks(e4m3, {{-1, 32}}))},
          {"nvfp4-pack-quantized", nvfp4()},
          {"nvfp4-pack-quantized", nvfp4(), nvfp4()},
          {"mxfp4-pack-quantized", mxfp4()},
          {"mxfp4-pack-quantized", mxfp4(), mxfp4()},
          {"mxfp8-quantized", mxfp8()},
          {"mxfp8-quantized", mxfp8(), mxfp8()}};
}

struct ct_bench : export_bench {
  /// The largest value is NVFP4's range times a power of two, so that its global scale has a reciprocal.
  static plain_tensor weight(std::int64_t rows, std::int64_t columns, int seed = 1) {
    auto w = make_weight({rows, columns}, seed);
    w.values[7] = 5.25f;
    return w;
  }
  void add_layer(std::string const& name, std::int64_t rows, std::int64_t columns, int seed = 1) {
    add(name, weight(rows, columns, seed));
    names.push_back(name);
  }
  void show_all(float amax = 3.0f) {
    for (auto const& name : names) host.show(name, amax);
  }
  /// Quantizes all layers of the case that has that number, [6, columns], as "l.fc".
  explicit ct_bench(ct_case const& c) {
    add_layer("l.fc", 6, c.columns);
    quantize(
        [&](auto& what) {
          turn_on(what, "*weight_quantizer", c.weight);
          if (c.input) turn_on(what, "*input_quantizer", *c.input);
        },
        [&] { show_all(); });
  }
  ct_bench() = default;

  std::vector<std::string> run_ct(ct_export_options options = {}) {
    return export_ct_checkpoint(*m, source(), out(), std::move(options));
  }
  json_document quantization() const { return json("config.json")["quantization_config"]; }
  /// Q(w) of each module, which fold_weight puts in the weight's place.
  std::map<std::string, std::vector<float>> folded() {
    fold_weight(*m);
    std::map<std::string, std::vector<float>> all;
    for (auto const& module : m->modules()) {
      auto const* const values = module.weight.template as<float>();
      all[module.name] = {values, values + module.weight.size()};
    }
    return all;
  }

  std::vector<std::string> names;
};

}  // namespace mixbit::test
