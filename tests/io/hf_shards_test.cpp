// A source in shards, and an export to shards: the same tensors as from and in one file.
#include <doctest/doctest.h>

#include <cstring>
#include <set>

#include "mixbit/io/safetensors_set.hpp"
#include "support/error_text.hpp"
#include "support/export_bench.hpp"

namespace {

using namespace mixbit;
using namespace mixbit::test;

void one_quantized_layer(export_bench& b) {
  b.add("a.fc", make_weight({8, 64}, 1));
  b.add("b.fc", make_weight({8, 64}, 2));
  b.tensors.emplace_back("norm.weight", make_weight({64}));
  b.quantize([](auto& c) { turn_on(c, "a.fc.weight_quantizer", per_axis(8, 0)); });
}

/// Rewrites the source as shards of at most `bytes`.
void shard_source(export_bench const& b, std::int64_t bytes) {
  auto const whole = safetensors_file::open(b.source() / "model.safetensors");
  std::vector<named_geometry> shapes;
  for (auto const& name : whole.names()) shapes.push_back({name, whole.at(name)});
  staged_output out{b.source()};
  safetensors_shards shards{out, "", shapes, {{"format", "pt"}}, bytes};
  for (auto const& due : shards.order()) shards.write(whole.at(due.name));
  shards.commit();
  out.commit();
}

TEST_CASE("an export from shards is byte for byte the one from a single file") {
  export_bench one, many;
  one_quantized_layer(one);
  one_quantized_layer(many);
  shard_source(many, 2100);
  CHECK(listing(many.source()).size() == 5);  // config, index, three shards
  one.run();
  many.run();
  CHECK(read_text(one.out() / "model.safetensors") == read_text(many.out() / "model.safetensors"));
}

TEST_CASE("an export in shards holds the tensors of the single file; the one that was there goes") {
  export_bench b;
  one_quantized_layer(b);
  b.run();
  auto const text = read_text(b.out() / "model.safetensors");
  auto const whole = safetensors_file::from_bytes(std::as_bytes(std::span{text}), "the single file");
  hf_export_options options;
  options.shard_bytes = 2100;
  b.run(options);
  CHECK_FALSE(std::filesystem::exists(b.out() / "model.safetensors"));
  auto const set = safetensors_set::open(b.out());
  CHECK(set.shards().size() == 3);  // 512 + 32, 2048, 256 bytes
  CHECK(std::set<std::string>{set.names().begin(), set.names().end()} ==
        std::set<std::string>{"a.fc.weight", "a.fc.weight_scale", "b.fc.weight", "norm.weight"});
  for (auto const& name : set.names()) {
    auto const ours = set.bytes(name), theirs = whole.bytes(name);
    CHECK_MESSAGE((ours.size() == theirs.size() && std::memcmp(ours.data(), theirs.data(), ours.size()) == 0), name);
  }
}

TEST_CASE("a shard that is missing is named, and nothing is written") {
  export_bench b;
  one_quantized_layer(b);
  shard_source(b, 2100);
  std::filesystem::remove(b.source() / "model-00002-of-00003.safetensors");
  CHECK(says(error_text(error_id::file_open, [&] { b.run(); }), "'model-00002-of-00003.safetensors'", "missing"));
  CHECK_FALSE(std::filesystem::exists(b.out()));
}

}  // namespace
