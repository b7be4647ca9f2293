// A digest of what the kernels make of one set of inputs. Builds with other flags must print the same one:
// contraction_test.sh compares this build, which does not contract products, with builds that do.
#include <cstdio>

#include "kernels/kernel_calls.hpp"
#include "kernels/kernel_test.hpp"
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

/// Calls f(x, call) with an amax a block, and for block formats with scales from the data.
template <class T, class F>
void for_format(geometry const& g, std::int64_t block, format const& how, unsigned seed, F&& f) {
  std::vector<axis_block> const last{{-1, block}};
  call c{blocks_of(g, last), {}, how, 1.0f};
  tensor<T> x{g};
  fill_with_ties(x, c.groups, how, seed);
  c.amax = amax_of(x, c.groups);
  f(x, c);
  if (how.scaling == scale_rule::ratio) return;
  c.amax.clear();
  f(x, c);
}

/// The same for all formats.
template <class T, class F>
void for_formats(F&& f) {
  unsigned seed = 1;
  for (layout const l : {layout::row_major, layout::strided}) {
    geometry const g = make_geometry<T>({5, 193}, l);
    for (auto const& how : ratio_formats()) for_format<T>(g, 48, how, ++seed, f);
    for (auto const& how : block_formats()) for_format<T>(g, 32, how, ++seed, f);
  }
}

/// What the kernels that do not quantize are given.
template <class T>
struct inputs {
  tensor<T> x{dense_geometry(dtype_of<T>::value, {37, 96})}, z{x.g}, y{x.g};
  partition rows = [this] {
    std::vector<axis_block> const token{{-1, std::nullopt}};
    return blocks_of(x.g, token);
  }();
  std::vector<float> amax;

  inputs() {
    fill(x, 3);
    fill(z, 4);
    amax = amax_of(x, rows);
  }
};

// One overload a kernel, or this does not compile: what B makes of its inputs.

template <class B, class T>
void add(kernel_fake_quantize, digest& all) {
  for_formats<T>([&](auto const& x, call const& c) { all.add(quantized<B>(x, x.g, c, false)); });
}

template <class B, class T>
void add(kernel_encode, digest& all) {
  for_formats<T>([&](auto const& x, call const& c) {
    if (formats::has_codes(c.how.element.bits)) all.add(encoded<B>(x, c));
  });
}

template <class B, class T>
void add(kernel_decode, digest& all) {
  for_formats<T>([&](auto const& x, call const& c) {
    if (formats::has_codes(c.how.element.bits)) all.add(decoded<B, T>(x.g, c, encoded<reference::scalar>(x, c)));
  });
}

template <class B, class T>
void add(kernel_amax, digest& all) {
  inputs<T> in;
  std::vector<float> amax(in.amax.size());
  B{}.amax({in.x.view(), in.rows, amax.data(), nullptr});
  all.add(amax);
}

template <class B, class T>
void add(kernel_subtract, digest& all) {
  inputs<T> in;
  B{}.subtract({in.x.view(), in.z.view(), in.y.ref()});
  all.add(in.y.memory);
}

template <class B, class T>
void add(kernel_gradient_score, digest& all) {
  inputs<T> in;
  std::vector<double> sum(1);
  B{}.gradient_score({in.x.view(), in.z.view(), sum.data()});
  all.add(sum);
}

template <class B, class T>
void add(kernel_scale_channels, digest& all) {
  inputs<T> in;
  std::vector<float> scale(96);
  for (std::size_t i = 0; i < scale.size(); ++i) scale[i] = 1.0f / static_cast<float>(i + 3);
  B{}.scale_channels({in.x.view(), in.y.ref(), 1, 96, scale.data()});
  all.add(in.y.memory);
}

template <class B, class T>
void add(kernel_backward_mask, digest& all) {
  inputs<T> in;
  for (float& m : in.amax) m *= 0.5f;
  B{}.backward_mask({in.x.view(), in.z.ref(), in.rows, in.amax.data()});
  all.add(in.z.memory);
}

template <class B, class T>
void add(kernel_histogram, digest& all) {
  inputs<T> in;
  for (float& m : in.amax) m *= 0.7f;
  std::vector<std::uint64_t> counts(in.amax.size() * 1000);
  B{}.histogram({in.x.view(), in.rows, in.amax.data(), 1000, counts.data(), nullptr});
  all.add(counts);
}

template <class B, class T>
void add(kernel_sum, digest& all) {
  inputs<T> in;
  int const columns[] = {-1};
  for (partition const& groups : {in.rows, per_tensor(in.x.g), per_axes(in.x.g, columns)})
    for (sum_of const what : {sum_of::values, sum_of::magnitudes, sum_of::squares}) {
      std::vector<double> sum(static_cast<std::size_t>(groups.group_count()));
      B{}.sum({in.x.view(), groups, what, sum.data(), nullptr});
      all.add(sum);
    }
}

template <class B, class T>
void add(kernel_extremes, digest& all) {
  inputs<T> in;
  std::vector<float> low(in.amax.size(), std::numeric_limits<float>::infinity()), high(low.size(), -low[0]);
  B{}.extremes({in.x.view(), in.rows, low.data(), high.data(), nullptr});
  all.add(low);
  all.add(high);
}

template <class B, class T>
void add(kernel_shift, digest& all) {
  for (bool const subtract : {false, true}) {
    inputs<T> in;
    std::vector<float> value;
    for (float const m : in.amax) value.push_back(to_float(from_float<T>(m * 0.3f)));
    B{}.shift({in.x.view(), in.y.ref(), in.rows, value.data(), subtract});
    all.add(in.y.memory);
  }
}

template <class B, class T>
void add(kernel_hadamard, digest& all) {
  for (std::int64_t const block : {2, 32}) {
    inputs<T> in;
    B{}.hadamard({in.x.view(), in.y.ref(), block});
    all.add(in.y.memory);
  }
}

template <class B>
std::uint64_t digest_of_kernels() {
  digest all;
#define MIXBIT_KERNEL(name)                \
  add<B, float>(kernel_##name{}, all);     \
  add<B, half>(kernel_##name{}, all);      \
  add<B, bfloat16>(kernel_##name{}, all);
#include "mixbit/core/kernels.inc"
#undef MIXBIT_KERNEL
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
