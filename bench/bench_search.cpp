// bench_search [--json] [--rounds N]: the whole gradient search of byte_lm that tests/golden/lm_autoquant.json records
// first: three formats, 8 calibration and 8 scoring batches of 8 windows, two threads; solver included. Prints the
// median over rounds of seconds for calibration, scoring, choosing and all of it, and a forward in the same rounds.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "golden_suites/lm_model.hpp"

namespace {

using clock_type = std::chrono::steady_clock;

double since(clock_type::time_point start) { return std::chrono::duration<double>(clock_type::now() - start).count(); }

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

struct timings {
  std::vector<double> forward, calibrate, score, choose, all;
};

void round(golden::lm_model& lm, timings& t) {
  auto const forward = [&](int i) { return lm.host.logits(lm.score[static_cast<std::size_t>(i)].inputs()); };
  auto start = clock_type::now();
  (void)forward(0);
  t.forward.push_back(since(start));

  start = clock_type::now();
  auto model = lm.quantized(mixbit::policy::modelopt);
  mixbit::search_options o;
  for (char const* f : {"INT4_BLOCKWISE_WEIGHT_ONLY_CFG", "INT8_DEFAULT_CFG", "FP8_DEFAULT_CFG"})
    o.formats.push_back(mixbit::preset(f));
  o.target = 4.8;
  o.cost = mixbit::cost_model::modelopt;
  mixbit::search<byte_lm::backend> s{model, o};
  int const steps = static_cast<int>(lm.score.size());
  double calibrated = 0;
  s.run({steps, steps, [&](int i) { (void)forward(i); },
         [&](int i) {
           if (i == 0) calibrated = since(start);
           auto const targets = lm.score[static_cast<std::size_t>(i)].targets();
           lm.host.backward(byte_lm::cross_entropy_gradient(lm.pool, forward(i), targets));
         }});
  double const scored = since(start);
  s.apply(s.choose(4.8));
  double const all = since(start);
  t.calibrate.push_back(calibrated);
  t.score.push_back(scored - calibrated);
  t.choose.push_back(all - scored);
  t.all.push_back(all);
  mixbit::disable_quantizer(model, "*");  // the next round's forward is unquantized again
}

}  // namespace

int main(int argc, char** argv) {
  bool json = false;
  int rounds = 11;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--json") == 0) {
      json = true;
    } else if (std::strcmp(argv[i], "--rounds") == 0 && i + 1 < argc && std::atoi(argv[i + 1]) > 0) {
      rounds = std::atoi(argv[++i]);
    } else {
      std::fprintf(stderr, "usage: bench_search [--json] [--rounds N]\n");
      return 2;
    }
  }
  try {
    golden::lm_model lm{MIXBIT_GOLDEN_DIR, MIXBIT_DATA_DIR};
    timings t;
    for (int i = 0; i < rounds; ++i) round(lm, t);
    char const* const format =
        json ? "{\"forward_s\":%.4f,\"calibrate_s\":%.4f,\"score_s\":%.4f,\"choose_s\":%.6f,\"search_s\":%.4f,"
               "\"rounds\":%d}\n"
             : "forward %.4f s, calibrate %.4f s, score %.4f s, choose %.6f s, search %.4f s (medians of %d)\n";
    std::printf(format, median(t.forward), median(t.calibrate), median(t.score), median(t.choose), median(t.all),
                rounds);
  } catch (mixbit::error const& e) {
    std::fprintf(stderr, "bench_search: %s\n", e.what());
    return 2;
  }
  return 0;
}
