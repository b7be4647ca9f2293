// A small Llama as GGUF: what its weights dequantize to, here by the layouts' description and again by the gguf package
// of PyPI, is what the model simulates, bit for bit.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include "mixbit/io/gguf_checkpoint.hpp"
#include "mixbit/model/compress.hpp"
#include "support/error_text.hpp"
#include "support/gguf_bench.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

/// Element k of a tensor's blocks, as ggml-common.h lays them out.
float element(gguf_type type, unsigned char const* blocks, std::int64_t k, float tensor_scale) {
  auto const info = gguf_info(type);
  unsigned char const* const block = blocks + k / info.block * info.bytes;
  std::int64_t const in = k % info.block;
  auto const nibble = [](unsigned char const* codes, std::int64_t i, std::int64_t half_block) {
    return static_cast<int>(i < half_block ? codes[i] & 15u : codes[i - half_block] >> 4);
  };
  half h;
  std::memcpy(&h, block, sizeof h);
  switch (type) {
    case gguf_type::q8_0: return static_cast<float>(static_cast<signed char>(block[2 + in])) * to_float(h);
    case gguf_type::q4_0: return static_cast<float>(nibble(block + 2, in, 16) - 8) * to_float(h);
    case gguf_type::mxfp4: return formats::e2m1::value(nibble(block + 1, in, 16)) * std::ldexp(1.0f, block[0] - 127);
    case gguf_type::nvfp4: {
      float const scale = formats::e4m3::value(block[in / 16]) * tensor_scale;
      return formats::e2m1::value(nibble(block + 4 + in / 16 * 8, in % 16, 8)) * scale;
    }
    default: break;
  }
  float value;
  std::memcpy(&value, block, sizeof value);
  return value;
}

/// The values of all tensors of a file, but for scales, which are in the values.
using values_by_name = std::map<std::string, std::vector<float>>;
values_by_name by_description(gguf_export<cpu_backend> const& plan, std::string const& file) {
  values_by_name all;
  auto const padded = [](gguf_tensor const& t) { return (t.bytes() + 31) / 32 * 32; };
  auto at = static_cast<std::int64_t>(file.size());
  for (auto const& t : plan.tensors()) at -= padded(t);
  REQUIRE(at % 32 == 0);
  for (auto const& t : plan.tensors()) {
    auto const* const blocks = reinterpret_cast<unsigned char const*>(file.data()) + at;
    at += padded(t);
    if (t.name.ends_with(".scale")) continue;
    float scale = 1;  // the next tensor
    if (t.type == gguf_type::nvfp4) std::memcpy(&scale, file.data() + at, sizeof scale);
    for (std::int64_t k = 0; k < t.shape.size(); ++k) all[t.name].push_back(element(t.type, blocks, k, scale));
  }
  return all;
}

}  // namespace

TEST_CASE("gguf: what the gguf package dequantizes is what the model simulates, bit for bit") {
  if (skipped_without_python("GGUF files read by the gguf package", {"gguf"})) return;
  llama b;
  b.quantize(configure_mixed);
  CHECK(round_gguf_scales(*b.m) == 4);
  auto const notes = export_gguf(*b.m, b.source(), b.file());
  CHECK(mentions(notes, "no tokenizer"));
  CHECK(mentions(notes, "Q4_0 is held as it was simulated"));
  auto const file = dequantized(b.file(), b.folder / "read.npz");
  auto const weights = b.folded();
  auto const folded = [&](char const* name) { return weights.at(std::string{"model.layers.0."} + name); };
  CHECK(same_values(file, "blk.0.attn_q.weight", rotated(folded("self_attn.q_proj"), 4)));
  CHECK(same_values(file, "blk.0.attn_k.weight", rotated(folded("self_attn.k_proj"), 2)));
  CHECK(same_values(file, "blk.0.attn_v.weight", folded("self_attn.v_proj")));
  CHECK(same_values(file, "blk.0.attn_output.weight", folded("self_attn.o_proj")));
  CHECK(same_values(file, "blk.0.ffn_gate.weight", folded("mlp.gate_proj")));
  CHECK(same_values(file, "blk.0.ffn_up.weight", folded("mlp.up_proj")));
  CHECK(same_values(file, "blk.0.ffn_down.weight", folded("mlp.down_proj")));
  CHECK(same_values(file, "token_embd.weight", b.source_tensor("model.embed_tokens.weight")));
  CHECK(same_values(file, "output_norm.weight", b.source_tensor("model.norm.weight")));
  CHECK(same_values(file, "output.weight", weights.at("lm_head")));
  CHECK_FALSE(folded("mlp.up_proj").values == b.source_tensor("model.layers.0.mlp.up_proj.weight").values);
  std::map<std::string, int> const types{{"attn_q", 8}, {"attn_k", 2},   {"attn_v", 39}, {"attn_output", 0},
                                         {"ffn_gate", 8}, {"ffn_up", 2}, {"ffn_down", 39}};
  for (auto const& t : types) CHECK_MESSAGE(type_in(file, "blk.0." + t.first + ".weight") == t.second, t.first);
}

TEST_CASE("gguf: blocks say by their description what the model simulates") {
  llama b;
  b.quantize(configure_mixed);
  round_gguf_scales(*b.m);
  gguf_export plan{*b.m, b.source()};
  plan.write(b.file());
  CHECK(std::get<std::uint32_t>(plan.metadata().back().value) == 1024);
  auto const tensors = by_description(plan, read_text(b.file()));
  auto const weights = b.folded();
  auto const folded = [&](char const* name) { return weights.at(std::string{"model.layers.0."} + name); };
  CHECK(tensors.size() == 10);
  CHECK(tensors.at("blk.0.attn_q.weight") == rotated(folded("self_attn.q_proj"), 4).values);
  CHECK(tensors.at("blk.0.attn_k.weight") == rotated(folded("self_attn.k_proj"), 2).values);
  CHECK(tensors.at("blk.0.attn_v.weight") == folded("self_attn.v_proj").values);
  CHECK(tensors.at("blk.0.attn_output.weight") == folded("self_attn.o_proj").values);
  CHECK(tensors.at("blk.0.ffn_gate.weight") == folded("mlp.gate_proj").values);
  CHECK(tensors.at("blk.0.ffn_up.weight") == folded("mlp.up_proj").values);
  CHECK(tensors.at("blk.0.ffn_down.weight") == folded("mlp.down_proj").values);
  CHECK(tensors.at("output_norm.weight") == b.source_tensor("model.norm.weight").values);
}

TEST_CASE("gguf: NVFP4's codes, block scales and tensor scale are the simulated ones") {
  llama b;
  b.quantize([](auto& c) { turn_on(c, "*_proj.weight_quantizer", nvfp4_blocks()); });
  gguf_export plan{*b.m, b.source()};
  plan.write(b.file());
  CHECK(std::get<std::uint32_t>(plan.metadata().back().value) == 39);
  auto const tensors = by_description(plan, read_text(b.file()));
  auto const weights = b.folded();
  CHECK(tensors.at("blk.0.ffn_down.weight") == weights.at("model.layers.0.mlp.down_proj").values);
  CHECK(tensors.at("blk.0.attn_q.weight") == rotated(weights.at("model.layers.0.self_attn.q_proj"), 4).values);
  CHECK(tensors.at("blk.0.attn_k.weight") == rotated(weights.at("model.layers.0.self_attn.k_proj"), 2).values);
  if (skipped_without_python("NVFP4 in GGUF read by the gguf package", {"gguf"})) return;
  auto const file = dequantized(b.file(), b.folder / "read.npz");
  CHECK(type_in(file, "blk.0.attn_q.weight") == 40);
  auto const expected = rotated(weights.at("model.layers.0.self_attn.q_proj"), 4);
  auto const array = file.read("blk.0.attn_q.weight"), factor = file.read("blk.0.attn_q.scale");
  int far = 0;  // ggml multiplies code and block scale first, so the last bit may differ
  for (std::size_t k = 0; k < expected.values.size(); ++k) {
    float const read = array.tensor().as<float>()[k] * *factor.tensor().as<float>(), mine = expected.values[k];
    far += !(std::abs(read - mine) <= std::abs(mine) * 0x1p-23f);
  }
  CHECK(far == 0);
}

TEST_CASE("gguf: metadata say Llama's shape, the type where it is one, and what the user adds") {
  llama b;
  b.quantize([](auto& c) { turn_on(c, "*_proj.weight_quantizer", blocks(8, {{-1, 32}})); });
  round_gguf_scales(*b.m);
  gguf_export plan{*b.m, b.source(), {{}, {{"tokenizer.ggml.model", std::string{"none"}}}, {}}};
  CHECK(plan.notes().empty());
  std::map<std::string, gguf_value> m;
  for (auto const& [key, value] : plan.metadata()) m[key] = value;
  CHECK(m.size() == plan.metadata().size());
  CHECK(std::get<std::string>(m.at("general.architecture")) == "llama");
  CHECK(std::get<std::uint32_t>(m.at("general.file_type")) == 7);
  CHECK(std::get<std::uint32_t>(m.at("llama.attention.head_count_kv")) == 2);
  CHECK(std::get<std::uint32_t>(m.at("llama.rope.dimension_count")) == 16);
  CHECK(std::get<float>(m.at("llama.rope.freq_base")) == 10000.0f);
  CHECK(std::get<std::string>(m.at("tokenizer.ggml.model")) == "none");
}

TEST_CASE("gguf: names of another family are the user's; a tensor may be left out; half types stay") {
  llama b;
  b.config["architectures"] = {"Other"};
  b.quantize([](auto& c) { turn_on(c, "*up_proj.weight_quantizer", mxfp4_blocks()); });
  auto const text = error_text(error_id::file_content, [&] { gguf_export{*b.m, b.source()}; });
  CHECK(says(text, "config.json is no LlamaForCausalLM's", "names and metadata"));
  gguf_export_options options;
  options.names = [](std::string const& name) -> std::optional<gguf_place> {
    if (name == "model.norm.weight") return gguf_place{};
    if (name.ends_with("lm_head.weight")) return std::nullopt;
    return gguf_place{name};
  };
  CHECK(says(error_text(error_id::file_content, [&] { gguf_export{*b.m, b.source(), options}; }),
             "tensor 'lm_head.weight' has no name in GGUF"));
  options.names = [](std::string const& name) -> std::optional<gguf_place> {
    return name == "model.norm.weight" ? gguf_place{} : gguf_place{name, name.ends_with("up_proj.weight") ? 3 : 0};
  };
  CHECK(says(error_text(error_id::file_content, [&] { gguf_export{*b.m, b.source(), options}; }),
             "up_proj.weight'", "128 rows are not an even number for each of 3 heads"));
  std::vector<half> norm(64, from_float<half>(0.5f));
  std::vector<bfloat16> table(640, from_float<bfloat16>(0.25f));
  std::vector<named_tensor> sources{{"model.norm.weight", dense_view(norm.data(), {64})},
                                    {"model.embed_tokens.weight", dense_view(table.data(), {10, 64})}};
  for (auto const& [name, t] : b.tensors)
    if (name.find("_proj") != name.npos || name == "lm_head.weight")
      sources.push_back({name, {t.shape, t.values.data()}});
  write_safetensors(b.source() / "model.safetensors", sources);
  options.names = [](std::string const& name) -> std::optional<gguf_place> { return gguf_place{name}; };
  gguf_export const plan{*b.m, b.source(), options};
  for (auto const& t : plan.tensors()) {
    if (t.name == "model.norm.weight") CHECK(t.type == gguf_type::f32);  // a vector
    if (t.name == "model.embed_tokens.weight") CHECK(t.type == gguf_type::bf16);
  }
  CHECK(plan.metadata().front().key == "general.quantization_version");
}

TEST_CASE("gguf: a tied head is left out while it lies in the embedding") {
  for (bool const apart : {false, true}) {
    auto table = make_weight({6, 64}), other = make_weight({6, 64}, 2);
    struct {
      plain_tensor &table, &head;
      quantizer_slots<cpu_backend> rows, out;
      void walk(module_visitor<cpu_backend> const& visit) {
        visit(embedding("model.embed_tokens", rows, table));
        visit(linear("lm_head", out, head));
      }
    } host{table, apart ? other : table, {}, {}};
    llama b;
    b.config["tie_word_embeddings"] = true;
    b.config["vocab_size"] = 6;
    std::erase_if(b.tensors, [](auto const& t) { return t.first == "lm_head.weight"; });
    b.tensors.front().second = table;
    b.write_source();
    b.m = std::make_unique<mixbit::model<cpu_backend>>(host);
    gguf_export const plan{*b.m, b.source()};
    auto const is_head = [](gguf_tensor const& t) { return t.name == "output.weight"; };
    CHECK(std::any_of(plan.tensors().begin(), plan.tensors().end(), is_head) == apart);
    CHECK(mentions(plan.notes(), "lm_head: was tied") == apart);
    CHECK(mentions(plan.notes(), "no module is quantized"));
  }
}

TEST_CASE("gguf: what it cannot hold is refused by name, and nothing is written") {
  auto const refusal = [](error_id id, auto configure, auto change) {
    llama b;
    b.quantize(configure, [&] {
      for (auto const& [name, t] : b.tensors)
        if (name.find("_proj") != name.npos) b.host.show(name.substr(0, name.size() - 7), 1.0f);
    });
    change(b);
    auto const text = error_text(id, [&] { export_gguf(*b.m, b.source(), b.file()); });
    CHECK_FALSE(std::filesystem::exists(b.file()));
    return text;
  };
  auto const same = [](llama&) {};
  auto const with = [](char const* quantizer, quantizer_attribute_config a) {
    return [=](quantize_config& c) { turn_on(c, quantizer, a); };
  };
  error_id const value = error_id::format_value;
  char const* const up = "*up_proj.weight_quantizer";
  CHECK(says(refusal(value, with(up, per_axis(8, 0)), same), "layers.0.mlp.up_proj: no type of GGUF holds weight int8",
             "Q8_0 and Q4_0 hold int8 and int4 in static blocks of 32"));
  CHECK(says(refusal(value, with(up, blocks(4, {{-1, 64}})), same), "up_proj: no type of GGUF holds weight int4"));
  CHECK(says(refusal(value, with(up, whole(bit_spec{4, 3})), same), "up_proj: no type of GGUF holds weight e4m3"));
  CHECK(says(refusal(value, with("*up_proj.input_quantizer", whole(8)), same),
             "up_proj.input_quantizer: GGUF has no place for this quantizer", "disable it"));
  CHECK(says(refusal(error_id::format_amax, with(up, blocks(8, {{-1, 32}})), same),
             "up_proj.weight_quantizer: the scale of block 0 is", "Q8_0 has float16 scales", "round_gguf_scales"));
  CHECK(says(refusal(error_id::state_folded, with(up, mxfp4_blocks()), [](llama& b) { fold_weight(*b.m); }),
             "up_proj"));
  CHECK(says(refusal(error_id::state_folded, with(up, mxfp4_blocks()), [](llama& b) { compress(*b.m); }), "up_proj",
             "its weight is compressed, of which no checkpoint is made"));
  CHECK(says(refusal(value, with(up, mxfp4_blocks()), [](llama& b) {
    auto const recipe = detail::gguf::acting_recipe(b.m->modules()[5]);
    recipe->find(quantizer_role::weight)->set_pre_quant_scale(b.m->device(), std::vector<float>(64, 2.0f));
  }), "up_proj.weight_quantizer: GGUF has no place for a pre_quant_scale"));
  CHECK(says(refusal(error_id::file_content, with(up, mxfp4_blocks()), [](llama& b) {
    b.config.erase("hidden_size");
    write_json_file(b.source() / "config.json", b.config);
  }), "hidden_size is missing"));
  CHECK(says(refusal(error_id::file_content, with(up, mxfp4_blocks()), [](llama& b) {
    b.config["rope_scaling"] = {{"rope_type", "llama3"}};
    write_json_file(b.source() / "config.json", b.config);
  }), "rotary embedding is scaled", "llama3"));
  llama odd;
  odd.add("model.layers.1.mlp.up_proj", make_weight({4, 96}));
  odd.quantize([](auto& c) { turn_on(c, "*layers.1.mlp.up_proj.weight_quantizer", nvfp4_blocks()); });
  CHECK(says(error_text(value, [&] { gguf_export{*odd.m, odd.source()}; }),
             "layers.1.mlp.up_proj: rows of 96 elements", "NVFP4 takes a multiple of 64"));
}

TEST_CASE("gguf: a row's place is where its number comes from") {
  for (std::int64_t const heads : {0, 1, 2, 3})
    for (std::int64_t r = 0; r < 24; ++r)
      CHECK(detail::gguf::permuted_row(detail::gguf::place_of_row(r, 24, heads), 24, heads) == r);
  CHECK(detail::gguf::place_of_row(1, 24, 2) == 2);  // the second of a head's first half
  CHECK(detail::gguf::place_of_row(18, 24, 2) == 13);
}

TEST_CASE("gguf: rounding scales moves an amax by less than half a step of float16, and only those") {
  for (gguf_type const type : {gguf_type::q8_0, gguf_type::q4_0})
    for (float const amax : {0.0f, 1e-9f, 3e-6f, 0.1f, 1.0f, 6.75f, 123.456f, 40000.0f}) {
      float const largest = type == gguf_type::q8_0 ? 127.0f : 7.0f, to = half_scale_amax(type, amax);
      CHECK(is_half(to / largest));
      CHECK(std::abs(to - amax) <= std::max(amax * 0x1p-11f, 0x1p-25f * largest));
      CHECK(half_scale_amax(type, to) == to);
    }
  CHECK(half_scale_amax(gguf_type::q4_0, 1e7f) == 1e7f);
  llama b;
  b.quantize([](auto& c) {
    turn_on(c, "*up_proj.weight_quantizer", blocks(8, {{-1, 32}}));
    turn_on(c, "*q_proj.weight_quantizer", per_axis(8, 0));
  });
  auto const amax_of = [&](std::size_t i) {
    auto* const recipe = detail::gguf::acting_recipe(b.m->modules()[i]);
    return recipe->find(quantizer_role::weight)->members()[0].amax(b.m->device());
  };
  auto const q = amax_of(0), up = amax_of(5);
  CHECK(round_gguf_scales(*b.m) == 1);
  CHECK(amax_of(0) == q);
  CHECK(amax_of(5) != up);
  CHECK(round_gguf_scales(*b.m) == 1);  // again: as it is
  fold_weight(*b.m);
  CHECK(round_gguf_scales(*b.m) == 0);
}
