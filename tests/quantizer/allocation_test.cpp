// The library allocates nothing a call once it is warm, with quantizers off or on. Counted: global operator new.
#include <doctest/doctest.h>

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

#include "mixbit/adapters/eigen.hpp"
#include "mixbit/config/presets.hpp"
#include "mixbit/core/thread_pool.hpp"
#include "mixbit/model/compress.hpp"
#include "mixbit/model/quantize.hpp"
#include "mixbit/reference/scalar.hpp"
#include "support/error_text.hpp"

namespace {

std::atomic<long> allocations{0};
std::atomic<long> until_failure{-1};  // so many more succeed, then one fails

void* counted(std::size_t bytes, std::size_t alignment) {
  ++allocations;
  if (until_failure >= 0 && until_failure-- == 0) throw std::bad_alloc{};
  void* const p = std::aligned_alloc(alignment, (bytes + alignment) / alignment * alignment);
  if (p == nullptr) throw std::bad_alloc{};
  return p;
}

}  // namespace

// not inlined: g++ would take std::free for the wrong partner of operator new
[[gnu::noinline]] void* operator new(std::size_t n) { return counted(n, alignof(std::max_align_t)); }
[[gnu::noinline]] void* operator new(std::size_t n, std::align_val_t a) {
  return counted(n, static_cast<std::size_t>(a));
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }

namespace {

using namespace mixbit;
using cpu = reference::scalar;
using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

struct layer {
  matrix weight = matrix::Random(32, 32);
  quantizer_slots<cpu> slots;
  void walk(module_visitor<cpu> const& visit) { visit(linear("fc", slots, weight)); }
};

/// Allocations of ten calls after two to warm up.
template <class F>
long in_ten_calls(F&& f) {
  for (int i = 0; i < 2; ++i) f();
  long const before = allocations;
  for (int i = 0; i < 10; ++i) f();
  return allocations - before;
}

void check_calls(layer& l, matrix const& x) {
  matrix y(32, 32), grad = matrix::Ones(32, 32);
  auto const into = [](auto const& a, auto const& b, auto&& out) { out.noalias() = a * b.transpose(); };
  auto const product = [](auto const& a, auto const& b) -> matrix { return a * b.transpose(); };
  CHECK(in_ten_calls([&] { apply_into(l.slots, x, l.weight, y, into); }) == 0);
  CHECK(in_ten_calls([&] { apply(l.slots, x, l.weight, product); }) == 0);  // Eigen's own go through malloc
  CHECK(in_ten_calls([&] { lend(l.slots, x, l.weight, [&](auto const& a, auto const&) { y = a; }); }) == 0);
  CHECK(in_ten_calls([&] { input_backward(l.slots, x, grad); }) == 0);
  CHECK(in_ten_calls([&] { score(l.slots, x, l.weight, product, grad); }) == 0);
}

}  // namespace

TEST_CASE("allocation: counting works") {
  CHECK(in_ten_calls([] { ::operator delete(::operator new(1)); }) == 10);
}

TEST_CASE("allocation: none with quantizers off") {
  layer l;
  check_calls(l, matrix::Random(32, 32));
  model<cpu> m{l};
  m.modules();
  check_calls(l, matrix::Random(32, 32));
}

TEST_CASE("allocation: none with quantizers on: static, dynamic, in blocks, in sequence, clipped, cached") {
  matrix const x = matrix::Random(32, 32);
  auto w4a8 = preset("W4A8_AWQ_BETA_CFG");
  w4a8.algorithm = preset("INT8_DEFAULT_CFG").algorithm;
  auto clipped = preset("INT8_DEFAULT_CFG");
  for (auto& e : clipped.entries)
    if (e.cfg) e.cfg->front().pass_through_bwd = false;
  for (auto const& config : {preset("INT8_DEFAULT_CFG"), preset("FP8_PER_CHANNEL_PER_TOKEN_CFG"),
                             preset("INT4_BLOCKWISE_WEIGHT_ONLY_CFG"), w4a8, clipped}) {
    CAPTURE(config.name);
    layer l;
    model<cpu> m{l};
    quantize(m, config, [&] {
      apply(l.slots, x, l.weight, [](auto const& a, auto const& b) -> matrix { return a * b.transpose(); });
    });
    check_calls(l, x);
    l.slots.cache_weight(true);
    check_calls(l, x);
  }
}

TEST_CASE("allocation: none with compressed weights that the host has given up") {
  matrix const x = matrix::Random(32, 32);
  auto nf4 = preset("INT4_BLOCKWISE_WEIGHT_ONLY_CFG");
  block_config const blocks{.axes = {{-1, 8}}, .scale_bits = bit_spec{8}, .scale_block_sizes = {{-1, 4}}};
  nf4.entries.push_back({.quantizer_name = "*weight_quantizer",
                         .cfg = std::vector{quantizer_attribute_config{.num_bits = 4, .block_sizes = blocks}}});
  for (auto const& config : {preset("INT8_DEFAULT_CFG"), preset("NVFP4_DEFAULT_CFG"), nf4}) {
    CAPTURE(config.name);
    layer l;
    model<cpu> m{l};
    quantize(m, config, [&] {
      apply(l.slots, x, l.weight, [](auto const& a, auto const& b) -> matrix { return a * b.transpose(); });
    });
    compress(m);
    l.weight = {};
    check_calls(l, x);
  }
}

TEST_CASE("allocation: none while calibrating, by the running max and by a histogram whose range fits") {
  matrix const x = matrix::Random(32, 32);
  matrix y(32, 32);
  auto const into = [](auto const& a, auto const& b, auto&& out) { out.noalias() = a * b.transpose(); };
  for (calibrator_config const& c : {calibrator_config{"max"}, calibrator_config{"histogram"}}) {
    CAPTURE(c.name());
    layer l;
    model<cpu> m{l};
    auto config = preset("INT8_DEFAULT_CFG");
    for (auto& e : config.entries)
      if (e.cfg) e.cfg->front().calibrator = c;
    quantize(m, config, [&] { CHECK(in_ten_calls([&] { apply_into(l.slots, x, l.weight, y, into); }) == 0); });
  }
}

TEST_CASE("thread_pool: memory that runs out is an error by name, whatever had been started") {
  for (long const allowed : {0, 1, 2}) {  // the list of threads, the first thread, the second
    CAPTURE(allowed);
    auto const text = test::error_text(error_id::memory_exhausted, [&] {
      until_failure = allowed;
      thread_pool const pool{3};
    });
    CHECK(until_failure == -1);
    CHECK(test::says(text, "of 3 threads"));
    until_failure = -1;
  }
}
