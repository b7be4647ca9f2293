// A small Llama to be written as GGUF, and its file as the gguf package of PyPI reads it.
#pragma once

#include <doctest/doctest.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <stdexcept>
#include <string>

#include "mixbit/io/npz.hpp"
#include "mixbit/model/control.hpp"
#include "support/export_bench.hpp"
#include "support/python.hpp"

namespace mixbit::test {

inline quantizer_attribute_config mxfp4_blocks() {
  auto a = blocks(bit_spec{2, 1}, {{-1, 32}});
  a.block_sizes->type = quantizer_type::dynamic_type;
  a.block_sizes->scale_bits = bit_spec{8, 0};
  return a;
}
inline quantizer_attribute_config nvfp4_blocks() {
  auto a = blocks(bit_spec{2, 1}, {{-1, 16}});
  a.block_sizes->type = quantizer_type::dynamic_type;
  a.block_sizes->scale_bits = bit_spec{4, 3};
  return a;
}

/// One layer of a Llama of width 64 with 4 heads, of which keys have 2.
struct llama : export_bench {
  explicit llama(std::int64_t head = 16, std::int64_t inner = 128) {
    config = {{"architectures", {"LlamaForCausalLM"}}, {"hidden_size", 64},        {"intermediate_size", inner},
              {"num_attention_heads", 4},              {"num_key_value_heads", 2}, {"num_hidden_layers", 1},
              {"max_position_embeddings", 32},         {"rms_norm_eps", 1e-5},     {"vocab_size", 10}};
    if (head != 16) config["head_dim"] = head;
    tensors.emplace_back("model.embed_tokens.weight", make_weight({10, 64}, 9));
    tensors.emplace_back("model.norm.weight", make_weight({64}, 8));
    int seed = 1;
    auto const put = [&](char const* name, std::int64_t rows, std::int64_t columns) {
      add(std::string{"model.layers.0."} + name, make_weight({rows, columns}, seed++));
    };
    put("self_attn.q_proj", 4 * head, 64);
    put("self_attn.k_proj", 2 * head, 64);
    put("self_attn.v_proj", 2 * head, 64);
    put("self_attn.o_proj", 64, 4 * head);
    put("mlp.gate_proj", inner, 64);
    put("mlp.up_proj", inner, 64);
    put("mlp.down_proj", 64, inner);
    add("lm_head", make_weight({10, 64}, 20));
  }
  plain_tensor const& source_tensor(std::string const& name) const {
    for (auto const& [n, t] : tensors)
      if (n == name) return t;
    throw std::runtime_error{name};
  }
  /// Of the host, quantized: fold_weight puts Q(w) in the weight's place.
  std::map<std::string, plain_tensor> folded() {
    fold_weight(*m);
    std::map<std::string, plain_tensor> all;
    for (auto const& module : m->modules()) {
      plain_tensor t{module.weight};
      std::memcpy(t.values.data(), module.weight.data, t.values.size() * sizeof(float));
      all.emplace(module.name, t);
    }
    return all;
  }
  std::filesystem::path file() const { return folder / "out.gguf"; }
};

/// Rows [heads, 2, half] become [heads, half, 2], as transformers' and llama.cpp's rotary embeddings differ.
inline plain_tensor rotated(plain_tensor const& w, std::int64_t heads) {
  plain_tensor out{w.shape};
  std::int64_t const columns = w.shape.shape[1], half = w.shape.shape[0] / heads / 2;
  std::int64_t row = 0;
  for (std::int64_t h = 0; h < heads; ++h)
    for (std::int64_t i = 0; i < half; ++i)
      for (std::int64_t part = 0; part < 2; ++part, ++row)
        for (std::int64_t c = 0; c < columns; ++c)
          out.values[row * columns + c] = w.values[((h * 2 + part) * half + i) * columns + c];
  return out;
}

/// All tensors of a GGUF file as float32, dequantized by the gguf package, and their types under "NAME/type".
inline npz_file dequantized(std::filesystem::path const& file, std::filesystem::path const& out) {
  CHECK(run_python(R"(
import sys, gguf, numpy as np
arrays = {}
for t in gguf.GGUFReader(sys.argv[1]).tensors:
    arrays[t.name] = gguf.dequantize(t.data, t.tensor_type).reshape(tuple(reversed(t.shape.tolist())))
    arrays[t.name + "/type"] = np.int32(int(t.tensor_type))
np.savez(sys.argv[2], **arrays)
)", {file, out}) == "");
  return npz_file::open(out);
}

/// Equal but for the sign of zeros.
inline bool same_values(npz_file const& file, std::string const& name, plain_tensor const& expected) {
  auto const array = file.read(name);
  auto const t = array.tensor();
  if (t.type != dtype::f32 || !t.same_shape(expected.shape)) return false;
  for (std::size_t i = 0; i < expected.values.size(); ++i)
    if (!(t.as<float>()[i] == expected.values[i])) return false;
  return true;
}

inline int type_in(npz_file const& file, std::string const& name) {
  return *file.read(name + "/type").tensor().as<std::int32_t>();
}

inline void configure_mixed(quantize_config& c) {
  turn_on(c, "*q_proj.weight_quantizer", blocks(8, {{-1, 32}}));
  turn_on(c, "*k_proj.weight_quantizer", blocks(4, {{-1, 32}}));
  turn_on(c, "*v_proj.weight_quantizer", mxfp4_blocks());
  turn_on(c, "*gate_proj.weight_quantizer", blocks(8, {{-1, 32}}));
  turn_on(c, "*up_proj.weight_quantizer", blocks(4, {{-1, 32}}));
  turn_on(c, "*down_proj.weight_quantizer", mxfp4_blocks());
}

}  // namespace mixbit::test
