// The host by itself, without quantizers: transformers' logits, losses and gradients on data/byte-lm, the same bits on
// any number of threads, training, and what is said about checkpoints and configs that do not fit.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "byte_lm/checkpoint.hpp"
#include "byte_lm/config_file.hpp"
#include "byte_lm/training.hpp"
#include "golden_suites/lm_model.hpp"
#include "mixbit/io/safetensors_writer.hpp"
#include "support/error_text.hpp"
#include "support/golden_file.hpp"
#include "support/same_bits.hpp"
#include "support/temporary_folder.hpp"

#ifndef MIXBIT_DATA_DIR
#define MIXBIT_DATA_DIR MIXBIT_GOLDEN_DIR "/../../data"
#endif

namespace byte_lm {
namespace {

using mixbit::error_id;
using mixbit::test::error_text;
using mixbit::test::same_bits;

std::string const trained = MIXBIT_DATA_DIR "/byte-lm";

mixbit::test::golden_file const& lm_file() {
  static mixbit::test::golden_file const file{"lm"};
  return file;
}

/// Step `step` of "score" or "calibration", or all of "validation".
byte_windows windows_of(char const* name, std::size_t step = 0) { return golden::windows_of(lm_file(), name).at(step); }

/// The largest difference, in units of the largest expected element.
double relative_difference(matrix const& actual, std::vector<float> const& expected) {
  REQUIRE(actual.size() == static_cast<index>(expected.size()));
  auto const e = Eigen::Map<Eigen::ArrayXf const>{expected.data(), actual.size()};
  auto const a = Eigen::Map<Eigen::ArrayXf const>{actual.data(), actual.size()};
  return (a - e).abs().maxCoeff() / e.abs().maxCoeff();
}

void want_gradients(language_model& model) {
  model.for_each_parameter([](std::string const&, parameter& p) { p.clear_gradient(); });
}

double forward_and_backward(language_model& model, byte_windows const& batch, matrix& logits) {
  logits = model.logits(batch.inputs());
  model.backward(cross_entropy_gradient(model.executor(), logits, batch.targets()));
  return cross_entropy(model.executor(), logits, batch.targets());
}

TEST_CASE("byte_lm: logits and validation loss are those of transformers") {
  mixbit::thread_pool pool{2};
  auto model = load_model(trained, pool);
  auto const batch = windows_of("score").slice(0, 2);
  auto const* const ids = lm_file().tensor("ids").as<std::int32_t>();
  for (std::int64_t w = 0; w < 2; ++w)
    for (std::int64_t t = 0; t < 128; ++t) REQUIRE(batch.inputs().row(w)[t] == ids[w * 128 + t]);

  CHECK(relative_difference(model.logits(batch.inputs()), lm_file().floats("logits")) < 1e-5);
  double const expected = lm_file().cases().at("validation_loss").get<double>();
  CHECK(std::abs(expected - 1.35652) < 1e-5);
  CHECK(std::abs(evaluate(model, windows_of("validation")) - expected) < 1e-5);
  // batches that do not divide the windows weigh each window alike
  CHECK(std::abs(evaluate(model, windows_of("validation"), 24) - expected) < 1e-5);
}

TEST_CASE("byte_lm: loss and gradients of a batch are those of torch") {
  mixbit::thread_pool pool{2};
  auto model = load_model(trained, pool);
  want_gradients(model);
  matrix logits;
  double const loss = forward_and_backward(model, windows_of("score"), logits);
  CHECK(std::abs(loss - lm_file().cases().at("score_batch0_loss").get<double>()) < 1e-5);

  auto const check = [&](char const* name, parameter const& p) {
    CAPTURE(name);
    double const difference = relative_difference(p.gradient, lm_file().floats(name));
    CHECK(difference < 1e-5);
  };
  check("grad/model.layers.0.self_attn.q_proj.weight", *model.layers.front().self_attn.q_proj.weight);
  check("grad/last_down_proj.weight", *model.layers.back().mlp.down_proj.weight);
  check("grad/model.embed_tokens.weight", *model.embed_tokens.weight);
}

TEST_CASE("byte_lm: one, two and three threads give the same bits") {
  auto const batch = windows_of("score", 3).slice(0, 7);  // 896 tokens: blocks of rows do not share out evenly
  struct outcome {
    double loss, validation;
    matrix logits;
    std::map<std::string, matrix> gradients;
  };
  auto const run = [&](int threads) {
    mixbit::thread_pool pool{threads};
    auto model = load_model(trained, pool);
    want_gradients(model);
    outcome o;
    o.loss = forward_and_backward(model, batch, o.logits);
    model.for_each_parameter([&](std::string const& name, parameter& p) { o.gradients[name] = p.gradient; });
    o.validation = evaluate(model, windows_of("validation").slice(0, 11), 4);
    return o;
  };
  outcome const one = run(1);
  for (int threads : {2, 3}) {
    CAPTURE(threads);
    outcome const many = run(threads);
    CHECK(std::memcmp(&one.loss, &many.loss, sizeof one.loss) == 0);
    CHECK(std::memcmp(&one.validation, &many.validation, sizeof one.validation) == 0);
    CHECK(same_bits(one.logits, many.logits));
    REQUIRE(one.gradients.size() == many.gradients.size());
    for (auto const& one_gradient : one.gradients) {
      CAPTURE(one_gradient.first);
      CHECK(one_gradient.second.size() > 0);
      CHECK(same_bits(one_gradient.second, many.gradients.at(one_gradient.first)));
    }
  }
}

TEST_CASE("byte_lm: backward computes weight gradients only while an optimizer asks for them") {
  auto model = load_model(trained);
  auto const batch = windows_of("calibration").slice(0, 1);
  matrix logits;
  forward_and_backward(model, batch, logits);
  CHECK(model.lm_head.weight->gradient.size() == 0);
  {
    adam const optimizer{model};
    forward_and_backward(model, batch, logits);
    CHECK(model.lm_head.weight->gradient.norm() > 0);
    CHECK(model.embed_tokens.weight->gradient.norm() > 0);
  }
  CHECK(model.lm_head.weight->gradient.size() == 0);
}

TEST_CASE("byte_lm: a few steps of Adam lower the loss") {
  mixbit::thread_pool pool{2};
  auto model = load_model(trained, pool);
  auto const batch = windows_of("validation").slice(0, 8);
  double const before = evaluate(model, batch);
  adam optimizer{model, 1e-3f};
  double const first = train_step(model, optimizer, batch);
  CHECK(std::abs(first - before) < 1e-6);
  for (int step = 0; step < 4; ++step) train_step(model, optimizer, batch);
  CHECK(evaluate(model, batch) < before - 0.05);
}

TEST_CASE("byte_lm: the first step of Adam moves each weight by the learning rate against its gradient") {
  auto model = load_model(trained);
  adam optimizer{model, 1e-3f};
  auto& p = *model.norm.weight;
  matrix const before = p.value;
  p.gradient.setConstant(0.25f);
  p.gradient(0, 1) = -4.0f;
  optimizer.step();
  CHECK(std::abs(p.value(0, 0) - (before(0, 0) - 1e-3f)) < 1e-6f);
  CHECK(std::abs(p.value(0, 1) - (before(0, 1) + 1e-3f)) < 1e-6f);
  CHECK(p.gradient.isZero(0));
}

TEST_CASE("byte_lm: linear layers and parameters carry Hugging Face's names, each once") {
  auto model = load_model(trained);
  std::vector<std::string> linears;
  model.for_each_linear([&](std::string const& name, linear&) { linears.push_back(name); });
  CHECK(linears.size() == 4 * 7 + 1);
  CHECK(linears.front() == "model.layers.0.self_attn.q_proj");
  CHECK(linears[13] == "model.layers.1.mlp.down_proj");
  CHECK(linears.back() == "lm_head");
  auto const file = mixbit::safetensors_file::open(trained + "/model.safetensors");
  std::set<std::string> seen;
  model.for_each_parameter([&](std::string const& name, parameter&) {
    CHECK(seen.insert(name).second);
    CHECK(file.contains(name));
  });
  CHECK(seen.size() == file.names().size());
}

TEST_CASE("byte_lm: windows that the model cannot read are refused") {
  auto model = load_model(trained);
  std::vector<std::uint8_t> const bytes(200);
  CHECK(error_text(error_id::usage, [&] { model.logits({bytes.data(), 1, 129, 129}); }) ==
        "[mixbit.701] 1 windows of 129 tokens; max_position_embeddings allows 1 to 128 tokens");
  CHECK(error_text(error_id::usage, [&] { model.logits({bytes.data(), 0, 8, 8}); }).find("0 windows") !=
        std::string::npos);
  config small = model.shapes;
  small.vocab_size = 100;
  language_model narrow{small, {}};
  std::vector<std::uint8_t> const text{7, 99, 100};
  CHECK(error_text(error_id::usage, [&] { narrow.logits({text.data(), 1, 3, 3}); }) ==
        "[mixbit.701] window 0 has the byte 100 at 2, and vocab_size is 100");
}

// ---- checkpoints and configs that do not fit ----

/// The error of loading the trained weights with its config changed by `change`.
template <class Change>
std::string load_error(error_id id, Change&& change) {
  mixbit::test::temporary_folder const folder;
  auto object = mixbit::read_json_file(trained + "/config.json");
  change(object);
  mixbit::test::write_text(folder / "config.json", object.dump());
  std::filesystem::create_symlink(std::filesystem::absolute(trained + "/model.safetensors"),
                                  folder / "model.safetensors");
  std::string text = error_text(id, [&] { load_model(folder.path().string()); });
  std::string const path = folder.path().string() + "/";
  for (std::size_t at; (at = text.find(path)) != std::string::npos;) text.erase(at, path.size());
  CHECK(text.find('\n') == std::string::npos);
  return text;
}

TEST_CASE("byte_lm: a config that does not fit the checkpoint is refused by field, before memory is taken by it") {
  using json = json_document;
  auto const refused = [](char const* field, json const& value) {
    return load_error(error_id::file_content, [&](json& c) { c[field] = value; });
  };
  auto const line = [](std::string const& field, std::string const& why) {
    return "[mixbit.503] config.json: field '" + field + ", but " + why;
  };
  std::string const layer = "tensor 'model.layers.0.";
  std::string const table = "tensor 'model.embed_tokens.weight' of 'model.safetensors'";
  CHECK(refused("vocab_size", 2147483647) == line("vocab_size' is 2147483647", table + " is [256,128]"));
  CHECK(refused("hidden_size", 1000000000) == line("hidden_size' is 1000000000", table + " is [256,128]"));
  CHECK(refused("intermediate_size", 353) ==
        line("intermediate_size' is 353", layer + "mlp.up_proj.weight' of 'model.safetensors' is [352,128]"));
  CHECK(refused("num_hidden_layers", 1000000) ==
        line("num_hidden_layers' is 1000000", "'model.safetensors' has 4 layers"));
  CHECK(refused("num_hidden_layers", 5) == line("num_hidden_layers' is 5", "'model.safetensors' has 4 layers"));
  CHECK(refused("num_hidden_layers", 3) == line("num_hidden_layers' is 3", "'model.safetensors' has 4 layers"));
  CHECK(refused("num_attention_heads", 2000000000) ==
        line("num_attention_heads' is 2000000000", "with head_dim 32 that is 64000000000 rows, and " + layer +
                                                       "self_attn.q_proj.weight' of 'model.safetensors' is [128,128]"));
  CHECK(refused("num_key_value_heads", 4) ==
        line("num_key_value_heads' is 4", "with head_dim 32 that is 128 rows, and " + layer +
                                              "self_attn.k_proj.weight' of 'model.safetensors' is [64,128]"));
  CHECK(refused("head_dim", 2000000000).find("with head_dim 2000000000 that is 8000000000 rows") != std::string::npos);
}

/// The error of loading the trained config with the tensors that `change` makes of the trained ones.
template <class Change>
std::string tensor_error(Change&& change) {
  mixbit::test::temporary_folder const folder;
  auto const file = mixbit::safetensors_file::open(trained + "/model.safetensors");
  std::vector<mixbit::named_tensor> tensors;
  for (auto const& name : file.names()) tensors.push_back({name, file.at(name)});
  change(tensors);
  mixbit::write_safetensors(folder / "model.safetensors", tensors);
  std::filesystem::copy(trained + "/config.json", folder / "config.json");
  return error_text(error_id::file_content, [&] { load_model(folder.path().string()); });
}

TEST_CASE("byte_lm: a tensor that is missing, has another shape or has no place is one line") {
  auto const named = [](auto& tensors, std::string const& name) {
    return std::find_if(tensors.begin(), tensors.end(), [&](auto const& t) { return t.name == name; });
  };
  std::string const norm = "model.layers.2.input_layernorm.weight";
  CHECK(tensor_error([&](auto& t) { t.erase(named(t, norm)); }).ends_with("model.safetensors': tensor '" + norm +
                                                                          "' is missing"));
  CHECK(tensor_error([&](auto& t) { named(t, norm)->tensor = named(t, "model.layers.1.mlp.up_proj.weight")->tensor; })
            .ends_with("tensor '" + norm + "' has the shape [352,128], and config.json asks for [128]"));
  CHECK(tensor_error([&](auto& t) { t.push_back({"model.extra", t.front().tensor}); })
            .ends_with("tensor 'model.extra' has no place in config.json's Llama"));
  CHECK(tensor_error([&](auto& t) { t.erase(named(t, "model.embed_tokens.weight")); })
            .ends_with("has no tensor 'model.embed_tokens.weight'"));
}

TEST_CASE("byte_lm: a tied head shares the embedding's weight") {
  std::string const text = load_error(error_id::usage, [](auto& c) { c["tie_word_embeddings"] = true; });
  CHECK(text == "(no error)");
  config tied = read_config(trained + "/config.json");
  tied.tie_word_embeddings = true;
  language_model model{tied, {}};
  CHECK(model.lm_head.weight == model.embed_tokens.weight);
  int heads = 0;
  model.for_each_parameter([&](std::string const& name, parameter&) { heads += name == "lm_head.weight"; });
  CHECK(heads == 0);
}

TEST_CASE("byte_lm: a config that says something impossible or unsupported is one line") {
  using json = json_document;
  auto const refused = [](char const* field, json const& value) {
    return load_error(error_id::file_content, [&](json& c) { c[field] = value; });
  };
  std::string const begin = "[mixbit.503] config.json: field ";
  CHECK(refused("hidden_size", nullptr) == begin + "'hidden_size' is missing");
  std::string const end = ", not an integer from 1 to 2147483647";
  CHECK(refused("hidden_size", -128) == begin + "'hidden_size' is -128" + end);
  CHECK(refused("vocab_size", "256") == begin + "'vocab_size' is \"256\"" + end);
  CHECK(refused("num_hidden_layers", 4.5) == begin + "'num_hidden_layers' is 4.5" + end);
  CHECK(refused("num_hidden_layers", std::int64_t{1} << 31) == begin + "'num_hidden_layers' is 2147483648" + end);
  CHECK(refused("intermediate_size", 1e30) == begin + "'intermediate_size' is 1e+30" + end);
  CHECK(refused("head_dim", 31) == begin + "'head_dim' is 31, and rotary embeddings need an even one");
  CHECK(refused("rms_norm_eps", 0) == begin + "'rms_norm_eps' is 0, not a positive number");
  CHECK(refused("tie_word_embeddings", 1) == begin + "'tie_word_embeddings' is 1, not true or false");
  CHECK(refused("num_key_value_heads", 3) ==
        begin + "'num_key_value_heads' is 3, which does not divide num_attention_heads 4");
  CHECK(refused("hidden_act", "gelu") == begin + "'hidden_act' is \"gelu\", and only \"silu\" is supported");
  CHECK(refused("attention_bias", true) == begin + "'attention_bias' is true, and only false is supported");
  CHECK(refused("rope_parameters", {{"rope_type", "llama3"}}) ==
        begin + "'rope_type' is \"llama3\", and only \"default\" is supported");
  CHECK(refused("rope_parameters", 3) == begin + "'rope_parameters' is 3, not an object");
}

TEST_CASE("byte_lm: config.json in the spellings of old and new transformers") {
  json_document object{{"vocab_size", 256}, {"hidden_size", 96}, {"intermediate_size", 7},
                        {"num_hidden_layers", 2}, {"num_attention_heads", 6}};
  auto const plain = parse_config(object, "f");
  CHECK(plain.num_key_value_heads == 6);
  CHECK(plain.head_dim == 16);
  CHECK(plain.rope_theta == 10000.0f);
  CHECK(plain.rms_norm_eps == 1e-6f);
  CHECK_FALSE(plain.tie_word_embeddings);
  object["rope_theta"] = 5e5;
  object["rope_scaling"] = nullptr;
  CHECK(parse_config(object, "f").rope_theta == 5e5f);
  object["rope_parameters"] = {{"rope_theta", 2e4}, {"rope_type", "default"}};
  CHECK(parse_config(object, "f").rope_theta == 2e4f);
  object["num_attention_heads"] = 5;
  CHECK(error_text(error_id::file_content, [&] { parse_config(object, "f"); }) ==
        "[mixbit.503] f: field 'hidden_size' is 96, not a multiple of num_attention_heads 5");
}

TEST_CASE("byte_lm: a folder without files, or with text that is not JSON") {
  mixbit::test::temporary_folder const folder;
  CHECK(error_text(error_id::file_open, [&] { load_model(folder.path().string()); }) ==
        "[mixbit.501] cannot open '" + (folder / "config.json").string() + "': No such file or directory");
  mixbit::test::write_text(folder / "config.json", "{\"hidden_size\": 12,");
  CHECK(error_text(error_id::file_format, [&] { load_model(folder.path().string()); })
            .starts_with("[mixbit.502] '" + (folder / "config.json").string() + "': not JSON at byte "));
  mixbit::test::write_text(folder / "config.json", "{\"hidden_size\": 1e999}");
  CHECK(error_text(error_id::file_format, [&] { load_model(folder.path().string()); })
            .starts_with("[mixbit.502] '" + (folder / "config.json").string() + "': not JSON at byte "));
  mixbit::test::write_text(folder / "config.json", "[]");
  CHECK(error_text(error_id::file_content, [&] { load_model(folder.path().string()); }) ==
        "[mixbit.503] " + (folder / "config.json").string() + ": holds no JSON object");
}

}  // namespace
}  // namespace byte_lm
