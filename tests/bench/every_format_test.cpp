// bench/every_format.hpp: which formats bench_budgets searches over.
#include "bench/every_format.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "mixbit/config/presets.hpp"

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

TEST_CASE("Every format is a candidate: presets of all layers, and integers below what presets have") {
  auto const names = names_of(bench::every_format().formats);
  for (char const* name : {"INT2_B32", "INT3_B32", "INT4_B32", "INT8_DEFAULT_CFG", "INT8_WEIGHT_ONLY_CFG",
                           "NVFP4_SVDQUANT_DEFAULT_CFG", "MXFP6_DEFAULT_CFG", "W4A8_AWQ_BETA_CFG"})
    CHECK_MESSAGE(has(names, name), name);
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
