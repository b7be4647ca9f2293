// bench_algorithms [--json] [--quick]: what calibration algorithms cost on one layer.
//
// Each figure is the median of rounds in which our code and its peer, where there is one, take turns. GPTQ's peer is
// the plain loop: quantize a column, spread its error over all that follow. "products" says how many products of two
// square float32 matrices of the layer's size take as long, timed in turn on as many threads: machines drift, those
// ratios do not. --quick: layers of up to 1024 columns. JSON: one object a line. Eigen has no dispatch: configure with
// MIXBIT_NATIVE for figures that mean something.
#include <cstdio>
#include <exception>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "mixbit/adapters/eigen_linalg.hpp"
#include "mixbit/calib/gptq.hpp"
#include "mixbit/calib/local_hessian.hpp"
#include "mixbit/calib/weight_columns.hpp"
#include "mixbit/reference/simd.hpp"
#include "timing.hpp"

namespace {

using backend = mixbit::reference::simd;
using floats = std::vector<float>;

floats random_values(std::int64_t n, unsigned seed) {
  std::mt19937 random{seed};
  std::normal_distribution<float> normal;
  floats values(static_cast<std::size_t>(n));
  for (float& v : values) v = normal(random);
  return values;
}

struct figure {
  std::string what;
  std::int64_t columns;
  int threads;
  double ms = 0, peer_ms = 0, ratio = 0, products = 0;
  int rounds = 0;
};

void print(figure const& f, bool json) {
  if (json)
    std::printf("{\"what\": \"%s\", \"columns\": %lld, \"threads\": %d, \"ms\": %.2f, \"peer_ms\": %.2f, "
                "\"ratio\": %.2f, \"products\": %.3f, \"rounds\": %d}\n",
                f.what.c_str(), static_cast<long long>(f.columns), f.threads, f.ms, f.peer_ms, f.ratio, f.products,
                f.rounds);
  else
    std::printf("%-40s %5lld^2  %d thread(s) %9.1f ms (%d)%s%s\n", f.what.c_str(), static_cast<long long>(f.columns),
                f.threads, f.ms, f.rounds,
                f.products == 0 ? "" : (" " + std::to_string(f.products) + " products").c_str(),
                f.peer_ms == 0 ? "" : ("  peer " + std::to_string(f.peer_ms) + " ms, " + std::to_string(f.ratio) +
                                       " times faster").c_str());
  std::fflush(stdout);
}

/// `prepare` is not timed. `product` is the machine's measure.
figure measure(figure f, int rounds, std::function<void()> const& prepare, std::function<void()> const& ours,
               std::function<void()> const& product = {}, std::function<void()> const& peer = {}) {
  std::vector<double> times, peers, ratios, products;
  for (int r = 0; r < rounds; ++r) {
    prepare();
    times.push_back(bench::seconds_of(ours));
    if (product) products.push_back(times.back() / bench::seconds_of(product));
    if (!peer) continue;
    prepare();
    peers.push_back(bench::seconds_of(peer));
    ratios.push_back(peers.back() / times.back());
  }
  f.ms = 1e3 * bench::median(times);
  f.rounds = rounds;
  if (product) f.products = bench::median(products);
  if (peer) f.peer_ms = 1e3 * bench::median(peers), f.ratio = bench::median(ratios);
  return f;
}

/// A linear layer of n x n in INT4 with blocks of 128, and inputs that correlate.
struct layer {
  std::int64_t n;
  floats weight, inputs, hessian, factor;
  mixbit::sequential_quantizer<backend> quantizer;

  explicit layer(std::int64_t size, mixbit::any_linalg const& l)
      : n{size},
        weight{random_values(size * size, 1)},
        inputs{random_values(tokens * size, 2)},
        quantizer{"weight_quantizer", "layer.weight_quantizer", mixbit::quantizer_role::weight, true, {int4()}, {}} {
    for (std::int64_t t = 0; t < tokens; ++t)
      for (std::int64_t k = n - 1; k > 0; --k) at(inputs, t, k) += 0.5f * at(inputs, t, k - 1);
    mixbit::input_gram gram{n};
    gram.add(l, mixbit::dense_matrix<float const>(inputs.data(), tokens, n));
    auto const h = gram.hessian();
    hessian.assign(h.data, h.data + n * n);
    for (std::int64_t k = 0; k < n; ++k) at(hessian, k, k) *= 1.01f;
    factor = hessian;
    l.upper_factor(mixbit::dense_matrix(factor.data(), n, n));
    backend device;
    mixbit::arena scratch;
    quantizer.members().front().observe(device, scratch, mixbit::dense_view(weight.data(), {n, n}));
  }
  static mixbit::quantizer_attribute_config int4() {
    mixbit::quantizer_attribute_config a;
    a.num_bits = mixbit::bit_spec{4};
    a.block_sizes.emplace();
    a.block_sizes->axes = {{-1, 128}};
    return a;
  }
  float& at(floats& m, std::int64_t i, std::int64_t k) const { return m[static_cast<std::size_t>(i * n + k)]; }

  static constexpr std::int64_t tokens = 4096;
};

/// The plain loop over a factor that is there.
void by_columns(layer const& l, floats& w, mixbit::weight_columns<backend>& quantize) {
  auto const n = static_cast<std::size_t>(l.n);
  floats column(n), q(n), sums(n * n, 0.0f);
  for (std::size_t j = 0; j < n; ++j) {
    float const* const r = l.factor.data() + j * n;
    for (std::size_t i = 0; i < n; ++i) column[i] = w[i * n + j] + sums[i * n + j] / r[j];
    quantize(static_cast<std::int64_t>(j), 0, l.n, column.data(), q.data());
    for (std::size_t i = 0; i < n; ++i) {
      float const difference = w[i * n + j] - q[i];
      float* const row = sums.data() + i * n;
      w[i * n + j] = q[i];
      for (std::size_t k = j + 1; k < n; ++k) row[k] += difference * r[k];
    }
  }
}

/// One product of two n x n matrices, of what is there.
std::function<void()> product_of(layer const& l, mixbit::any_linalg const& algebra, floats& result) {
  result.assign(l.weight.size(), 0.0f);
  return [&] {
    algebra.multiply_add(1.0f, mixbit::dense_matrix<float const>(l.inputs.data(), l.n, l.n),
                         mixbit::dense_matrix<float const>(l.weight.data(), l.n, l.n), mixbit::factor::as_is,
                         mixbit::dense_matrix(result.data(), l.n, l.n));
  };
}

void gptq(layer const& l, mixbit::any_linalg const& algebra, int threads, bool json) {
  backend device;
  mixbit::weight_columns<backend> quantize{device, l.quantizer, mixbit::dense_geometry(mixbit::dtype::f32, {l.n, l.n})};
  floats w, h, sum, result;
  std::vector<std::int64_t> names(static_cast<std::size_t>(l.n));
  for (std::size_t k = 0; k < names.size(); ++k) names[k] = static_cast<std::int64_t>(k);
  auto const matrix = [&](floats& m) { return mixbit::dense_matrix(m.data(), l.n, l.n); };
  auto const reset = [&] { w = l.weight, h = l.hessian, sum.assign(h.size(), 0.0f); };
  auto const product = product_of(l, algebra, result);
  int const rounds = l.n > 2048 ? 3 : 5;
  std::function<void()> peer = [&] { by_columns(l, w, quantize); };
  if (l.n > 2048) peer = {};  // a minute and more
  auto const given = mixbit::dense_matrix<float const>(l.factor.data(), l.n, l.n);
  print(measure({"a product", l.n, threads}, rounds, [] {}, product), json);
  print(measure({"gptq int4 g128, columns", l.n, threads}, rounds, reset,
                [&] { mixbit::detail::gptq_columns(algebra, matrix(w), given, 128, names, quantize); }, product, peer),
        json);
  print(measure({"gptq int4 g128 with its Cholesky factor", l.n, threads}, rounds, reset,
                [&] { mixbit::gptq(algebra, matrix(w), matrix(h), {}, quantize); }, product), json);
  print(measure({"Cholesky factor", l.n, threads}, rounds, reset,
                [&] { algebra.upper_factor(matrix(h)); }, product), json);
  auto const x = mixbit::dense_matrix<float const>(l.inputs.data(), layer::tokens, l.n);
  print(measure({"Hessian of 4096 tokens", l.n, threads}, rounds, reset,
                [&] { algebra.accumulate_gram(1.0f, x, matrix(sum)); }, product), json);
}

void searches(layer const& l, mixbit::executor_ref executor, int threads, bool json) {
  mixbit::workspace<backend> ws{backend{executor}};
  auto const shape = mixbit::dense_view(l.weight.data(), {l.n, l.n});
  auto const candidates = mixbit::amax_multipliers(0.25, 4.0, 0.1);
  for (std::int64_t const block : {16, 128}) {
    std::vector<mixbit::axis_block> const along{{-1, block}};
    auto const groups = mixbit::blocks_of(shape, along);
    mixbit::format const how{mixbit::integer_element(4)};
    floats amax(static_cast<std::size_t>(groups.group_count()), 0.0f);
    ws.device.amax({shape, groups, amax.data(), nullptr});
    std::string const name = " int4 g" + std::to_string(block) + ", 39 candidates";
    print(measure({"mse" + name, l.n, threads}, 3, [] {}, [&] {
      mixbit::amax_search<backend> search{ws, shape, groups, how, amax, 0};
      mixbit::squared_error<backend> error{ws};
      search.best(candidates, error);
    }), json);
    mixbit::block_grams grams{l.n, 16};
    grams.add(executor, mixbit::dense_matrix<float const>(l.inputs.data(), layer::tokens, l.n));
    grams.finish();
    print(measure({"local_hessian" + name, l.n, threads}, 3, [] {}, [&] {
      mixbit::amax_search<backend> search{ws, shape, groups, how, amax, 0};
      mixbit::local_hessian_error<backend> error{ws.device, grams, executor};
      search.best(candidates, error);
    }), json);
  }
}

void svd(mixbit::any_linalg const& algebra, int threads, bool json) {
  std::int64_t const n = 1024, rank = 32;
  floats const w = random_values(n * n, 3);
  std::vector<double> const wide(w.begin(), w.end());
  print(measure({"svdquant, rank 32", n, threads}, 3, [] {},
                [&] { algebra.low_rank(mixbit::dense_matrix(wide.data(), n, n), rank); }), json);
}

}  // namespace

int main(int argc, char** argv) try {
  bool json = false, quick = false;
  for (int i = 1; i < argc; ++i) {
    std::string_view const option{argv[i]};
    if (option == "--help" && argc == 2) {
      std::puts("bench_algorithms [--json] [--quick]\n  --json   one JSON object a line\n  --quick  small layers only");
      return 0;
    }
    bool* const flag = option == "--json" ? &json : option == "--quick" ? &quick : nullptr;
    if (flag == nullptr || *flag) {
      std::fprintf(stderr, "bench_algorithms: '%s' is %s; bench_algorithms [--json] [--quick]\n", argv[i],
                   flag == nullptr ? "an unknown option" : "given twice");
      return 2;
    }
    *flag = true;
  }
  mixbit::thread_pool pool{2};
  for (std::int64_t const n : {1024, 2048, 4096}) {
    if (quick && n > 1024) break;
    for (int const threads : {1, 2}) {
      mixbit::executor_ref const executor = threads == 1 ? mixbit::executor_ref{} : mixbit::executor_ref{pool};
      mixbit::any_linalg const algebra = mixbit::eigen_linalg{executor};
      layer const l{n, algebra};
      gptq(l, algebra, threads, json);
      searches(l, executor, threads, json);
    }
  }
  svd(mixbit::eigen_linalg{}, 1, json);
  return 0;
} catch (std::exception const& problem) {
  std::fprintf(stderr, "bench_algorithms: %s\n", problem.what());
  return 2;
}
