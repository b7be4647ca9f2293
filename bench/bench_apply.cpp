// What a call through slots costs around the host's own product of two 32x32 Eigen matrices.
//
//   bench_apply [--json] [--quick]
//
// off: slots before a model exists, and slots of a model whose quantizers are off, against the bare op. The ratio is
// the median over rounds in which both alternate, because absolute times drift more than that.
//
// on: apply with INT8 weight and input quantizers against the same kernels and op called by hand, on 4x4 matrices, so
// that the kernels' time does not hide it; the difference is the library's plumbing, in nanoseconds a call.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string_view>
#include <vector>

#include "mixbit/adapters/eigen.hpp"
#include "mixbit/config/presets.hpp"
#include "mixbit/model/quantize.hpp"
#include "mixbit/reference/scalar.hpp"

namespace {

using namespace mixbit;
using cpu = reference::scalar;
using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

struct layer {
  matrix weight, x, y;
  quantizer_slots<cpu> slots = {};
  explicit layer(int size)
      : weight{matrix::Random(size, size)}, x{matrix::Random(size, size)}, y{matrix::Zero(size, size)} {}
  void walk(module_visitor<cpu> const& visit) { visit(linear("fc", slots, weight)); }
};

void keep(matrix const& m) { asm volatile("" : : "r"(m.data()) : "memory"); }

auto product() {
  return [](auto const& x, auto const& w, auto&& y) { y.noalias() = x * w.transpose(); };
}

// one function each, so that nothing is hoisted out of a loop
using operand = Eigen::Map<matrix const, Eigen::AlignedMax>;
[[gnu::noinline]] void bare(matrix const& x, matrix const& w, matrix& y) {
  product()(operand{x.data(), x.rows(), x.cols()}, operand{w.data(), w.rows(), w.cols()},
            Eigen::Map<matrix, Eigen::AlignedMax>{y.data(), y.rows(), y.cols()});
}
[[gnu::noinline]] void routed(quantizer_slots<cpu> const& slots, matrix const& x, matrix const& w, matrix& y) {
  apply_into(slots, x, w, y, product());
}

/// What `routed` computes with quantizers on, without the library's calls around it.
struct by_hand {
  sequential_quantizer<cpu>& input;
  sequential_quantizer<cpu>& weight;
  matrix xq, wq;
  cpu device = {};
  arena scratch = arena{};
  [[gnu::noinline]] void run(matrix const& x, matrix const& w, matrix& y) {
    input.quantize(device, scratch, read_view(x), write_view(xq));
    weight.quantize(device, scratch, read_view(w), write_view(wq));
    bare(xq, wq, y);
  }
};

struct comparison {
  double base_ns, ratio, difference_ns;
};

template <class F>
double nanoseconds(int calls, F&& f) {
  auto const start = std::chrono::steady_clock::now();
  for (int i = 0; i < calls; ++i) f();
  return std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - start).count() / calls;
}

double median(std::vector<double> v) {
  std::ranges::nth_element(v, v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2));
  return v[v.size() / 2];
}

/// Rounds in which base and other alternate, the order changing from round to round.
template <class F, class G>
comparison compare(int rounds, F&& base, G&& other) {
  constexpr int calls = 200;
  std::vector<double> bases, ratios, differences;
  for (int r = -2; r < rounds; ++r) {
    double b = 0, o = 0;
    if (r % 2 == 0) b = nanoseconds(calls, base);
    o = nanoseconds(calls, other);
    if (r % 2 != 0) b = nanoseconds(calls, base);
    if (r < 0) continue;  // to warm up
    bases.push_back(b);
    ratios.push_back(o / b);
    differences.push_back(o - b);
  }
  return {median(bases), median(ratios), median(differences)};
}

void report(bool json, char const* name, comparison const& c) {
  std::printf(
      json ? "{\"benchmark\":\"apply\",\"slots\":\"%s\",\"base_ns\":%.1f,\"ratio\":%.4f,\"difference_ns\":%.1f}\n"
           : "%-24s base %8.1f ns  ratio %.4f  difference %7.1f ns\n",
      name, c.base_ns, c.ratio, c.difference_ns);
}

}  // namespace

int main(int count, char** arguments) {
  bool json = false, quick = false;
  for (int i = 1; i < count; ++i) {
    std::string_view const option = arguments[i];
    bool* const flag = option == "--json" ? &json : option == "--quick" ? &quick : nullptr;
    if (flag == nullptr || *flag)
      return std::fprintf(stderr, "bench_apply: '%s' is %s; bench_apply [--json] [--quick]\n", arguments[i],
                          flag == nullptr ? "an unknown option" : "given twice"), 2;
    *flag = true;
  }
  int const rounds = quick ? 101 : 2001;
  layer l{32};
  auto const direct = [](layer& at) { return [&at] { bare(at.x, at.weight, at.y), keep(at.y); }; };
  auto const through_slots = [](layer& at) { return [&at] { routed(at.slots, at.x, at.weight, at.y), keep(at.y); }; };
  report(json, "off, no model", compare(rounds, direct(l), through_slots(l)));
  model<cpu> m{l};
  m.modules();
  report(json, "off, in a model", compare(rounds, direct(l), through_slots(l)));

  layer small{4};
  model<cpu> q{small};
  quantize(q, preset("INT8_DEFAULT_CFG"), through_slots(small));
  auto& recipe = small.slots.shared_site()->quantizers();
  by_hand h{*recipe.find(quantizer_role::input), *recipe.find(quantizer_role::weight), small.x, small.weight};
  auto const hand = [&] { h.run(small.x, small.weight, small.y), keep(small.y); };
  report(json, "on, INT8, 4x4", compare(rounds, hand, through_slots(small)));
}
