// transformers' Conv1D, stored [in, out]: quantize_checkpoint leaves it as it is, and says why.
#include <doctest/doctest.h>

#include <string>

#include "examples/tools/quantize_checkpoint/assignment.hpp"
#include "examples/tools/quantize_checkpoint/stored_model.hpp"
#include "support/checkpoint_program.hpp"
#include "support/error_text.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

/// A block in GPT-2's names: inputs of 32, and an MLP of 128. `as_linear`: its matrices are [out, in].
struct gpt2_block : export_bench {
  explicit gpt2_block(json_document about, bool as_linear = false) {
    config = std::move(about);
    add_layer("h.0.attn.c_attn", 32, 96, as_linear);
    add_layer("h.0.attn.c_proj", 32, 32, as_linear);
    add_layer("h.0.mlp.c_fc", 32, 128, as_linear);
    add_layer("h.0.mlp.c_proj", 128, 32, as_linear);
  }
  void add_layer(std::string const& name, std::int64_t inputs, std::int64_t outputs, bool as_linear) {
    tensors.emplace_back(name + ".weight", as_linear ? make_weight({outputs, inputs}) : make_weight({inputs, outputs}));
    tensors.emplace_back(name + ".bias", make_weight({outputs}));
  }
  /// Why a layer stays; empty: it is quantized.
  std::string kept(std::string const& layer) {
    write_source();
    hf_source const checkpoint{source()};
    return quantize_checkpoint::stored_model{checkpoint}.why_kept(layer + ".weight");
  }
  std::string refusal() {
    write_source();
    hf_source const checkpoint{source()};
    quantize_checkpoint::stored_model stored{checkpoint};
    auto const o = program_on(*this, "modelopt", "INT8_WEIGHT_ONLY_CFG");
    return error_text(error_id::file_content,
                      [&] { quantize_checkpoint::assign(o, checkpoint, stored, {}, [](auto, auto) {}); });
  }
};

constexpr char const* matrices[] = {"h.0.attn.c_attn", "h.0.attn.c_proj", "h.0.mlp.c_fc", "h.0.mlp.c_proj"};

}  // namespace

TEST_CASE("quantize_checkpoint: Conv1D stays in the architectures that are made of it") {
  for (json_document const& about :
       {json_document{{"model_type", "gpt2"}}, json_document{{"model_type", "openai-gpt"}},
        json_document{{"architectures", {"GPT2LMHeadModel"}}},
        json_document{{"model_type", "vision-encoder-decoder"}, {"decoder", {{"model_type", "gpt2"}}}}}) {
    CAPTURE(about.dump());
    gpt2_block b{about, true};  // whatever the biases say
    b.tensors.emplace_back("score.weight", make_weight({2, 32}));
    for (auto const& layer : matrices) CHECK(b.kept(layer).starts_with("a Conv1D, stored [in, out]"));
    CHECK(b.kept("score").empty());
  }
}

TEST_CASE("quantize_checkpoint: Linear layers with Conv1D's names are quantized") {
  for (char const* const type : {"gpt_bigcode", "gpt_neo"}) {
    gpt2_block b{{{"model_type", type}}, true};
    for (auto const& layer : matrices) CHECK(b.kept(layer).empty());
  }
}

TEST_CASE("quantize_checkpoint: a bias as long as its weight's rows tells Conv1D where the config does not") {
  gpt2_block b{{{"model_type", "mine"}}};
  b.add_layer("up", 32, 64, false);
  b.add_layer("down", 32, 64, true);
  b.add_layer("square", 32, 32, false);
  for (auto const& layer : matrices) CHECK(b.kept(layer).starts_with("a Conv1D"));  // h.0.attn.c_proj by its name
  CHECK(b.kept("up").starts_with("a Conv1D"));
  CHECK(b.kept("down").empty());
  CHECK(b.kept("square").empty());
}

TEST_CASE("quantize_checkpoint: a model of Conv1D alone has nothing to quantize, and it is said why") {
  gpt2_block b{{{"model_type", "gpt2"}}};
  CHECK(says(b.refusal(), "has no matrix that could be quantized: tensor 'h.0.attn.c_attn.weight' is a Conv1D"));
  gpt2_block other{{{"model_type", "mine"}}, true};
  CHECK(other.refusal() == "(no error)");
}
