// What a state is not restored from, or into: one line says what it is, and nothing is changed.
#include "mixbit/io/state.hpp"

#include <doctest/doctest.h>

#include <functional>

#include "mixbit/calib/max_algorithm.hpp"
#include "mixbit/model/compress.hpp"
#include "support/chain.hpp"
#include "support/error_text.hpp"
#include "support/temporary_folder.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

quantize_config const int8 = preset("INT8_DEFAULT_CFG");

/// The chain of two linear layers, saved after it was quantized.
struct saved_chain {
  temporary_folder folder;
  chain net;
  model<cpu_backend> m{net};

  saved_chain() {
    quantize(m, int8, [&] { net.forward(batch); });
    save_state(folder.path(), m);
  }
};

/// What restoring says to a host of these layers, which is then as it was.
std::string refused(temporary_folder const& folder, std::function<void(checkpoint_host&)> const& build,
                    model_options<cpu_backend> const& options = {}) {
  checkpoint_host host;
  build(host);
  model<cpu_backend> m{host, options};
  auto const text = error_text(error_id::file_content, [&] { restore_state(folder.path(), m); });
  for (auto const& module : m.modules()) CHECK(module.slots->shared_site()->recipes.empty());
  return text;
}

}  // namespace

TEST_CASE("state: a model that differs is refused, by the first layer that does and how") {
  saved_chain const saved;
  auto const up = waves({6, 8}, 0.7f), down = waves({4, 6}, 0.9f);
  auto const with = [&](std::function<void(checkpoint_host&)> const& build) { return refused(saved.folder, build); };
  CHECK(says(with([&](auto& h) { h.add("mlp.up", up); }), "state.json", "'mlp.down'", "is missing"));
  CHECK(says(with([&](auto& h) {
               h.add("mlp.up", up);
               h.add("mlp.down", down);
               h.add("head", down);
             }),
             "'head'", "is extra"));
  CHECK(says(with([&](auto& h) {
               h.add("mlp.up", waves({6, 7}, 0.7f));
               h.add("mlp.down", waves({4, 5}, 0.7f));
             }),
             "'mlp.up'", "another weight", "float32 [6,8] in the state", "float32 [6,7] in the model"));
}

TEST_CASE("state: so is one whose modules have other quantizers, or which computes otherwise") {
  saved_chain const saved;
  auto const build = [](char const* class_name) {
    return [class_name](checkpoint_host& h) {
      h.add("mlp.up", waves({6, 8}, 0.7f));
      h.add("mlp.down", waves({4, 6}, 0.9f), class_name);
    };
  };
  model_options<cpu_backend> options;
  options.classes.declare("my_linear", {{"input_quantizer"}, {"weight_quantizer"}});
  CHECK(says(refused(saved.folder, build("my_linear"), options), "'mlp.down'", "other quantizers",
             "input_quantizer, weight_quantizer, output_quantizer in the state", "my_linear"));
  options.numerics = policy::modelopt;
  CHECK(says(refused(saved.folder, build("nn.Linear"), options), "stored", "modelopt", "model_options::numerics"));
}

TEST_CASE("state: a file that is damaged, cut short, of another save or of a later version is refused") {
  saved_chain const saved;
  chain other;
  model<cpu_backend> m{other};
  plain_tensor const before = other.forward(batch);
  auto const json = saved.folder / "state.json", tensors = saved.folder / "state.safetensors";
  std::string const good_json = read_text(json), good_tensors = read_text(tensors);
  auto const refused_as = [&](error_id id) {
    auto const text = error_text(id, [&] { restore_state(saved.folder.path(), m); });
    CHECK(other.forward(batch).values == before.values);
    write_text(json, good_json);
    write_text(tensors, good_tensors);
    return text;
  };
  auto flipped = good_tensors;
  flipped[flipped.size() - 3] = static_cast<char>(flipped[flipped.size() - 3] ^ 1);
  write_text(tensors, flipped);
  CHECK(says(refused_as(error_id::file_format), "state.safetensors", "'mlp.", "is not what was written", "damaged"));
  write_text(tensors, good_tensors.substr(0, good_tensors.size() - 1));
  CHECK(says(refused_as(error_id::file_format), "state.safetensors"));
  auto edited = good_json;
  edited.replace(edited.find("\"enabled\": true"), 15, "\"enabled\": !!!!");
  write_text(json, edited);
  CHECK(says(refused_as(error_id::file_format), "state.json", "not JSON"));
  edited = good_json;
  edited.replace(edited.find("\"num_bits\": 8"), 13, "\"num_bits\": 4");
  write_text(json, edited);
  CHECK(says(refused_as(error_id::file_format), "state.json", "together with", "state.safetensors"));
  edited = good_json;
  edited.replace(edited.find("\"version\": 1"), 12, "\"version\": 2");
  write_text(json, edited);
  CHECK(says(refused_as(error_id::file_format), "state.json", "version 2", "up to 1"));
  write_text(json, "[]");
  CHECK(says(refused_as(error_id::file_format), "state.json", "'version'"));
  std::filesystem::remove(tensors);
  CHECK(says(refused_as(error_id::file_open), "state.safetensors"));
  restore_state(saved.folder.path(), m);  // all of it was put back
  CHECK(other.forward(batch).values != before.values);
}

TEST_CASE("state: neither is saved or restored from inside a calibration, and a failing save leaves what was there") {
  saved_chain saved;
  auto const before = read_text(saved.folder / "state.json");
  temporary_folder const folder;
  auto const inside = [&](auto&& call) {
    return error_text(error_id::state_nested, [&] { calibrate(saved.m, "max", call); });
  };
  CHECK(says(inside([&] { save_state(folder.path(), saved.m); }), "mlp.up", "save_state"));
  CHECK(says(inside([&] { restore_state(saved.folder.path(), saved.m); }), "mlp.up"));
  CHECK(listing(folder.path()).empty());
  std::filesystem::create_directory(saved.folder / "state.safetensors.d");
  std::filesystem::remove(saved.folder / "state.safetensors");
  std::filesystem::create_directory(saved.folder / "state.safetensors");
  disable_quantizer(saved.m, "*input_quantizer");
  CHECK(says(error_text(error_id::file_open, [&] { save_state(saved.folder.path(), saved.m); }), "state.safetensors"));
  CHECK(read_text(saved.folder / "state.json") == before);
}

TEST_CASE("state: tied weights are saved once, and modules without weights with their own quantizers") {
  struct host {
    plain_tensor table = waves({10, 8}, 0.7f), w = waves({8, 8}, 0.4f);
    quantizer_slots<cpu_backend> embed, fc, attention, head;
    void walk(module_visitor<cpu_backend> const& visit) {
      visit(embedding("embed", embed, table));
      visit(linear("fc", fc, w));
      visit(module("attention", "attention", attention));
      visit(linear("head", head, table));
    }
    plain_tensor forward(plain_tensor const& x) {
      plain_tensor y = apply(fc, x, w, multiply);
      for (std::size_t const operand : {1, 2}) apply(attention, y, operand);
      return apply(head, y, table, multiply);
    }
  } net, fresh;
  temporary_folder const folder;
  model<cpu_backend> m{net}, other{fresh};
  quantize(m, combine(int8, preset("FP8_KV_CFG")), [&] { net.forward(batch); });
  save_state(folder.path(), m, {.weights = true});
  fresh.table = waves({10, 8}, 0.1f);
  fresh.w = waves({8, 8}, 0.1f);
  CHECK(restore_state(folder.path(), other).notes.empty());
  CHECK(fresh.forward(batch).values == net.forward(batch).values);
  CHECK(fresh.table.values == net.table.values);
  auto const file = safetensors_file::open(folder / "state.safetensors");
  CHECK(file.contains("embed.weight"));
  CHECK(file.contains("attention.k_bmm_quantizer.0.amax"));
  CHECK_FALSE(file.contains("head.weight"));
}

TEST_CASE("state: codes that tied weights share are shared again") {
  struct host {
    plain_tensor w = waves({8, 8}, 0.4f);
    quantizer_slots<cpu_backend> a, b;
    void walk(module_visitor<cpu_backend> const& visit) {
      visit(linear("a", a, w));
      visit(linear("b", b, w));
    }
  } net, fresh;
  temporary_folder const folder;
  model<cpu_backend> m{net}, other{fresh};
  quantize(m, preset("INT8_WEIGHT_ONLY_CFG"));
  compress(m);
  save_state(folder.path(), m);
  restore_state(folder.path(), other);
  REQUIRE(fresh.a.packed() != nullptr);
  CHECK(fresh.a.packed() == fresh.b.packed());
}
