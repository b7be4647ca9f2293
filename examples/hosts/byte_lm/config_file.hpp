// A Llama's shapes from a Hugging Face config.json.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>

#include "config.hpp"
#include "mixbit/core/error.hpp"
#include "mixbit/io/json.hpp"

namespace byte_lm {

using mixbit::json_document;

namespace detail {

/// Reads fields of one JSON object; every failure names the file and the field.
class config_reader {
 public:
  config_reader(json_document const& object, std::string file) : object_{object}, file_{std::move(file)} {}

  bool has(char const* field) const { return object_.contains(field) && !object_[field].is_null(); }

  /// A positive integer; `otherwise` stands for an absent field, and 0 there means that the field is required.
  std::int64_t positive(char const* field, std::int64_t otherwise = 0) const {
    if (!has(field)) return otherwise > 0 ? otherwise : refuse(field, "is missing");
    auto const& value = object_[field];
    std::int64_t constexpr largest = std::numeric_limits<std::int32_t>::max();
    if (!value.is_number_integer() || value.get<double>() < 1 || value.get<double>() > static_cast<double>(largest))
      refuse(field, "is " + value.dump() + ", not an integer from 1 to " + std::to_string(largest));
    return value.get<std::int64_t>();
  }

  float positive_real(char const* field, float otherwise) const {
    if (!has(field)) return otherwise;
    auto const& value = object_[field];
    if (!value.is_number() || !(value.get<float>() > 0) || !std::isfinite(value.get<float>()))
      refuse(field, "is " + value.dump() + ", not a positive number");
    return value.get<float>();
  }

  bool flag(char const* field, bool otherwise) const {
    if (!has(field)) return otherwise;
    if (!object_[field].is_boolean()) refuse(field, "is " + object_[field].dump() + ", not true or false");
    return object_[field].get<bool>();
  }

  /// For what this host does not compute: refused rather than ignored.
  void only(char const* field, json_document const& supported) const {
    if (has(field) && object_[field] != supported)
      refuse(field, "is " + object_[field].dump() + ", and only " + supported.dump() + " is supported");
  }

  [[noreturn]] std::int64_t refuse(char const* field, std::string const& why) const {
    mixbit::fail(mixbit::error_id::file_content, file_, ": field '", field, "' ", why);
  }

 private:
  json_document const& object_;
  std::string file_;
};

/// transformers 5 writes rope_parameters.rope_theta, older ones rope_theta and perhaps rope_scaling.
inline float read_rope_theta(json_document const& object, config_reader const& reader, std::string const& file) {
  std::optional<float> theta;
  for (char const* field : {"rope_parameters", "rope_scaling"}) {
    if (!reader.has(field)) continue;
    if (!object[field].is_object()) reader.refuse(field, "is " + object[field].dump() + ", not an object");
    config_reader const inner{object[field], file};
    inner.only("rope_type", "default");
    inner.only("type", "default");
    if (inner.has("rope_theta") && !theta) theta = inner.positive_real("rope_theta", 0);
  }
  return theta ? *theta : reader.positive_real("rope_theta", 10000.0f);
}

}  // namespace detail

/// The config in a JSON object; `file` is for messages. Throws `file_content`.
inline config parse_config(json_document const& object, std::string const& file) {
  if (!object.is_object()) mixbit::fail(mixbit::error_id::file_content, file, ": holds no JSON object");
  detail::config_reader const read{object, file};
  read.only("model_type", "llama");
  read.only("hidden_act", "silu");
  read.only("attention_bias", false);
  read.only("mlp_bias", false);

  config c;
  c.vocab_size = read.positive("vocab_size");
  c.hidden_size = read.positive("hidden_size");
  c.intermediate_size = read.positive("intermediate_size");
  c.num_hidden_layers = read.positive("num_hidden_layers");
  c.num_attention_heads = read.positive("num_attention_heads");
  c.num_key_value_heads = read.positive("num_key_value_heads", c.num_attention_heads);
  if (!read.has("head_dim") && c.hidden_size % c.num_attention_heads != 0)
    read.refuse("hidden_size", "is " + std::to_string(c.hidden_size) + ", not a multiple of num_attention_heads " +
                                   std::to_string(c.num_attention_heads));
  c.head_dim = read.positive("head_dim", c.hidden_size / c.num_attention_heads);
  c.max_position_embeddings = read.positive("max_position_embeddings", c.max_position_embeddings);
  c.rms_norm_eps = read.positive_real("rms_norm_eps", c.rms_norm_eps);
  c.rope_theta = detail::read_rope_theta(object, read, file);
  c.tie_word_embeddings = read.flag("tie_word_embeddings", c.tie_word_embeddings);

  if (c.num_attention_heads % c.num_key_value_heads != 0)
    read.refuse("num_key_value_heads", "is " + std::to_string(c.num_key_value_heads) +
                                           ", which does not divide num_attention_heads " +
                                           std::to_string(c.num_attention_heads));
  if (c.head_dim % 2 != 0)
    read.refuse("head_dim", "is " + std::to_string(c.head_dim) + ", and rotary embeddings need an even one");
  return c;
}

/// Throws `file_open`, `file_format` or `file_content`, naming the file.
inline config read_config(std::string const& path) { return parse_config(mixbit::read_json_file(path), path); }

}  // namespace byte_lm
