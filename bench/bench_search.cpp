// bench_search [--json] [--rounds N]: the whole gradient search of byte_lm that tests/golden/lm_autoquant.json records
// first: three formats, 8 calibration and 8 scoring batches of 8 windows, two threads; solver included. Prints the
// median over rounds of seconds for calibration, scoring, choosing and all of it, and a forward in the same rounds.
#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "byte_lm/search_steps.hpp"
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
  auto start = clock_type::now();
  (void)lm.host.logits(lm.score[0].inputs());
  t.forward.push_back(since(start));

  start = clock_type::now();
  auto model = lm.quantized(mixbit::policy::modelopt);
  mixbit::search_options o;
  for (char const* f : {"INT4_BLOCKWISE_WEIGHT_ONLY_CFG", "INT8_DEFAULT_CFG", "FP8_DEFAULT_CFG"})
    o.formats.push_back(mixbit::preset(f));
  o.target = 4.8;
  o.cost = mixbit::cost_model::modelopt;
  mixbit::search<byte_lm::backend> s{model, o};
  int const count = static_cast<int>(lm.score.size());
  double calibrated = 0;
  auto steps = byte_lm::search_steps(lm.host, lm.score, count, lm.score, count);
  steps.score = [&, score = steps.score](int i) {
    if (i == 0) calibrated = since(start);
    score(i);
  };
  s.run(steps);
  double const scored = since(start);
  s.apply(s.choose(4.8));
  double const all = since(start);
  t.calibrate.push_back(calibrated);
  t.score.push_back(scored - calibrated);
  t.choose.push_back(all - scored);
  t.all.push_back(all);
  mixbit::disable_quantizer(model, "*");  // the next round's forward is unquantized again
}

int refuse(std::string const& what) {
  std::fprintf(stderr, "bench_search: %s; bench_search [--json] [--rounds N]\n", what.c_str());
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  bool json = false;
  int rounds = 0;  // none given
  for (int i = 1; i < argc; ++i) {
    std::string const option = argv[i];
    if (option != "--json" && option != "--rounds") return refuse("unknown option '" + option + "'");
    if (option == "--json" ? json : rounds != 0) return refuse(option + " is given twice");
    if (option == "--json") {
      json = true;
      continue;
    }
    std::string_view const value = i + 1 < argc ? argv[++i] : "";
    auto const [end, code] = std::from_chars(value.data(), value.data() + value.size(), rounds);
    if (code != std::errc{} || end != value.data() + value.size() || rounds < 1 || rounds > 10'000)
      return refuse("--rounds '" + std::string{value} + "' is not a whole number from 1 to 10000");
  }
  if (rounds == 0) rounds = 11;
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
