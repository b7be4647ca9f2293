// A digest of what the kernels make of one set of inputs. Builds with other flags must print the same one:
// contraction_test.sh compares this build, which does not contract products, with builds that do.
#include <cstdio>

#include "kernels/kernel_calls.hpp"
#include "mixbit/reference/scalar.hpp"
#include "mixbit/reference/simd.hpp"
#include "support/format_data.hpp"

#include <doctest/doctest.h>

using namespace kernel_tests;
using namespace mixbit;
using namespace test_data;

namespace {

/// FNV-1a, 64 bits, of bytes.
class digest {
 public:
  template <class T>
  void add(std::vector<T> const& values) {
    auto const* const bytes = reinterpret_cast<unsigned char const*>(values.data());
    for (std::size_t i = 0; i < values.size() * sizeof(T); ++i) sum_ = (sum_ ^ bytes[i]) * 0x100000001b3u;
  }
  std::uint64_t sum() const { return sum_; }

 private:
  std::uint64_t sum_ = 0xcbf29ce484222325u;
};

template <class B, class T>
void add_format(digest& all, geometry const& g, std::int64_t block, format const& how, unsigned seed) {
  std::vector<axis_block> const last{{-1, block}};
  call c{blocks_of(g, last), {}, how, 1.0f};
  tensor<T> x{g};
  fill_with_ties(x, c.groups, how, seed);
  c.amax = amax_of(x, c.groups);
  for (bool const from_data : {false, true}) {
    if (from_data) c.amax.clear();
    if (from_data && how.scaling == scale_rule::ratio) break;
    all.add(quantized<B>(x, g, c, false));
    if (!formats::has_codes(how.element.bits)) continue;
    auto const codes = encoded<B>(x, c);
    all.add(codes);
    all.add(decoded<B, T>(g, c, codes));
  }
}

template <class B, class T>
void add_formats(digest& all) {
  unsigned seed = 1;
  for (layout const l : {layout::row_major, layout::strided}) {
    geometry const g = make_geometry<T>({5, 193}, l);
    for (auto const& how : ratio_formats()) add_format<B, T>(all, g, 48, how, ++seed);
    for (auto const& how : block_formats()) add_format<B, T>(all, g, 32, how, ++seed);
  }
}

/// The kernels that do not quantize, among them the score, a sum of products.
template <class B, class T>
void add_others(digest& all) {
  B cpu;
  tensor<T> x{dense_geometry(dtype_of<T>::value, {37, 100})}, z{x.g}, y{x.g}, grad{x.g};
  fill(x, 3);
  fill(z, 4);
  fill(grad, 5);
  std::vector<axis_block> const token{{-1, std::nullopt}};
  partition const groups = blocks_of(x.g, token);
  std::vector<float> amax(37, 0.0f), scale(100);
  std::vector<double> sum(1);
  for (std::size_t i = 0; i < scale.size(); ++i) scale[i] = 1.0f / static_cast<float>(i + 3);
  cpu.amax({x.view(), groups, amax.data(), nullptr});
  all.add(amax);
  cpu.subtract({x.view(), z.view(), y.ref()});
  all.add(y.memory);
  cpu.gradient_score({grad.view(), y.view(), sum.data()});
  all.add(sum);
  cpu.scale_channels({x.view(), y.ref(), 1, 100, scale.data()});
  all.add(y.memory);
  for (float& m : amax) m *= 0.5f;
  cpu.backward_mask({x.view(), grad.ref(), groups, amax.data()});
  all.add(grad.memory);
}

template <class B>
std::uint64_t digest_of_kernels() {
  digest all;
  add_formats<B, float>(all);
  add_formats<B, half>(all);
  add_formats<B, bfloat16>(all);
  add_others<B, float>(all);
  add_others<B, half>(all);
  add_others<B, bfloat16>(all);
  return all.sum();
}

}  // namespace

TEST_CASE("digest: what all kernels compute, the same on both CPU backends") {
  auto const scalar = digest_of_kernels<reference::scalar>();
  CHECK(digest_of_kernels<reference::simd>() == scalar);
  std::printf("\ndigest %016llx\nvectors of %s\n", static_cast<unsigned long long>(scalar),
              std::string{reference::simd::instructions()}.c_str());
}

/// a*b - c where c is a*b rounded: 0, unless the product is not rounded.
[[gnu::noinline]] float rest_of(float a, float b, float c) { return a * b - c; }
[[gnu::noinline]] float guarded_rest_of(float a, float b, float c) { return fp::mul(a, b) - c; }

TEST_CASE("digest: fp::mul rounds, whatever is done with the product") {
  float const a = 1.0f + 0x1p-12f, square = fp::mul(a, a);
  CHECK(guarded_rest_of(a, a, square) == 0.0f);
  std::printf("\nplain products are %s\n", rest_of(a, a, square) == 0.0f ? "rounded" : "contracted");
}

TEST_CASE("digest: it depends on every byte") {
  digest a, b;
  a.add(std::vector<int>{1, 2, 3});
  b.add(std::vector<int>{1, 2, 0x01000003});
  CHECK(a.sum() != b.sum());
}
