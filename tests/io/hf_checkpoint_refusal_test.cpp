// What an export refuses, and that the output folder is then what it was.
#include <doctest/doctest.h>

#include <set>
#include <string>

#include "mixbit/model/compress.hpp"
#include "mixbit/model/scale_training.hpp"
#include "support/error_text.hpp"
#include "support/export_bench.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

/// What export says, and whether the output folder is what it was.
std::string refusal(export_bench& b, error_id id) {
  std::filesystem::create_directories(b.out());
  write_text(b.out() / "config.json", "earlier");
  auto const text = error_text(id, [&] { b.run(); });
  CHECK(listing(b.out()) == std::set<std::string>{"config.json"});
  CHECK(read_text(b.out() / "config.json") == "earlier");
  return text;
}

void one_int8_layer(export_bench& b) {
  b.add("mlp.fc", make_weight({4, 32}));
  b.quantize([](auto& c) { turn_on(c, "*weight_quantizer", per_axis(8, 0)); });
}

}  // namespace

TEST_CASE("a compressed weight is refused by name, since its codes are not those of a checkpoint yet") {
  export_bench b;
  one_int8_layer(b);
  compress(*b.m);
  CHECK(says(refusal(b, error_id::state_folded), "mlp.fc", "compressed", "export before compressing"));
}

TEST_CASE("quantizers without a Hugging Face form are refused by name") {
  struct {
    char const* quantizer;
    quantizer_attribute_config attributes;
    char const* said;
  } const cases[] = {{"weight", whole(8), "weight int8 per tensor, static with input not quantized"},
                     {"weight", whole({4, 3}), "weight e4m3 per tensor, static with input not quantized"},
                     {"weight", per_axis(4, 0), "weight int4 axis 0, static"},
                     {"weight", per_axis(8, 1), "weight int8 axis 1, static"},
                     {"weight", per_axis(6, 0), "weight int6 axis 0, static"},
                     {"weight", blocks(4, {{-2, 2}}), "weight int4 blocks -2:2, static"},
                     {"weight", blocks({4, 3}, {{-1, 32}}), "weight e4m3 blocks -1:32, static"},
                     {"input", whole(8), "weight not quantized with input int8 per tensor, static"},
                     {"output", whole(8), "mlp.fc.output_quantizer: no Hugging Face form exists"}};
  for (auto const& c : cases) {
    export_bench b;
    b.add("mlp.fc", make_weight({4, 32}));
    b.quantize([&](auto& config) { turn_on(config, std::string{"*"} + c.quantizer + "_quantizer", c.attributes); },
               [&] { b.host.show("mlp.fc", 1.0f); });
    auto const text = refusal(b, error_id::format_value);
    CHECK_MESSAGE(says(text, "mlp.fc", "no Hugging Face form exists", c.said), text);
  }
}

TEST_CASE("INT4 weights have a form with unquantized inputs only") {
  export_bench b;
  b.add("fc", make_weight({4, 32}));
  b.quantize(
      [](auto& c) {
        turn_on(c, "*weight_quantizer", blocks(4, {{-1, 32}}));
        turn_on(c, "*input_quantizer", whole({4, 3}));
      },
      [&] { b.host.show("fc", 1.0f); });
  CHECK(says(refusal(b, error_id::format_value), "weight int4 blocks -1:32, static with input e4m3 per tensor"));
}

TEST_CASE("INT4 of a stack of matrices has no form: two matrices would share a byte") {
  export_bench b;
  b.add("experts", make_weight({4, 6, 32}));
  b.quantize([](auto& c) { turn_on(c, "*weight_quantizer", blocks(4, {{-1, 32}})); });
  CHECK(says(refusal(b, error_id::format_value), "experts", "W4A16_AWQ", "[4,6,32]", "share a byte"));
}

TEST_CASE("2-D blocks of other axes than the last two are refused") {
  export_bench b;
  b.add("conv", make_weight({4, 4, 3, 3}), "nn.Conv2d", layouts::conv);
  b.quantize([](auto& c) { turn_on(c, "conv.weight_quantizer", blocks({4, 3}, {{-1, 3}, {-3, 2}})); });
  CHECK(says(refusal(b, error_id::format_value), "conv: no Hugging Face form exists", "blocks -1:3,-3:2"));
}

TEST_CASE("a sequence of quantizers without a form is refused") {
  export_bench b;
  b.add("fc", make_weight({4, 32}));
  b.quantize([](auto& c) {
    turn_on(c, "*weight_quantizer", blocks(4, {{-1, 32}}));
    c.entries.back().cfg->push_back(whole({4, 3}));
  });
  CHECK(says(refusal(b, error_id::format_value), "fc: no Hugging Face form",
             "int4 blocks -1:32, static, then e4m3 per tensor, static with input not quantized"));
}

TEST_CASE("folded and uncalibrated models are refused") {
  export_bench folded, fresh;
  one_int8_layer(folded);
  fold_weight(*folded.m);
  CHECK(says(refusal(folded, error_id::state_folded), "mlp.fc", "fold_weight"));
  one_int8_layer(fresh);
  set_quantizer_attributes(*fresh.m, "*weight_quantizer", per_axis(8, 0));
  CHECK(says(refusal(fresh, error_id::state_not_calibrated), "mlp.fc.weight_quantizer", "saw no data"));
}

TEST_CASE("a layer whose scales are still being learned is refused") {
  export_bench b;
  one_int8_layer(b);
  {
    scale_training<cpu_backend> scales{*b.m, learned_scales::both};
    CHECK(says(refusal(b, error_id::state_nested), "mlp.fc.weight_quantizer", "scale_training", "export"));
    scales.finish();
  }
  b.run();
  CHECK(b.file().contains("mlp.fc.weight_scale"));
}

TEST_CASE("a source that does not fit is refused") {
  export_bench missing, reshaped, quantized, sharded, clash, absent, unquantized;
  for (export_bench* b : {&missing, &reshaped, &quantized, &sharded, &clash, &absent}) one_int8_layer(*b);
  missing.tensors = {{"other.weight", make_weight({4, 32})}};
  missing.write_source();
  CHECK(says(refusal(missing, error_id::file_content), "'mlp.fc.weight'", "the module 'mlp.fc'", "model.safetensors"));
  reshaped.tensors = {{"mlp.fc.weight", make_weight({32, 4})}};
  reshaped.write_source();
  CHECK(says(refusal(reshaped, error_id::file_content), "'mlp.fc.weight' is [32,4]", "'mlp.fc' is [4,32]"));
  quantized.config["quantization_config"] = json_document::object();
  quantized.write_source();
  CHECK(says(refusal(quantized, error_id::file_content), "config.json", "quantization_config"));
  clash.tensors.emplace_back("mlp.fc.weight_scale", make_weight({4}));
  clash.write_source();
  CHECK(says(refusal(clash, error_id::file_content), "'mlp.fc.weight_scale' already"));
  std::filesystem::rename(sharded.source() / "model.safetensors", sharded.source() / "model-1-of-1.safetensors");
  write_text(sharded.source() / "model.safetensors.index.json", "{}");
  CHECK(says(refusal(sharded, error_id::file_content), "model.safetensors.index.json", "weight_map"));
  std::filesystem::remove_all(absent.source());
  CHECK(says(refusal(absent, error_id::file_open), "config.json"));
  unquantized.add("fc", make_weight({2, 4}));
  unquantized.host.add("elsewhere", make_weight({2, 4}));
  unquantized.quantize([](auto& c) { turn_on(c, "fc.weight_quantizer", per_axis(8, 0)); });
  CHECK(says(refusal(unquantized, error_id::file_content), "'elsewhere'"));
  unquantized.tensors.emplace_back("elsewhere.weight", make_weight({4, 2}));  // as many elements
  unquantized.write_source();
  CHECK(says(refusal(unquantized, error_id::file_content), "'elsewhere.weight' is [4,2]", "'elsewhere' is [2,4]"));
}

TEST_CASE("of a tied source only the output layer may be missing, whatever else has its shape") {
  struct {
    char const* name;
    plain_tensor weight;
    bool quantized;
  } const cases[] = {{"model.fc", make_weight({4, 32}), true},      // the shape of mlp.fc
                     {"model.fc", make_weight({4, 32}), false},
                     {"model.fc", make_weight({6, 32}), true},      // the shape of the table
                     {"model.fc", make_weight({6, 32}), false},
                     {"model.fc", make_weight({3, 5}), false},
                     {"lm_head", make_weight({4, 32}), true},       // a tensor has this shape, but is no table
                     {"lm_head", make_weight({4, 32}), false}};
  for (auto const& c : cases) {
    export_bench b;
    b.config["tie_word_embeddings"] = true;
    b.tensors.emplace_back("embed_tokens.weight", make_weight({6, 32}));
    b.add("mlp.fc", make_weight({4, 32}));
    b.host.add(c.name, c.weight);
    auto const pattern = std::string{c.quantized ? c.name : "mlp.fc"} + ".weight_quantizer";
    b.quantize([&](auto& config) { turn_on(config, pattern, per_axis(8, 0)); });
    CHECK(says(refusal(b, error_id::file_content), "has no tensor", "for the module '" + std::string{c.name} + "'"));
  }
}

TEST_CASE("a file that cannot be put in its place leaves all others as they were") {
  export_bench b;
  one_int8_layer(b);
  std::filesystem::create_directories(b.out() / "model.safetensors");  // a folder where the file should go
  write_text(b.out() / "config.json", "earlier");
  CHECK(says(error_text(error_id::file_open, [&] { b.run(); }), "model.safetensors"));
  CHECK(listing(b.out()) == std::set<std::string>{"config.json", "model.safetensors"});
  CHECK(read_text(b.out() / "config.json") == "earlier");
}

TEST_CASE("a folder in the place of a small file is found before any tensor is written") {
  export_bench b;
  one_int8_layer(b);
  for (std::string const name : {"config.json", "generation_config.json", "hf_quant_config.json"}) {
    auto const out = b.folder / ("of_" + name);
    std::filesystem::create_directories(out / name);
    staged_output staged{out};
    CHECK(says(error_text(error_id::file_open, [&] { export_hf_checkpoint(*b.m, b.source(), staged); }),
               "cannot write '" + (out / name).string() + "': Is a directory"));
    for (auto const& file : listing(out)) CHECK(file.find("safetensors") == file.npos);
  }
}

TEST_CASE("an export into a folder of a larger output appears with the rest") {
  export_bench b;
  one_int8_layer(b);
  staged_output out{b.out()};
  export_hf_checkpoint(*b.m, b.source(), out, "checkpoint");
  CHECK_FALSE(std::filesystem::exists(b.out() / "checkpoint"));
  out.commit();
  CHECK(std::filesystem::exists(b.out() / "checkpoint" / "model.safetensors"));
}

TEST_CASE("an export over its own source") {
  export_bench b;
  one_int8_layer(b);
  auto const before = read_text(b.source() / "model.safetensors");
  std::filesystem::create_directory_symlink(b.source(), b.folder / "link");
  for (auto const& out : {b.source(), b.source() / "", b.source() / "sub" / "sub", b.folder.path(), b.folder / "link",
                          b.folder / "none" / ".." / "source"})
    CHECK(says(error_text(error_id::file_open, [&] { export_hf_checkpoint(*b.m, b.source(), out); }),
               "lie in one another", b.source().string()));
  staged_output staged{b.folder.path()};
  CHECK(says(error_text(error_id::file_open, [&] { export_hf_checkpoint(*b.m, b.source(), staged, "source"); }),
             "lie in one another"));
  CHECK(listing(b.source()) == std::set<std::string>{"config.json", "model.safetensors"});
  CHECK(read_text(b.source() / "model.safetensors") == before);
  write_text(b.source() / "config.json", R"({"quantization_config": {}})");
  CHECK(says(refusal(b, error_id::file_content), "quantization_config"));
}
