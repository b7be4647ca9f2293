// The key/value cache in a Hugging Face checkpoint as ModelOpt writes it: what an attention's quantizers on keys and
// values become. The cache itself is in no file; a scale a layer is, beside the projection that feeds it, and one word
// for the whole model says its format (kv_cache_quant_algo, and kv_cache_scheme in config.json).
//
//   algorithm   keys and values                              NAME.k_proj.k_scale, NAME.v_proj.v_scale (float32, 0-d)
//   FP8         E4M3, one static scale                       amax/448
//   NVFP4       E2M1 in blocks of 16 of the last axis, whose amax/448 of the tensor
//               scales are of the data, E4M3
//
// NAME is the attention module. It carries k_bmm_quantizer and v_bmm_quantizer (class "attention" of
// config/module_classes.hpp, or one of the host's own that declares them).
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mixbit/config/module_classes.hpp"
#include "mixbit/io/hf_format.hpp"
#include "mixbit/model/module.hpp"

namespace mixbit {

enum class hf_kv_cache : std::uint8_t { fp8, nvfp4 };

/// `kv_cache_quant_algo`
constexpr std::string_view name_of(hf_kv_cache c) { return c == hf_kv_cache::fp8 ? "FP8" : "NVFP4"; }

/// The quantizers of one attention's keys and values, and what a cache of both is.
template <backend B>
struct hf_kv_form {
  hf_kv_cache format;
  tensor_quantizer<B>*keys = nullptr, *values = nullptr;
};

/// The format of a tensor that is quantized so, if a cache has a name for it.
inline std::optional<hf_kv_cache> hf_kv_cache_of(hf_operand const& operand) {
  if (operand.size() != 1) return std::nullopt;
  auto const& n = operand.front();
  if (detail::hf::is_e4m3(n) && detail::hf::is_per_tensor_static(n)) return hf_kv_cache::fp8;
  bool const two_level = n.how.scaling == scale_rule::two_level && n.groups_from_data;
  auto const& b = n.grouping.blocks;
  if (two_level && n.amax_from != amax_source::data && b.size() == 1 && b[0].axis == -1 && b[0].size == 16)
    return hf_kv_cache::nvfp4;
  return std::nullopt;
}

/// float32, from the amax of the whole tensor.
constexpr float hf_kv_scale(float amax) { return amax / 448.0f; }

/// The formats of all caches of a model, which are one: loaders read one word for it.
class hf_kv_formats {
 public:
  static std::string_view text(std::optional<hf_kv_cache> f) { return f ? name_of(*f) : "not quantized"; }

  /// `format`: none where that attention's keys and values are not quantized. Throws `format_value`, naming both, for
  /// one that differs from the first.
  void add(std::string const& attention, std::optional<hf_kv_cache> format) {
    if (first_.empty()) first_ = attention, format_ = format;
    if (format == format_) return;
    fail(error_id::format_value, first_, " and ", attention, " differ in their key/value caches: ", text(format_),
         " and ", text(format), "; a checkpoint has one format for all of them");
  }
  std::optional<hf_kv_cache> format() const { return format_; }

 private:
  std::string first_;
  std::optional<hf_kv_cache> format_;
};

/// The formats that a search may give to caches. Groups choose apart, so caches of several groups need one to begin
/// with; those of one group may have more.
class hf_kv_choices {
 public:
  /// Of any of a group's formats. Throws `format_value`, naming both, where one of another group may differ.
  void add(std::string const& group, std::string const& attention, std::optional<hf_kv_cache> format) {
    for (auto const& c : seen_)
      if (c.group != group && c.format != format)
        fail(error_id::format_value, c.attention, " and ", attention, " may differ in their key/value caches: ",
             hf_kv_formats::text(c.format), " and ", hf_kv_formats::text(format), "; a checkpoint has one format for ",
             "all of them, so put all attentions into one group by a grouping rule");
    auto const same = [&](choice const& c) { return c.group == group && c.format == format; };
    if (std::none_of(seen_.begin(), seen_.end(), same)) seen_.push_back({group, attention, format});
  }

 private:
  struct choice {
    std::string group, attention;
    std::optional<hf_kv_cache> format;
  };
  std::vector<choice> seen_;
};

namespace detail::hf {

/// Is it an attention without a weight of its own, with quantizers on keys and values, on or off?
template <backend B>
bool has_kv_cache(module_ref<B> const& module, recipe_quantizers<B>& recipe) {
  return module.weight.data == nullptr && recipe.named(key_quantizer) != nullptr &&
         recipe.named(value_quantizer) != nullptr;
}

}  // namespace detail::hf

}  // namespace mixbit
