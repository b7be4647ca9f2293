// Exports pack on the threads of the model's backend, and any number of them gives the same bytes.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "mixbit/core/thread_pool.hpp"
#include "mixbit/io/gguf_checkpoint.hpp"
#include "support/ct_bench.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

/// Notes the lengths of the loops that it runs.
struct noting_executor {
  std::vector<std::int64_t> loops = {};
  void parallel_for(std::int64_t n, function_ref<void(std::int64_t)> f) {
    loops.push_back(n);
    for (std::int64_t i = 0; i < n; ++i) f(i);
  }
  int concurrency() const { return 1; }
};

constexpr std::int64_t rows = 16 * 37;  // 37 pieces of work for packing, and for nothing else

std::unique_ptr<export_bench> packed_bench(quantizer_attribute_config const& weight, executor_ref threads) {
  auto made = std::make_unique<export_bench>();
  auto& b = *made;
  b.add("m.fc", make_weight({rows, 64}));
  b.write_source();
  model_options<cpu_backend> options;
  options.device = cpu_backend{threads};
  b.m = std::make_unique<mixbit::model<cpu_backend>>(b.host, std::move(options));
  auto how = nothing_on();
  turn_on(how, "*weight_quantizer", weight);
  quantize(*b.m, how);
  return made;
}

std::string compressed_bytes(quantizer_attribute_config const& weight, executor_ref threads) {
  auto const made = packed_bench(weight, threads);
  auto& b = *made;
  export_ct_checkpoint(*b.m, b.source(), b.out());
  return read_text(b.out() / "model.safetensors");
}

std::string gguf_bytes(executor_ref threads) {
  auto const made = packed_bench(blocks(8, {{-1, 32}}), threads);
  auto& b = *made;
  round_gguf_scales(*b.m);
  gguf_export_options options;
  options.names = [](std::string const& name) { return std::optional{gguf_place{name, 2}}; };
  export_gguf(*b.m, b.source(), b.folder / "m.gguf", options);
  return read_text(b.folder / "m.gguf");
}

bool packs(std::vector<std::int64_t> const& loops) { return std::ranges::count(loops, 37) == 1; }

}  // namespace

TEST_CASE("exports pack on the threads of the backend") {
  noting_executor ct, plain, gguf;
  compressed_bytes(blocks(4, {{-1, 32}}), ct);
  CHECK(packs(ct.loops));
  compressed_bytes(per_axis({4, 3}, 0), plain);  // nothing is packed
  CHECK_FALSE(packs(plain.loops));
  gguf_bytes(gguf);
  CHECK(packs(gguf.loops));
}

TEST_CASE("exports have the same bytes on any number of threads") {
  thread_pool two{2}, three{3};
  for (auto const& weight : {blocks(4, {{-1, 32}}), per_axis(8, 0), nvfp4()}) {
    auto const one = compressed_bytes(weight, {});
    CHECK(compressed_bytes(weight, two) == one);
    CHECK(compressed_bytes(weight, three) == one);
  }
  CHECK(gguf_bytes(two) == gguf_bytes({}));
  CHECK(gguf_bytes(three) == gguf_bytes({}));
}
