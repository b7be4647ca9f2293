// What an export writes: codes, scales, and the JSON beside them. What it refuses: hf_checkpoint_refusal_test.cpp.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <set>

#include "support/export_bench.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

int signed_nibble(unsigned bits) { return bits >= 8 ? static_cast<int>(bits) - 16 : static_cast<int>(bits); }

/// Unpacks the W4A16 layout by its description and checks every code and scale against the weight.
void check_int4(safetensors_file const& file, std::string const& name, plain_tensor const& w, std::int64_t block) {
  std::int64_t const rows = w.shape.shape[0], columns = w.shape.shape[1], per_row = (columns + block - 1) / block;
  auto const codes = file.at(name + ".weight"), scales = file.at(name + ".weight_scale");
  REQUIRE(codes.same_shape(dense_geometry(dtype::u8, {(rows + 1) / 2, columns})));
  REQUIRE(codes.type == dtype::u8);
  REQUIRE(scales.same_shape(dense_geometry(dtype::f32, {rows, per_row})));
  int wrong_codes = 0, wrong_scales = 0, used[16] = {};
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t c = 0; c < columns; ++c) {
      float amax = 0;
      for (std::int64_t k = c / block * block; k < std::min(columns, (c / block + 1) * block); ++k)
        amax = std::max(amax, std::abs(w.values[r * columns + k]));
      float const scale = scales.as<float>()[r * per_row + c / block];
      wrong_scales += scale != amax / 7.0f;
      unsigned const byte = codes.as<std::uint8_t>()[r / 2 * columns + c];
      int const code = signed_nibble(r % 2 == 0 ? byte & 15u : byte >> 4);
      wrong_codes += code != static_cast<int>(std::nearbyint(w.values[r * columns + c] / scale));
      ++used[code + 8];
      if (r + 1 == rows && rows % 2 == 1) CHECK((byte >> 4) == 0);  // no row there
    }
  CHECK(wrong_scales == 0);
  CHECK(wrong_codes == 0);
  CHECK(std::count(std::begin(used), std::end(used), 0) == 1);  // every code but -8, which amax/7 cannot reach
}

}  // namespace

TEST_CASE("INT4: pairs of rows, low nibble first, a scale a block") {
  for (std::int64_t const rows : {8, 5, 1}) {
    export_bench b;
    auto const w = make_weight({rows, 96});
    b.add("mlp.up_proj", w);
    b.quantize([](auto& c) { turn_on(c, "*weight_quantizer", blocks(4, {{-1, 32}})); });
    auto const notes = b.run();
    check_int4(b.file(), "mlp.up_proj", w, 32);
    CHECK(b.file().names().size() == 2);
    CHECK(mentions(notes, "vLLM refuses W4A16_AWQ"));
    CHECK(mentions(notes, "even numbers of rows") == (rows % 2 == 1));
    auto const q = b.json("hf_quant_config.json")["quantization"];
    CHECK(q.dump() == R"({"quant_algo":"W4A16_AWQ","kv_cache_quant_algo":null,"group_size":32,"has_zero_point":false,)"
                      R"("pre_quant_scale":false,"exclude_modules":[]})");
  }
}

TEST_CASE("INT4: ragged blocks keep a scale of their own, and loaders' limits are said") {
  export_bench b;
  auto const w = make_weight({6, 80});
  b.add("proj", w);
  b.quantize([](auto& c) { turn_on(c, "proj.weight_quantizer", blocks(4, {{-1, 32}})); });
  CHECK(mentions(b.run(), "proj: blocks of 32 do not divide 80 inputs"));
  check_int4(b.file(), "proj", w, 32);
}

TEST_CASE("weights come from the host, in PyTorch's order and the source's type; the rest passes through") {
  export_bench b;
  auto const w = make_weight({3, 4}), norm = make_weight({4}, 2);
  b.tensors.emplace_back("a.weight", w);
  b.tensors.emplace_back("b.weight", w);
  b.tensors.emplace_back("norm.weight", norm);
  b.tensors.emplace_back("a.bias", make_weight({3}, 3));
  plain_tensor trained{4, 3};  // [in, out]
  for (int o = 0; o < 3; ++o)
    for (int i = 0; i < 4; ++i) trained.values[i * 3 + o] = w.values[o * 4 + i] * 0.5f + 1.0f;
  b.host.add("a", trained, "nn.Linear", layouts::linear_in_out);
  b.host.add("b", trained, "nn.Linear", layouts::linear_in_out);
  b.quantize([](auto& c) { turn_on(c, "b.weight_quantizer", per_axis(8, 0)); });
  b.run();
  auto const file = b.file();
  auto const names = file.names();
  CHECK(std::set<std::string>(names.begin(), names.end()) ==
        std::set<std::string>{"a.weight", "a.bias", "norm.weight", "b.weight", "b.weight_scale"});
  CHECK(file.read_as_float("norm.weight") == norm.values);
  auto const a = file.read_as_float("a.weight"), scale = file.read_as_float("b.weight_scale");
  auto const* const codes = file.at("b.weight").as<std::int8_t>();
  for (int o = 0; o < 3; ++o) {
    float amax = 0;
    for (int i = 0; i < 4; ++i) amax = std::max(amax, std::abs(trained.values[i * 3 + o]));
    CHECK(scale[o] == amax / 127.0f);
    for (int i = 0; i < 4; ++i) {
      CHECK(a[o * 4 + i] == trained.values[i * 3 + o]);
      CHECK(codes[o * 4 + i] == static_cast<int>(std::nearbyint(trained.values[i * 3 + o] / scale[o])));
    }
  }
}

TEST_CASE("an unquantized weight goes back to the source's narrower type") {
  export_bench b;
  auto const w = make_weight({2, 3});
  b.host.add("a", w);
  b.host.add("q", w);
  std::filesystem::create_directories(b.source());
  std::vector<bfloat16> narrow;
  for (float const x : w.values) narrow.push_back(from_float<bfloat16>(x));
  geometry const g = dense_geometry(dtype::bf16, {2, 3});
  std::vector<named_tensor> const tensors{{"a.weight", {g, narrow.data()}}, {"q.weight", {g, narrow.data()}}};
  write_safetensors(b.source() / "model.safetensors", tensors);
  write_json_file(b.source() / "config.json", json_document::object());
  b.m = std::make_unique<mixbit::model<cpu_backend>>(b.host);
  auto config = nothing_on();
  turn_on(config, "q.weight_quantizer", per_axis(8, 0));
  quantize(*b.m, config);
  b.run();
  auto const file = b.file();
  REQUIRE(file.at("a.weight").type == dtype::bf16);
  CHECK(std::memcmp(file.at("a.weight").data, narrow.data(), narrow.size() * sizeof(bfloat16)) == 0);
  CHECK(listing(b.out()) == std::set<std::string>{"config.json", "hf_quant_config.json", "model.safetensors"});
}

TEST_CASE("INT8 weights and inputs: W8A8_SQ_PER_CHANNEL without pre_quant_scale, and it is said") {
  export_bench b;
  b.add("fc", make_weight({3, 8}));
  b.quantize(
      [](auto& c) {
        turn_on(c, "*weight_quantizer", per_axis(8, 0));
        turn_on(c, "*input_quantizer", whole(8));
      },
      [&] { b.host.show("fc", 12.7f); });
  auto const notes = b.run();
  CHECK(mentions(notes, "vLLM refuses W8A8_SQ_PER_CHANNEL"));
  CHECK(mentions(notes, "without pre_quant_scale"));
  CHECK(b.file().at("fc.input_scale").rank == 0);
  CHECK(b.file().read_as_float("fc.input_scale")[0] == 12.7f / 127.0f);
  CHECK(b.json("config.json")["quantization_config"].dump() ==
        R"({"ignore":[],"quant_algo":"W8A8_SQ_PER_CHANNEL","producer":{"name":"mixbit","version":"0.1.0"},)"
        R"("quant_method":"modelopt"})");
}

TEST_CASE("convolutions keep their axes") {
  export_bench b;
  auto const w = make_weight({4, 3, 3, 3});
  b.add("conv", w, "nn.Conv2d", layouts::conv);
  b.quantize([](auto& c) { turn_on(c, "conv.weight_quantizer", per_axis(8, 0)); });
  CHECK(mentions(b.run(), "conv: not a linear layer"));
  CHECK(b.file().at("conv.weight").same_shape(w.shape));
  CHECK(b.file().at("conv.weight_scale").same_shape(dense_geometry(dtype::f32, {4})));
}

TEST_CASE("flattened convolutions keep the source's shape, quantized or not") {
  export_bench b;
  auto const w = make_weight({4, 8, 3, 3});
  for (char const* name : {"rows", "int4", "plain"}) b.add(name, w, "nn.Conv2d", layouts::conv.flattened());
  auto const configure = [](quantize_config& c) {
    turn_on(c, "rows.weight_quantizer", per_axis(8, 0));
    turn_on(c, "int4.weight_quantizer", blocks(4, {{-1, 24}}));
  };
  b.quantize(configure);
  auto config = nothing_on();
  configure(config);
  CHECK_NOTHROW(require_hf_forms(*b.m, config));
  b.run();
  auto const file = b.file();
  CHECK(file.at("plain.weight").same_shape(w.shape));
  CHECK(file.read_as_float("plain.weight") == w.values);
  CHECK(file.at("rows.weight").same_shape(w.shape));
  CHECK(file.at("rows.weight_scale").same_shape(dense_geometry(dtype::f32, {4})));
  CHECK(file.at("int4.weight").same_shape(dense_geometry(dtype::u8, {2, 8, 3, 3})));
  CHECK(file.at("int4.weight_scale").same_shape(dense_geometry(dtype::f32, {4, 3})));
  auto const* const codes = file.at("rows.weight").as<std::int8_t>();
  float const scale = file.read_as_float("rows.weight_scale")[3];
  CHECK(codes[287] == static_cast<int>(std::nearbyint(w.values[287] / scale)));
}

TEST_CASE("2-D blocks: a regular scale by default, ModelOpt's 0-d on request; fused single blocks share") {
  auto const wq = make_weight({4, 16}, 1), wk = make_weight({2, 16}, 9);
  auto const scale_of = [](plain_tensor const& w) {
    auto const& v = w.values;
    return std::max(*std::max_element(v.begin(), v.end()), -*std::min_element(v.begin(), v.end())) / 448.0f;
  };
  for (bool const share : {true, false}) {
    export_bench b;
    b.add("l.q_proj", wq);
    b.add("l.k_proj", wk);
    b.add("l.o_proj", make_weight({130, 4}, 3));
    b.quantize([](auto& c) { turn_on(c, "*weight_quantizer", blocks({4, 3}, {{-1, 128}, {-2, 128}})); });
    hf_export_options options;
    options.share_fused_blocks = share;
    auto const notes = b.run(options);
    auto const file = b.file();
    CHECK(file.at("l.q_proj.weight_scale").same_shape(dense_geometry(dtype::f32, {1, 1, 1, 1})));
    CHECK(file.at("l.o_proj.weight_scale").same_shape(dense_geometry(dtype::f32, {2, 1, 1, 1})));
    float const q = file.read_as_float("l.q_proj.weight_scale")[0], k = file.read_as_float("l.k_proj.weight_scale")[0];
    CHECK((q == k) == share);
    CHECK(std::max(q, k) == std::max(scale_of(wq), scale_of(wk)));
    CHECK(mentions(notes, "takes the scale of the layers") == share);
    CHECK(mentions(notes, "needs share_fused_blocks") == !share);
    options.scalar_single_block = true;
    b.run(options);
    CHECK(b.file().at("l.k_proj.weight_scale").rank == 0);
    CHECK(b.file().at("l.o_proj.weight_scale").rank == 4);
  }
}

TEST_CASE("mixed precision: every layer's fields, a config group a format, notes before writing") {
  export_bench b;
  for (char const* name : {"l.q_proj", "l.k_proj", "l.v_proj", "head"}) b.add(name, make_weight({4, 64}));
  b.quantize([](auto& c) {
    turn_on(c, "l.*.weight_quantizer", blocks(4, {{-1, 32}}));
    turn_on(c, "l.k_proj.weight_quantizer", per_axis(8, 0));
    turn_on(c, "l.v_proj.weight_quantizer", blocks(4, {{-1, 16}}));
  });
  hf_export plan{*b.m, b.source()};
  CHECK(mentions(plan.notes(), "l.q_proj is W4A16_AWQ, l.k_proj W8A16: vLLM fuses them"));
  CHECK(mentions(plan.notes(), "vLLM refuses W8A16 in MIXED_PRECISION"));
  CHECK(plan.layers().size() == 3);
  CHECK_FALSE(std::filesystem::exists(b.out()));
  b.run();
  auto const config = b.json("config.json")["quantization_config"];
  CHECK(config["ignore"].empty());
  CHECK(config["quant_algo"] == "MIXED_PRECISION");
  CHECK(config["config_groups"].dump() ==
        R"({"group_0":{"weights":{"dynamic":false,"num_bits":4,"type":"int","group_size":32},"targets":["l.q_proj"]},)"
        R"("group_1":{"weights":{"dynamic":false,"num_bits":8,"type":"int"},"targets":["l.k_proj"]},)"
        R"("group_2":{"weights":{"dynamic":false,"num_bits":4,"type":"int","group_size":16},"targets":["l.v_proj"]}})");
  CHECK(b.json("hf_quant_config.json")["quantization"]["quantized_layers"]["l.q_proj"].dump() ==
        R"({"quant_algo":"W4A16_AWQ","group_size":32,"has_zero_point":false,"pre_quant_scale":false})");
}

TEST_CASE("modules that stay as they are: the shortest patterns that match no quantized layer") {
  using names = std::vector<std::string>;
  CHECK(exclude_patterns({"lm_head", "model.embed"}, {"model.layers.0.q"}) == names{"lm_head", "model.embed"});
  CHECK(exclude_patterns({"vision.a.b", "vision.c"}, {"model.q"}) == names{"vision*"});
  CHECK(exclude_patterns({"model.layers.1.q", "model.layers.1.k"}, {"model.layers.0.q"}) == names{"model.layers.1*"});
  CHECK(exclude_patterns({"model.layers.1.q"}, {"model.layers.10.q"}) == names{"model.layers.1.*"});
  CHECK(exclude_patterns({"model.layers.1.q"}, {"model.layers.1.k"}) == names{"model.layers.1.q"});
  CHECK(exclude_patterns({}, {"a"}).empty());
}

TEST_CASE("tables that the host does not walk are excluded, norms are not mentioned") {
  export_bench b;
  b.tensors.emplace_back("embed.weight", make_weight({5, 4}));
  b.tensors.emplace_back("model.norm.weight", make_weight({4}));
  b.add("model.fc", make_weight({3, 4}));
  b.quantize([](auto& c) { turn_on(c, "*weight_quantizer", per_axis(8, 0)); });
  b.run();
  CHECK(b.json("hf_quant_config.json")["quantization"]["exclude_modules"].dump() == R"(["embed"])");
  CHECK(b.json("config.json")["quantization_config"]["ignore"].dump() == R"(["embed"])");
}

TEST_CASE("a tied output layer: left out with the source, or untied when it is quantized") {
  for (bool const quantized : {false, true}) {
    export_bench b;
    b.config["tie_word_embeddings"] = true;
    b.tensors.emplace_back("embed_tokens.weight", make_weight({6, 4}));
    b.add("fc", make_weight({4, 4}));
    b.host.add("lm_head", make_weight({6, 4}));
    b.quantize([&](auto& c) { turn_on(c, quantized ? "*weight_quantizer" : "fc.weight_quantizer", per_axis(8, 0)); });
    b.run();
    CHECK(b.file().contains("lm_head.weight") == quantized);
    CHECK(b.file().at("embed_tokens.weight").type == dtype::f32);
    CHECK(b.json("config.json")["tie_word_embeddings"] == !quantized);
  }
}

TEST_CASE("an output layer of a config that does not say tie_word_embeddings: said to be untied once it is quantized") {
  for (bool const quantized : {false, true}) {
    export_bench b;
    b.add("fc", make_weight({4, 4}));
    b.add("lm_head", make_weight({6, 4}));
    b.quantize([&](auto& c) { turn_on(c, quantized ? "*weight_quantizer" : "fc.weight_quantizer", per_axis(8, 0)); });
    CHECK(mentions(b.run(), "lm_head: is quantized, and config.json does not say tie_word_embeddings") == quantized);
    CHECK(b.json("config.json").contains("tie_word_embeddings") == quantized);
    if (quantized) CHECK(b.json("config.json")["tie_word_embeddings"] == false);
    b.tensors.pop_back();
    b.tensors.emplace_back("embed.weight", make_weight({6, 4}));
    b.write_source();
    try {
      b.run();
      FAIL("was written");
    } catch (error const& e) {
      CHECK(std::string{e.what()}.find("config.json does not say tie_word_embeddings") != std::string::npos);
    }
  }
}

TEST_CASE("a tied output layer that was trained is written, whether or not the embedding is walked and trained too") {
  auto const table = make_weight({6, 4}), trained = make_weight({6, 4}, 2);
  for (bool const in_source : {false, true})
    for (bool const walked : {false, true})
      for (bool const both : {false, true}) {
        if (both && !walked) continue;
        export_bench b;
        b.config["tie_word_embeddings"] = true;
        b.tensors.emplace_back("embed.weight", table);
        if (in_source) b.tensors.emplace_back("lm_head.weight", table);
        if (walked) b.host.add("embed", both ? trained : table, "nn.Embedding", layouts::lookup);
        b.add("fc", make_weight({4, 4}));
        b.host.add("lm_head", trained);
        b.quantize([](auto& c) { turn_on(c, "fc.weight_quantizer", per_axis(8, 0)); });
        CHECK(mentions(b.run(), "lm_head: was tied") == !both);
        CHECK(b.json("config.json")["tie_word_embeddings"] == both);
        CHECK(b.file().read_as_float("embed.weight") == (both ? trained.values : table.values));
        REQUIRE(b.file().contains("lm_head.weight") == (in_source || !both));
        if (!both) CHECK(b.file().read_as_float("lm_head.weight") == trained.values);
      }
}

TEST_CASE("an output layer in the embedding's memory is tied to it under any name") {
  for (bool const table_quantized : {false, true}) {
    auto table = make_weight({6, 4});
    struct {
      plain_tensor& table;
      quantizer_slots<cpu_backend> rows, out;
      void walk(module_visitor<cpu_backend> const& visit) {
        visit(embedding("wte", rows, table));
        visit(linear("output", out, table));
      }
    } host{table, {}, {}};
    export_bench b;
    b.config["tie_word_embeddings"] = true;
    b.tensors.emplace_back("other.weight", make_weight({6, 4}, 5));
    b.tensors.emplace_back("wte.weight", make_weight({6, 4}, 3));
    b.write_source();
    b.m = std::make_unique<mixbit::model<cpu_backend>>(host);
    if (table_quantized) {
      auto config = nothing_on();
      turn_on(config, "wte.weight_quantizer", per_axis(8, 0));
      quantize(*b.m, config);
    }
    b.run();
    CHECK(b.json("config.json")["tie_word_embeddings"] == !table_quantized);
    REQUIRE(b.file().contains("output.weight") == table_quantized);
    CHECK(b.file().read_as_float(table_quantized ? "output.weight" : "wte.weight") == table.values);
  }
}

TEST_CASE("generation_config.json: the source's own byte for byte, else what the config says") {
  export_bench b;
  b.config["pad_token_id"] = 3;
  b.add("fc", make_weight({2, 4}));
  b.quantize([](auto& c) { turn_on(c, "*weight_quantizer", per_axis(8, 0)); });
  b.run();
  CHECK(b.json("generation_config.json").dump() == R"({"_from_model_config":true,"pad_token_id":3,"use_cache":true})");
  write_text(b.source() / "generation_config.json", "{ \"top_k\" :5}");
  b.run();
  CHECK(read_text(b.out() / "generation_config.json") == "{ \"top_k\" :5}");
}

TEST_CASE("a model in which nothing is quantized is written as it is, and says so in both files") {
  export_bench b;
  auto const w = make_weight({2, 4});
  b.add("fc", w);
  b.write_source();
  b.m = std::make_unique<mixbit::model<cpu_backend>>(b.host);
  CHECK(mentions(b.run(), "no module is quantized"));
  CHECK(b.file().read_as_float("fc.weight") == w.values);
  CHECK(b.json("config.json") == b.config);
  CHECK(b.json("hf_quant_config.json")["quantization"]["quant_algo"].is_null());
}
