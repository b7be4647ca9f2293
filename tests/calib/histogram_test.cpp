// Histograms that stream: what they count, how their range grows, and that memory does not grow with the data.
#include "mixbit/calib/histogram.hpp"

#include <doctest/doctest.h>

#include <limits>
#include <numeric>
#include <random>

#include "mixbit/formats/histogram.hpp"
#include "mixbit/reference/scalar.hpp"

using namespace mixbit;
using cpu = reference::scalar;

namespace {

using values = std::vector<float>;
constexpr float nan_value = std::numeric_limits<float>::quiet_NaN();
constexpr float infinity = std::numeric_limits<float>::infinity();

struct bench {
  cpu device;
  arena scratch;
  data_flags flags;
  streaming_histogram<cpu> histogram;

  explicit bench(std::int64_t bins = 2048) : histogram{bins} {}

  void show(values const& x) {
    auto const view = dense_view(x.data(), {static_cast<std::int64_t>(x.size())});
    histogram.observe(device, scratch, view, per_tensor(view), &flags);
  }
  void show_rows(values const& x, std::int64_t rows) {
    auto const view = dense_view(x.data(), {rows, static_cast<std::int64_t>(x.size()) / rows});
    int const first[] = {0};
    histogram.observe(device, scratch, view, per_axes(view, first), &flags);
  }
  struct copy {
    std::vector<std::uint64_t> counts;
    float width, top;
  };
  std::vector<copy> all() const {
    std::vector<copy> rows;
    cpu to_host;
    histogram.for_each(to_host, [&](std::size_t, binned_counts const& h) {
      rows.push_back({{h.counts.begin(), h.counts.end()}, h.width, h.top});
    });
    return rows;
  }
};

std::uint64_t mass(std::vector<std::uint64_t> const& counts) {
  return std::accumulate(counts.begin(), counts.end(), std::uint64_t{0});
}
values normal(std::size_t n, unsigned seed, float size = 1.0f) {
  std::mt19937 random{seed};
  std::normal_distribution<float> of;
  values x(n);
  for (float& v : x) v = size * of(random);
  return x;
}

}  // namespace

TEST_CASE("histogram: a larger value adds bins of the same width, and what was counted stays where it was") {
  bench b{128};
  b.show({0.0f, -1.0f, 2.0f, 4.0f});  // 128 bins of 1/32
  auto const before = b.all().front();
  CHECK(before.width == 4.0f / 128);
  CHECK(before.top == 4.0f);
  CHECK(before.counts[0] == 1);
  CHECK(before.counts[32] == 1);
  CHECK(before.counts[64] == 1);
  CHECK(before.counts[127] == 1);
  b.show({9.99f, -5.0f, 1.0f});
  auto const after = b.all().front();
  CHECK(after.width == before.width);
  CHECK(after.counts.size() == 320);  // ceil(9.99 · 32)
  CHECK(after.top == 320 * after.width);
  CHECK(after.counts[32] == 2);
  CHECK(after.counts[127] == 1);
  CHECK(after.counts[160] == 1);
  CHECK(after.counts[319] == 1);
  CHECK(mass(after.counts) == 7);
}

TEST_CASE("histogram: beyond sixteen times its range neighbours are made one, and no count moves out of its range") {
  bench b{128};
  values const small = normal(5000, 1, 0.2f);
  b.show(small);
  auto const fine = b.all().front();
  std::size_t const start = b.histogram.bytes();
  b.show({1e30f});
  auto const coarse = b.all().front();
  CHECK(b.histogram.bytes() <= 16 * start);
  CHECK(coarse.counts.size() <= 16 * 128);
  CHECK(coarse.top >= 1e30f);
  CHECK(coarse.counts[0] == 5000);
  CHECK(coarse.counts.back() + coarse.counts[coarse.counts.size() / 2] == 1);
  CHECK(mass(coarse.counts) == 5001);
  CHECK(b.histogram.ranges().front().coarse);
  CHECK(b.histogram.ranges().front().first_top == fine.top);
  // by one halving: each bin has what its two halves had
  bench twice{128};
  twice.show(small);
  twice.show({fine.top * 20});
  auto const halved = twice.all().front();
  CHECK(halved.width == 2 * fine.width);
  for (std::size_t k = 0; k < 64; ++k) CHECK(halved.counts[k] == fine.counts[2 * k] + fine.counts[2 * k + 1]);
  // up to the bound nothing is made one
  bench grown{128};
  grown.show(small);
  grown.show({fine.top * 15.9f});
  CHECK(grown.all().front().width == fine.width);
  CHECK_FALSE(grown.histogram.ranges().front().coarse);
}

TEST_CASE("histogram: memory is fixed by bins whatever is shown, and a batch allocates no scratch that stays") {
  bench b;
  float size = 1e-20f;
  for (unsigned i = 0; i < 60; ++i, size *= 10.0f) {
    b.show(normal(300 + 100 * i, i, std::min(size, 1e37f)));
    CHECK(b.histogram.bytes() <= 16 * 2048 * 8 + 4);
    CHECK(b.scratch.used() == 0);
  }
  std::uint64_t shown = 0;
  for (unsigned i = 0; i < 60; ++i) shown += 300 + 100 * i;
  CHECK(mass(b.all().front().counts) == shown);
  CHECK(b.scratch.peak() <= 4096);  // a float a group, not the data
}

TEST_CASE("histogram: zeros before the first range count in bin 0; nothing but zeros has no range") {
  bench b;
  b.show(values(100, 0.0f));
  b.show(values(7, -0.0f));
  CHECK(b.all().front().width == 0);
  CHECK(b.all().front().counts[0] == 107);
  b.show({0.5f, 0.25f});
  auto const h = b.all().front();
  CHECK(h.top == 0.5f);
  CHECK(h.counts[0] == 107);
  CHECK(h.counts[1024] == 1);
  CHECK(h.counts[2047] == 1);
  bench tiny;  // too small for bins to have a width in float32: as good as zeros
  tiny.show({1e-45f, 0.0f});
  CHECK(tiny.all().front().width == 0);
  tiny.show({1.0f});
  CHECK(tiny.all().front().counts[0] == 2);
  CHECK(tiny.all().front().top == 1.0f);
}

TEST_CASE("histogram: NaN and infinities are counted and left out, also where a batch holds nothing else") {
  bench b;
  b.show({nan_value, infinity, -infinity});
  CHECK(b.flags.nonfinite == 3);
  CHECK(b.all().front().width == 0);
  CHECK(mass(b.all().front().counts) == 0);
  b.show({1.0f, nan_value});
  b.show({-infinity, 3.0f, 2.0f});
  CHECK(b.flags.nonfinite == 5);
  CHECK(mass(b.all().front().counts) == 3);
  CHECK(b.all().front().top == 3.0f);
}

TEST_CASE("histogram: the largest float32 is in the last bin") {
  bench b;
  b.show({1.0f});
  float const largest = std::numeric_limits<float>::max();
  b.show({largest, largest / 2});
  auto const h = b.all().front();
  CHECK(h.top == largest);
  CHECK(mass(h.counts) == 3);
  binned_counts const view{h.counts, h.width, h.top};
  CHECK(fp::is_finite(view.center(h.counts.size() - 1)));
}

TEST_CASE("histogram: channels have ranges of their own and as many bins") {
  bench rows, alone[3];
  values first = normal(3 * 400, 3), second = normal(3 * 400, 4);
  for (std::size_t i = 0; i < 400; ++i) second[i] *= 5.0f, second[400 + i] = 0.0f, second[800 + i] *= 100.0f;
  for (auto const* batch : {&first, &second}) {
    rows.show_rows(*batch, 3);
    for (std::size_t r = 0; r < 3; ++r)
      alone[r].show(values(batch->data() + 400 * r, batch->data() + 400 * (r + 1)));
  }
  auto const all = rows.all();
  REQUIRE(all.size() == 3);
  for (std::size_t r = 0; r < 3; ++r) {
    auto const one = alone[r].all().front();
    CHECK(all[r].counts.size() == all[0].counts.size());
    CHECK(all[r].width == one.width);
    CHECK(mass(all[r].counts) == 800);
    std::int64_t moved = 0;  // bins are the same but for values within rounding of an edge
    for (std::size_t k = 0; k < one.counts.size(); ++k)
      moved += std::abs(static_cast<std::int64_t>(all[r].counts[k]) - static_cast<std::int64_t>(one.counts[k]));
    CHECK(moved <= 4);
  }
  CHECK(rows.histogram.ranges()[2].coarse);
  CHECK_FALSE(rows.histogram.ranges()[0].coarse);
  CHECK_FALSE(rows.histogram.ranges()[1].coarse);

  bench late{128};  // a channel that has zeros until the other one has grown
  late.show_rows({1.0f, 0.5f, 0.0f, 0.0f}, 2);
  late.show_rows({3.0f, 0.5f, 0.0f, 0.0f}, 2);
  late.show_rows({0.5f, 0.5f, 6.4f, 3.2f}, 2);
  auto const two = late.all();
  CHECK(two[0].counts.size() == 384);
  CHECK(two[1].width == 6.4f / 128);
  CHECK(two[1].top == static_cast<float>(384 * static_cast<double>(two[1].width)));
  CHECK(two[1].counts[0] == 4);
  CHECK(two[1].counts[64] == 1);
  CHECK(two[1].counts[127] + two[1].counts[128] == 1);
}
