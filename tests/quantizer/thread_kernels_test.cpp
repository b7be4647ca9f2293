// Kernels on several threads that write to the same groups and counters. tests/kernels compares the results; this is
// small enough for the thread sanitizer, which sees whether the writes are ordered.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <thread>
#include <vector>

#include "mixbit/reference/scalar.hpp"

using namespace mixbit;

namespace {

constexpr std::int64_t rows = 1200, columns = 257;  // several pieces, whatever the kernel and the partition

/// A thread for each piece: in a pool one thread may take all of a small tensor before the others wake up.
struct thread_a_piece {
  int pieces = 0;  ///< of the longest loop
  void parallel_for(std::int64_t n, function_ref<void(std::int64_t)> f) {
    std::vector<std::jthread> threads;
    for (std::int64_t i = 0; i < n; ++i) threads.emplace_back([=] { f(i); });
    pieces = std::max(pieces, static_cast<int>(n));
  }
  int concurrency() const { return 2; }
};

/// A call of a kernel that is cut into several pieces.
template <class F>
void in_pieces(thread_a_piece& threads, F f) {
  threads.pieces = 0;
  f(reference::scalar{threads});
  CHECK(threads.pieces >= 2);
}

/// Rising, so that every piece has a larger value than the one before; every 1000th is an infinity.
std::vector<float> rising() {
  std::vector<float> x(rows * columns);
  for (std::size_t i = 0; i < x.size(); ++i)
    x[i] = i % 1000 == 7 ? std::numeric_limits<float>::infinity() : static_cast<float>(i + 1);
  return x;
}

}  // namespace

TEST_CASE("threads raise the same amax and count in the same flags") {
  auto const x = rising();
  geometry const g = dense_geometry(dtype::f32, {rows, columns});
  thread_a_piece threads;
  int const last_axis[] = {1};
  for (partition const& groups : {per_tensor(g), per_axes(g, last_axis)}) {
    std::vector<float> amax(static_cast<std::size_t>(groups.group_count()), 0.0f);
    data_flags flags;
    in_pieces(threads, [&](auto cpu) { cpu.amax({{g, x.data()}, groups, amax.data(), &flags}); });
    CHECK(amax.back() == static_cast<float>(x.size()));
    CHECK(flags.nonfinite == (x.size() - 8) / 1000 + 1);
  }
}

TEST_CASE("threads count in the same bins, widen the same extremes and sum in the same order") {
  auto const x = rising();
  geometry const g = dense_geometry(dtype::f32, {rows, columns});
  thread_a_piece threads;
  reference::scalar const alone;
  int const last_axis[] = {1};
  for (partition const& groups : {per_tensor(g), per_axes(g, last_axis)}) {
    auto const count = static_cast<std::size_t>(groups.group_count());
    std::vector<float> const top(count, static_cast<float>(x.size()));
    std::vector<std::uint64_t> bins(4 * count), alone_bins(4 * count);
    data_flags flags;
    in_pieces(threads, [&](auto cpu) { cpu.histogram({{g, x.data()}, groups, top.data(), 4, bins.data(), &flags}); });
    alone.histogram({{g, x.data()}, groups, top.data(), 4, alone_bins.data(), nullptr});
    CHECK(bins == alone_bins);
    std::vector<float> low(count, 1e9f), high(count, -1e9f);
    in_pieces(threads, [&](auto cpu) { cpu.extremes({{g, x.data()}, groups, low.data(), high.data(), &flags}); });
    CHECK(low.front() == 1.0f);
    CHECK(high.back() == static_cast<float>(x.size()));
    std::vector<double> sum(count), alone_sum(count);
    in_pieces(threads, [&](auto cpu) { cpu.sum({{g, x.data()}, groups, sum_of::squares, sum.data(), &flags}); });
    alone.sum({{g, x.data()}, groups, sum_of::squares, alone_sum.data(), nullptr});
    CHECK(sum == alone_sum);
    CHECK(flags.nonfinite == 3 * ((x.size() - 8) / 1000 + 1));
  }
}

TEST_CASE("threads that cast count negative values in the same flags") {
  std::vector<float> x(rows * columns, -1.0f), y(x.size());
  geometry const g = dense_geometry(dtype::f32, {rows, columns});
  thread_a_piece threads;
  float const amax = 1.0f;
  data_flags flags;
  format const how{integer_element(8, true)};
  in_pieces(threads, [&](auto cpu) {
    cpu.fake_quantize({{g, x.data()}, {g, y.data()}, per_tensor(g), &amax, how, &flags});
  });
  CHECK(flags.negative_unsigned == x.size());
  CHECK(y == std::vector<float>(x.size(), 0.0f));
}
