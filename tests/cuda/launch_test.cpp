// What a launch is made of: division by multiplication, tuning as data, nests and forms of codes by their definitions.
#include <doctest/doctest.h>

#include <random>

#include "cuda/stepping.hpp"
#include "mixbit/cuda/kernels/arithmetic_probe.hpp"
#include "mixbit/cuda/tuning/tuning.hpp"
#include "support/kernel_data.hpp"

using namespace mixbit;
using namespace test_data;
using mixbit::cuda::divider;

TEST_CASE("divider: the quotient, for small and large numbers on both sides of 2^31") {
  std::mt19937_64 random{1};
  std::vector<std::int64_t> divisors{1, 2, 3, 5, 7, 8, 48, 127, 641, 65535, 65536, 0x7fffffff, 0x80000000, 1ll << 40};
  for (int i = 0; i < 2000; ++i) divisors.push_back(static_cast<std::int64_t>(random() >> (random() % 40 + 20)) + 1);
  int wrong = 0;
  for (std::int64_t const d : divisors) {
    divider const by{d};
    std::vector<std::int64_t> numbers{0, 1, d - 1, d, d + 1, 2 * d - 1, 0x7ffffffe, 0x7fffffff, 0x80000000, 1ll << 45};
    std::int64_t const top = 0x7fffffff / d * d;
    for (std::int64_t const n : {top - 1, top, top + 1, 3 * d, 3 * d - 1}) numbers.push_back(n < 0 ? 0 : n);
    for (int i = 0; i < 200; ++i) numbers.push_back(static_cast<std::int64_t>(random() >> (random() % 50 + 4)));
    for (std::int64_t const n : numbers) wrong += by.quotient(n) != n / d;
  }
  CHECK(wrong == 0);
}

TEST_CASE("tuning: every answer is one that the kernels take") {
  for (int capability = 70; capability <= 130; ++capability) {
    auto const t = cuda::tuning_for(capability);
    CAPTURE(capability);
    CHECK((t.threads & (t.threads - 1)) == 0);
    CHECK((t.threads >= 32 && t.threads <= cuda::largest_block));
    CHECK((t.octets == 1 || t.octets == 2 || t.octets == 4 || t.octets == 8));
    CHECK(t.blocks_a_multiprocessor > 0);
  }
}

TEST_CASE("nests: every element once, in its group, past 2^31 elements too") {
  for (auto const& shape : awkward_shapes)
    for (layout const l : {layout::row_major, layout::column_major, layout::strided}) {
      geometry const g = make_geometry<float>(shape, l);
      if (g.size() == 0) continue;
      for (auto const& part : partitions_of(g)) {
        auto const walk = cuda::plan::octets_of<1>({&g}, part.groups);
        tensor<float> seen{g};
        for (std::int64_t u = 0; u < walk.units(); ++u) {
          auto const p = walk.locate(u);
          cuda::for_groups(walk, p, [&](int i, std::int64_t group) {
            seen.data()[p.offset[0] + i * walk.stride(0)] = static_cast<float>(group);
          });
        }
        int wrong = 0;
        for (std::int64_t i = 0; i < g.size(); ++i) wrong += seen[i] != static_cast<float>(group_of(part.groups, g, i));
        CAPTURE(to_string(g));
        CAPTURE(part.name);
        CHECK(wrong == 0);
      }
    }
  std::int64_t const rows = 1ll << 22, columns = 3001;
  geometry const large = dense_geometry(dtype::f32, std::vector<std::int64_t>{rows, columns});
  int const first[] = {0};
  auto const walk = cuda::plan::octets_of<1>({&large}, per_axes(large, first));
  auto const p = walk.locate(walk.units() - 1);
  CHECK(p.group == rows - 1);
  CHECK(p.offset[0] + p.count == rows * columns);
}

TEST_CASE("forms of codes: those of formats/packing.hpp") {
  for (auto const& e : all_elements)
    for (packing const layout : {packing::bytes, packing::dense_rows, packing::nibbles_high_first}) {
      if (layout == packing::nibbles_high_first && (e.bits != 4 || e.is_unsigned)) continue;
      cuda::code_form const form{layout, e};
      int const low = e.kind != element_kind::integer || e.is_unsigned ? 0 : -(1 << (e.bits - 1));
      int wrong = 0;
      for (int code = low; code < low + (1 << e.bits); ++code) {
        std::uint32_t const stored = formats::stored_bits(layout, e, code);
        wrong += form.stored(code) != stored;
        wrong += form.code(stored | 0xff0000u) != formats::code_of_bits(layout, e, stored);
      }
      CAPTURE(name_of(e));
      CHECK(wrong == 0);
    }
}

TEST_CASE("the arithmetic probe tells a flush of subnormal numbers from IEEE 754") {
  auto const probe = cuda::arithmetic_probe::into(nullptr);
  int subnormal = 0;
  for (int i = 0; i < probe.results; ++i) {
    std::uint32_t const magnitude = probe.compute(i) & 0x7fffffffu;
    subnormal += magnitude != 0 && magnitude < 0x00800000u;
  }
  CHECK(subnormal > 10);  // results that -ftz=true turns into 0
}
