// What quantize_checkpoint chooses from under a budget, where a format has a form in some of the layers alone.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "examples/tools/quantize_checkpoint/assignment.hpp"
#include "mixbit/config/json.hpp"
#include "support/error_text.hpp"
#include "support/export_bench.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

struct choices_bench : export_bench {
  choices_bench() {
    add("a.fc", make_weight({8, 256}));
    add("c.fc", make_weight({8, 40}));  // no whole groups of 32
    add("l.self_attn.q_proj", make_weight({8, 64}));
    add("l.self_attn.k_proj", make_weight({8, 40}));
    write_source();
  }
  /// A format in a file of that name.
  std::string format(std::string const& name, quantizer_attribute_config const& weight) {
    auto how = nothing_on();
    turn_on(how, "*weight_quantizer", weight);
    auto const file = folder / (name + ".json");
    write_text(file, config_to_text(how));
    return file.string();
  }
  quantize_checkpoint::assignment assigned(std::vector<std::string> formats, double bits,
                                           std::string to = "compressed-tensors") {
    quantize_checkpoint::options o;
    o.to = std::move(to);
    o.formats = std::move(formats);
    o.target = bits;
    hf_source const checkpoint{source()};
    quantize_checkpoint::stored_model stored{checkpoint};
    return quantize_checkpoint::assign(o, checkpoint, stored, {}, [](auto, auto) {});
  }
};

/// The format of a layer; empty: it is not quantized.
std::string given(quantize_checkpoint::assignment const& made, std::string const& name) {
  auto const at = std::ranges::find(made.layers, name, &quantize_checkpoint::layer::name);
  return at == made.layers.end() ? std::string{} : at->how->label;
}

std::vector<std::string> candidates(quantize_checkpoint::assignment const& made, std::string const& name) {
  for (auto const& m : made.plan->modules)
    if (m.name == name) return m.candidates;
  return {};
}

}  // namespace

TEST_CASE("quantize_checkpoint: a layer is not given a format that it has no form in, and it is said") {
  choices_bench b;
  auto const int4 = b.format("four", blocks(4, {{-1, 32}})), int8 = b.format("eight", per_axis(8, 0));
  auto const made = b.assigned({int4, int8}, 7.5);
  std::string const four = "four(effective-bits: 4.0)", eight = "eight(effective-bits: 8.0)";
  CHECK(candidates(made, "a.fc") == std::vector{four, eight});
  CHECK(candidates(made, "c.fc") == std::vector{eight});
  CHECK(candidates(made, "l.self_attn.q_proj") == std::vector{eight});  // it is one with k_proj
  CHECK(given(made, "a.fc") == four);
  CHECK(given(made, "c.fc") != four);
  CHECK(mentions(made.notes, "no choice: " + four + ": c.fc: rows of 40 elements are no whole groups of 32"));
  CHECK(mentions(made.notes, "l.self_attn.k_proj: rows of 40 elements"));
  CHECK(mentions(made.notes, "(l.self_attn.k_proj, l.self_attn.q_proj choose as one)"));
  CHECK_FALSE(mentions(made.notes, "a.fc"));
  for (auto const& name : {"c.fc", "l.self_attn.q_proj", "l.self_attn.k_proj"}) CHECK(given(made, name) != four);
}

TEST_CASE("quantize_checkpoint: a format that no layer can have ends a choice, naming the first") {
  choices_bench b;
  auto const int4 = b.format("four", blocks(4, {{-1, 24}})), int8 = b.format("eight", per_axis(8, 0));
  auto const text = error_text(error_id::format_value, [&] { b.assigned({int4, int8}, 9); });
  CHECK_MESSAGE(says(text, "four(effective-bits: 4.0): a.fc: rows of 256 elements", "no layer can have this"), text);
  CHECK(error_text(error_id::format_value, [&] { b.assigned({int8}, 9); }) == "(no error)");
}

TEST_CASE("quantize_checkpoint: a choice is among what the form that is written has") {
  choices_bench b;
  auto const channels = b.format("channels", per_axis({4, 3}, 0)), int8 = b.format("eight", per_axis(8, 0));
  CHECK(given(b.assigned({channels}, 9), "c.fc") == "channels(effective-bits: 8.0)");
  auto const text = error_text(error_id::format_value, [&] { b.assigned({channels, int8}, 9, "modelopt"); });
  CHECK_MESSAGE(says(text, "channels(effective-bits: 8.0): a.fc: no Hugging Face form", "no layer can have"), text);
  CHECK(given(b.assigned({int8}, 9, "modelopt"), "c.fc") == "eight(effective-bits: 8.0)");
}

/// Σ (w - Q(w))² of int8 with one scale.
double error_under(float amax, plain_tensor const& w) {
  double sum = 0;
  for (float const x : w.values) {
    double const scale = double{amax} / 127, off = x - scale * std::nearbyint(x / scale);
    sum += off * off;
  }
  return sum;
}

TEST_CASE("quantize_checkpoint: errors are those of the file, where fused layers share a scale") {
  choices_bench b;
  std::map<std::string, plain_tensor const*> weights;
  for (auto& [name, w] : b.tensors) {
    if (name == "l.self_attn.k_proj.weight") w.values[3] = 100;
    weights[name] = &w;
  }
  b.write_source();
  auto const int8 = b.format("eight", {.num_bits = 8});
  double sum = 0;
  for (auto const& [name, w] : weights) {
    float own = 0;
    for (float const x : w->values) own = std::max(own, std::abs(x));
    sum += error_under(name.starts_with("l.") ? 100.0f : own, *w);
  }
  CHECK(b.assigned({int8}, 8.05).plan->achieved.score == doctest::Approx(sum).epsilon(1e-4));  // all of them
}

TEST_CASE("quantize_checkpoint: layers of one format share what is known of it") {
  choices_bench b;
  auto const made = b.assigned({b.format("eight", per_axis(8, 0))}, 9);
  REQUIRE(made.layers.size() == 4);
  for (auto const& l : made.layers) CHECK(l.how == made.layers.front().how);
}

TEST_CASE("quantize_checkpoint: an entry that matches in any part of a large model has matched") {
  choices_bench b;  // 64 layers are resolved at a time
  for (int i = 0; i < 150; ++i) b.add("z." + std::to_string(100 + i), make_weight({2, 32}));
  b.write_source();
  hf_source const checkpoint{b.source()};
  quantize_checkpoint::stored_model stored{checkpoint};
  auto how = nothing_on();
  for (auto const& name : {"*a.fc*weight_quantizer", "*z.249*weight_quantizer"}) turn_on(how, name, per_axis(8, 0));
  quantize_checkpoint::options o;
  o.config = (b.folder / "how.json").string();
  auto const assigned = [&] {
    write_text(o.config, config_to_text(how));
    return quantize_checkpoint::assign(o, checkpoint, stored, {}, [](auto, auto) {});
  };
  CHECK(assigned().layers.size() == 2);
  turn_on(how, "*z.250*weight_quantizer", per_axis(8, 0));
  CHECK(says(error_text(error_id::config_no_match, assigned), "*z.250*", "matches none of 462 quantizers",
             "from a.fc.input_quantizer to z.249.output_quantizer"));
}

TEST_CASE("quantize_checkpoint: weights that cannot be read end a choice, whatever the form") {
  choices_bench b;
  b.tensors.front().second.values[3] = std::nanf("");
  b.write_source();
  auto const int8 = b.format("eight", per_axis(8, 0));
  CHECK(says(error_text(error_id::file_content, [&] { b.assigned({int8}, 9); }), "'a.fc.weight'", "NaN"));
}

TEST_CASE("quantize_checkpoint: a file that is cut short while weights are measured ends that at the next layer") {
  choices_bench b;
  quantize_checkpoint::options o;
  o.formats = {b.format("eight", per_axis(8, 0))};
  o.target = 9;
  hf_source const checkpoint{b.source()};
  quantize_checkpoint::stored_model stored{checkpoint};
  int measured = 0;
  auto const assign = [&] {
    (void)quantize_checkpoint::assign(o, checkpoint, stored, {}, [&](auto, auto) {
      auto const file = b.source() / "model.safetensors";
      if (++measured == 2) std::filesystem::resize_file(file, std::filesystem::file_size(file) - 1);  // of its last
    });
  };
  CHECK(says(error_text(error_id::file_open, assign), "model.safetensors': was changed while it was read"));
  CHECK(measured == 2);
}
