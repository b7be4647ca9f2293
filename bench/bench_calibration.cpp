// bench_calibration [--json] [--quick] [METHOD...]: how long calibration algorithms take on one linear layer, by
// default all that are listed here.
//
// INT4 weights in blocks of 128, 4 batches of 1024 tokens, one thread, products by Eigen: what quantize() takes, with
// the runs of the data that it asks for. "forwards" is that in runs of the data by themselves, timed in turn: the
// machine's measure, which load moves less than seconds. ModelOpt 0.47's figures for the same layer of 1024 x 1024
// stand beside them. --quick takes 256 x 256. Medians of 5 runs; JSON: one object a line. Configure with MIXBIT_NATIVE.
#include <cstdio>
#include <exception>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "mixbit/adapters/eigen.hpp"
#include "mixbit/adapters/eigen_linalg.hpp"
#include "mixbit/calib/default_algorithms.hpp"
#include "mixbit/calib/default_calibrators.hpp"
#include "mixbit/config/presets.hpp"
#include "mixbit/mixbit.hpp"
#include "mixbit/reference/simd.hpp"
#include "timing.hpp"

namespace {

using backend = mixbit::reference::simd;
using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

struct method {
  std::string name;
  double modelopt;  ///< seconds, at 1024 x 1024; 0: not measured
};

std::vector<method> const methods{{"max", 0}, {"awq_lite", 1.15}, {"awq_clip", 5.3}, {"awq_full", 0},
                                  {"gptq", 1.43}, {"svdquant", 1.57}};

matrix random_matrix(Eigen::Index rows, Eigen::Index columns, unsigned seed) {
  std::mt19937 generator{seed};
  std::normal_distribution<float> normal;
  matrix m(rows, columns);
  for (Eigen::Index i = 0; i < m.size(); ++i) m.data()[i] = normal(generator);
  return m;
}

struct layer {
  matrix weight;
  mixbit::quantizer_slots<backend> slots = {};
  template <class Visit>
  void walk(Visit&& visit) {
    visit(mixbit::linear("layer", slots, weight));
  }
};

struct figure {
  double seconds, forward, forwards;
};

/// Activations with outlier channels, as a language model's.
std::vector<matrix> batches(Eigen::Index width) {
  std::vector<matrix> all;
  for (unsigned i = 0; i < 4; ++i) {
    all.push_back(random_matrix(1024, width, 10 + i));
    for (Eigen::Index c = 0; c < width; c += 37) all.back().col(c) *= 12;
  }
  return all;
}

figure measure(std::string const& name, Eigen::Index width) {
  layer host{random_matrix(width, width, 1)};
  auto const data = batches(width);
  auto const forward = [&] {
    for (auto const& x : data)
      (void)mixbit::apply(host.slots, x, host.weight,
                          [](auto const& xq, auto const& wq) -> matrix { return xq * wq.transpose(); });
  };
  auto config = mixbit::preset("INT4_BLOCKWISE_WEIGHT_ONLY_CFG");
  config.algorithm = name;
  std::vector<double> whole, plain, ratio;
  for (int i = 0; i < 5; ++i) {
    host.slots = {};
    plain.push_back(bench::seconds_of(forward));
    mixbit::model<backend> m{host, mixbit::model_options<backend>{.linalg = mixbit::eigen_linalg{}}};
    whole.push_back(bench::seconds_of([&] { mixbit::quantize(m, config, forward); }));
    ratio.push_back(whole.back() / plain.back());
  }
  return {bench::median(whole), bench::median(plain), bench::median(ratio)};
}

void print(method const& m, Eigen::Index width, figure const& got, bool json) {
  double const ratio = width == 1024 && m.modelopt > 0 ? m.modelopt / got.seconds : 0;
  std::printf(json ? "{\"method\": \"%s\", \"width\": %td, \"seconds\": %.5f, \"forward_seconds\": %.5f, "
                     "\"forwards\": %.3f, \"modelopt_over_mixbit\": %.3f}\n"
                   : "%-12s %5td  %9.4f s  (forward %.4f s)  %6.2f forwards  ModelOpt / mixbit %6.2f\n",
              m.name.c_str(), width, got.seconds, got.forward, got.forwards, ratio);
  std::fflush(stdout);
}

int refuse(std::string_view what) {
  std::fprintf(stderr, "bench_calibration: %.*s; see bench_calibration --help\n", static_cast<int>(what.size()),
               what.data());
  return 2;
}

}  // namespace

int main(int argc, char** argv) try {
  bool json = false, quick = false;
  std::vector<method> chosen;
  for (int i = 1; i < argc; ++i) {
    std::string_view const word{argv[i]};
    if (word == "--help" && argc == 2)
      return std::puts("bench_calibration [--json] [--quick] [METHOD...]\n  --json   one JSON object a line\n"
                       "  --quick  a layer of 256 x 256\n  METHOD   max, awq_lite, awq_clip, awq_full, gptq or "
                       "svdquant"), 0;
    if (bool* const flag = word == "--json" ? &json : word == "--quick" ? &quick : nullptr) {
      if (*flag) return refuse("'" + std::string{word} + "' is given twice");
      *flag = true;
      continue;
    }
    auto const before = chosen.size();
    for (auto const& m : methods)
      if (m.name == word) chosen.push_back(m);
    if (chosen.size() == before) return refuse("'" + std::string{word} + "' is neither an option nor a method");
  }
  for (auto const& m : chosen.empty() ? methods : chosen) {
    Eigen::Index const width = quick ? 256 : 1024;
    print(m, width, measure(m.name, width), json);
  }
  return 0;
} catch (std::exception const& problem) {
  std::fprintf(stderr, "bench_calibration: %s\n", problem.what());
  return 2;
}
