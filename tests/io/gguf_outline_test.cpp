// What a GGUF file is made of, as far as it is known before anything is quantized.
#include "mixbit/io/gguf_outline.hpp"

#include <doctest/doctest.h>

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
