// What a GGUF file is made of, as far as it is known before anything is quantized.
#include "mixbit/io/gguf_outline.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "mixbit/io/safetensors_writer.hpp"
#include "support/error_text.hpp"
#include "support/temporary_folder.hpp"

using namespace mixbit;
using namespace mixbit::test;

TEST_CASE("gguf outline: a tensor that has no place is named with the shard that holds it") {
  temporary_folder const folder;
  std::vector<float> const values(8 * 4);
  auto const write = [&](char const* file, std::string const& tensor) {
    named_tensor const t{tensor, dense_view(values.data(), {8, 4})};
    write_safetensors(folder / file, std::vector{t});
  };
  write("one.safetensors", "model.embed_tokens.weight");
  write("two.safetensors", "model.odd.weight");
  write_text(folder / "model.safetensors.index.json",
             R"({"weight_map": {"model.embed_tokens.weight": "one.safetensors",
                                "model.odd.weight": "two.safetensors"}})");
  write_text(folder / "config.json", R"({"architectures": ["LlamaForCausalLM"], "hidden_size": 4, "vocab_size": 8,
    "num_attention_heads": 1, "num_hidden_layers": 1, "intermediate_size": 4, "max_position_embeddings": 8,
    "rope_theta": 10000})");
  hf_source const source{folder.path()};
  auto family = gguf_family_of(source.config());
  REQUIRE(family);
  gguf_outline outline{source, *family};
  auto const text = error_text(error_id::file_content, [&] { outline.take_the_rest(); });
  CHECK_MESSAGE(says(text, "two.safetensors': tensor 'model.odd.weight' has no name in GGUF"), text);
  auto const unknown = [&] {
    outline.add_quantized("model.nowhere.weight", dense_geometry(dtype::f32, {8, 4}), gguf_type::q8_0);
  };
  CHECK(says(error_text(error_id::file_content, unknown), "index.json': tensor 'model.nowhere.weight' has no name"));
}

TEST_CASE("gguf outline: tensors that config.json contradicts are refused with both shapes") {
  temporary_folder const folder;
  std::vector<float> const values(64);
  std::vector<named_tensor> tensors;
  auto const add = [&](std::string const& name, std::initializer_list<std::int64_t> shape) {
    tensors.push_back({name, dense_view(values.data(), shape)});
  };
  add("model.embed_tokens.weight", {8, 4});
  add("model.layers.0.self_attn.q_proj.weight", {8, 4});
  add("model.layers.0.self_attn.k_proj.weight", {4, 4});
  add("model.layers.0.self_attn.k_proj.bias", {4});
  add("model.layers.1.self_attn.o_proj.weight", {4, 8});
  add("model.layers.1.mlp.down_proj.weight", {4, 6});
  add("model.layers.1.input_layernorm.weight", {4});
  write_safetensors(folder / "model.safetensors", tensors);
  auto const outlined = [&](char const* key, std::int64_t value) {
    json_document config{{"architectures", {"LlamaForCausalLM"}}, {"hidden_size", 4}, {"vocab_size", 8},
                         {"num_attention_heads", 2}, {"num_key_value_heads", 1}, {"head_dim", 4},
                         {"num_hidden_layers", 2}, {"intermediate_size", 6}, {"max_position_embeddings", 8}};
    config[key] = value;
    write_text(folder / "config.json", config.dump());
    hf_source const source{folder.path()};
    gguf_outline outline{source, *gguf_family_of(source.config())};
    outline.take_the_rest();
  };
  CHECK_NOTHROW(outlined("hidden_size", 4));
  auto const refused = [&](char const* key, std::int64_t value) {
    return error_text(error_id::file_content, [&] { outlined(key, value); });
  };
  auto const shapes = [](std::string const& tensor, char const* is, char const* said) {
    return "model.safetensors': tensor 'model." + tensor + "' is " + is + ", and by the numbers of config.json " + said;
  };
  CHECK(says(refused("vocab_size", 9), shapes("embed_tokens.weight", "[8,4]", "[9,4]")));
  CHECK(says(refused("num_attention_heads", 4), shapes("layers.0.self_attn.q_proj.weight", "[8,4]", "[16,4]")));
  CHECK(says(refused("num_key_value_heads", 2), shapes("layers.0.self_attn.k_proj.bias", "[4]", "[8]")));
  CHECK(says(refused("intermediate_size", 7), shapes("layers.1.mlp.down_proj.weight", "[4,6]", "[4,7]")));
  CHECK(says(refused("hidden_size", 5), shapes("embed_tokens.weight", "[8,4]", "[8,5]")));
  for (std::int64_t const layers : {1, 3})
    CHECK(says(refused("num_hidden_layers", layers),
               "has 2 layers; num_hidden_layers of config.json is " + std::to_string(layers)));
}
