// bench/every_format.hpp: which formats bench_budgets searches over.
#include "bench/every_format.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "mixbit/config/presets.hpp"
#include "mixbit/quantizer/numerics.hpp"

namespace {

std::vector<std::string> names_of(std::vector<mixbit::quantize_config> const& formats) {
  std::vector<std::string> names;
  for (auto const& f : formats) names.push_back(f.name);
  return names;
}

bool has(std::vector<std::string> const& names, std::string const& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

TEST_CASE("Every format is a candidate: presets of all layers, and weights alone in each element") {
  auto const names = names_of(bench::every_format().formats);
  for (char const* name : {"INT8_DEFAULT_CFG", "INT8_WEIGHT_ONLY_CFG", "NVFP4_SVDQUANT_DEFAULT_CFG",
                           "MXFP6_DEFAULT_CFG", "W4A8_AWQ_BETA_CFG", "NF4_B64", "NF4_B32", "MX_INT8",
                           "NVFP4_FOUR_OVER_SIX_WEIGHTS", "NVFP4_W4A4_WEIGHT_MSE_FP8_SWEEP_WEIGHTS"})
    CHECK_MESSAGE(has(names, name), name);
  for (int const bits : {2, 3, 4, 5, 6, 7, 8}) {
    CHECK_MESSAGE(has(names, "INT" + std::to_string(bits) + "_B32"), bits);
    CHECK_MESSAGE(has(names, "INT" + std::to_string(bits) + "_ROW") == (bits != 8), bits);  // a preset has it
  }
  for (std::string const element : {"E4M3", "E5M2", "E3M2", "E2M3", "E2M1", "E1M2", "E0M3", "E3M0"})
    for (auto const& name : {"MX_" + element, element + "_B32", element + "_ROW"})
      CHECK_MESSAGE(has(names, name), name);
}

TEST_CASE("Formats of weights alone are valid and computed, leave inputs as they are, and no two are the same") {
  auto const formats = bench::weight_formats();
  for (std::size_t i = 0; i < formats.size(); ++i) {
    CAPTURE(formats[i].name);
    CHECK_NOTHROW(formats[i].validate());
    CHECK_FALSE(bench::turns_on(formats[i], "input_quantizer"));
    for (auto const& entry : formats[i].entries)
      if (entry.cfg)
        for (auto const& a : *entry.cfg) CHECK_NOTHROW(mixbit::interpret(a, {}, formats[i].name));
    for (std::size_t k = 0; k < i; ++k) {
      CHECK(formats[k].name != formats[i].name);
      CHECK_FALSE(same_content(mixbit::all_layers(formats[k]), mixbit::all_layers(formats[i])));
    }
  }
}

TEST_CASE("What leaves layers to other formats, or quantizes caches, is no candidate") {
  auto const names = names_of(bench::every_format().formats);
  for (char const* name : {"NVFP4_MLP_ONLY_CFG", "NVFP4_EXPERTS_ONLY_CFG", "MXFP4_MLP_WEIGHT_ONLY_CFG", "FP8_KV_CFG",
                           "NVFP4_KV_ROTATE_CFG", "FP8_AFFINE_KV_CFG", "NVFP4_FP8_MHA_CONFIG"})
    CHECK_MESSAGE(!has(names, name), name);
}

TEST_CASE("Presets that are one format in all layers are one candidate, and named as repeats") {
  auto const list = bench::every_format();
  CHECK(list.repeats == std::vector<std::string>{"MAMBA_MOE_FP8_AGGRESSIVE_CFG as FP8_DEFAULT_CFG",
                                                 "MAMBA_MOE_FP8_CONSERVATIVE_CFG as FP8_DEFAULT_CFG",
                                                 "MAMBA_MOE_NVFP4_AGGRESSIVE_CFG as NVFP4_DEFAULT_CFG",
                                                 "MAMBA_MOE_NVFP4_CONSERVATIVE_CFG as NVFP4_DEFAULT_CFG"});
  auto const names = names_of(list.formats);
  CHECK(!has(names, "MAMBA_MOE_FP8_AGGRESSIVE_CFG"));
}

TEST_CASE("Formats that differ in their algorithm alone are two") {
  auto const names = names_of(bench::every_format().formats);
  CHECK(has(names, "NVFP4_AWQ_LITE_CFG"));
  CHECK(has(names, "NVFP4_AWQ_CLIP_CFG"));
}
