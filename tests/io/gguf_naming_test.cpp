// The keys of llama's metadata in a GGUF file, and the numbers of a config.json that it cannot hold.
#include "mixbit/io/gguf_naming.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>

#include "support/error_text.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

json_document config_with(char const* key, json_document value) {
  auto config = json_document::parse(
      R"({"num_attention_heads": 4, "hidden_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 128,
          "intermediate_size": 96, "vocab_size": 256})");
  config[key] = std::move(value);
  return config;
}

std::string refused(char const* key, json_document value) {
  auto const config = config_with(key, std::move(value));
  return error_text(error_id::file_content, [&] { gguf_llama_metadata(config); });
}

}  // namespace

TEST_CASE("gguf: llama's metadata from a config.json") {
  auto const m = gguf_llama_metadata(config_with("rope_theta", 5e5));
  auto const value = [&](char const* key) {
    auto const at = std::ranges::find_if(m, [&](gguf_entry const& entry) { return entry.key == key; });
    REQUIRE(at != m.end());
    return at->value;
  };
  CHECK(value("llama.block_count") == gguf_value{std::uint32_t{2}});
  CHECK(value("llama.attention.head_count_kv") == gguf_value{std::uint32_t{4}});
  CHECK(value("llama.attention.key_length") == gguf_value{std::uint32_t{16}});
  CHECK(value("llama.rope.freq_base") == gguf_value{5e5f});
  CHECK(value("llama.attention.layer_norm_rms_epsilon") == gguf_value{1e-6f});
}

TEST_CASE("gguf: numbers that llama's metadata cannot hold are refused with key and value") {
  std::int64_t const beyond = std::int64_t{1} << 32;
  for (char const* key : {"num_hidden_layers", "num_attention_heads", "vocab_size", "head_dim", "num_key_value_heads"})
    for (std::int64_t const wrong : {beyond, beyond + 4, beyond << 8, std::int64_t{0}, std::int64_t{-1}}) {
      CAPTURE(key);
      CHECK(says(refused(key, wrong), key, std::to_string(wrong), "32 bits"));
    }
  CHECK(says(refused("num_attention_heads", 65), "num_attention_heads is 65", "hidden_size, 64"));
  CHECK(says(refused("rms_norm_eps", "x"), "rms_norm_eps is \"x\""));
  CHECK(says(refused("rms_norm_eps", 1e300), "rms_norm_eps is 1e+300"));
  CHECK(says(refused("rope_theta", false), "rope_theta is false"));
}
