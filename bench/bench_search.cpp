// bench_search [--json] [--rounds N] [--method gradient|kl_div] [--peer]: a whole search of byte_lm, by default the one
// that tests/golden/lm_autoquant.json records first: three formats, 8 calibration and 8 scoring batches of 8 windows,
// two threads; solver included. Prints the median over rounds of seconds for calibration, scoring, choosing and all of
// it, and a forward in the same rounds. --peer: the same search by ModelOpt (PyPI's nvidia-modelopt) in each round, and
// the median of the rounds' ratios.
#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "byte_lm/search_steps.hpp"
#include "golden_suites/lm_model.hpp"
#include "python_peer.hpp"
#include "recorded_search.hpp"

namespace {

using clock_type = std::chrono::steady_clock;

double since(clock_type::time_point start) { return std::chrono::duration<double>(clock_type::now() - start).count(); }

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

struct timings {
  std::vector<double> forward, calibrate, score, choose, all, peer, ratio;
};

struct options {
  bool json = false, peer = false;
  int rounds = 0;  // none given
  std::string method;
};

void round(golden::lm_model& lm, std::string const& method, timings& t) {
  auto start = clock_type::now();
  (void)lm.host.logits(lm.score[0].inputs());
  t.forward.push_back(since(start));

  start = clock_type::now();
  auto model = lm.quantized(mixbit::policy::modelopt);
  auto o = bench::recorded_search();
  o.method = method == "kl_div" ? mixbit::score_method::kl_div : mixbit::score_method::gradient;
  mixbit::search<byte_lm::backend> s{model, o};
  int const count = static_cast<int>(lm.score.size());
  double calibrated = 0;
  auto steps = byte_lm::search_steps(lm.host, lm.score, count, lm.score, count);
  auto const note = [&](int i) { calibrated = i == 0 ? since(start) : calibrated; };
  steps.score = [&, score = steps.score](int i) {
    note(i);
    score(i);
  };
  steps.logits = [&, logits = steps.logits](int i, mixbit::logits_sink const& take) {
    note(i);
    logits(i, take);
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

/// False where ModelOpt's search fails.
bool peer_round(std::string const& method, timings& t) {
  std::string const answer = bench::last_line_of("modelopt_search.py", method);
  double const seconds = std::atof(answer.c_str());
  if (!(seconds > 0)) {
    std::fprintf(stderr, "skipped: ModelOpt: %s\n", answer.c_str());
    return false;
  }
  t.peer.push_back(seconds);
  t.ratio.push_back(seconds / t.all.back());
  return true;
}

[[noreturn]] void refuse(std::string const& what) {
  mixbit::fail(mixbit::error_id::usage, what,
               "; bench_search [--json] [--rounds N] [--method gradient|kl_div] [--peer]");
}

options read_options(int argc, char** argv) {
  options o;
  for (int i = 1; i < argc; ++i) {
    std::string const option = argv[i];
    if (bool* const flag = option == "--json" ? &o.json : option == "--peer" ? &o.peer : nullptr) {
      if (*flag) refuse(option + " is given twice");
      *flag = true;
      continue;
    }
    if (option != "--rounds" && option != "--method") refuse("unknown option '" + option + "'");
    if (option == "--rounds" ? o.rounds != 0 : !o.method.empty()) refuse(option + " is given twice");
    std::string_view const value = i + 1 < argc ? argv[++i] : "";
    if (option == "--method") {
      if (value != "gradient" && value != "kl_div")
        refuse("--method '" + std::string{value} + "' is not gradient or kl_div");
      o.method = value;
      continue;
    }
    auto const [end, code] = std::from_chars(value.data(), value.data() + value.size(), o.rounds);
    if (code != std::errc{} || end != value.data() + value.size() || o.rounds < 1 || o.rounds > 10'000)
      refuse("--rounds '" + std::string{value} + "' is not a whole number from 1 to 10000");
  }
  if (o.rounds == 0) o.rounds = 11;
  if (o.method.empty()) o.method = "gradient";
  return o;
}

void print(options const& o, timings const& t) {
  char const* const format =
      o.json ? "{\"method\":\"%s\",\"forward_s\":%.4f,\"calibrate_s\":%.4f,\"score_s\":%.4f,\"choose_s\":%.6f,"
               "\"search_s\":%.4f,\"rounds\":%d}\n"
             : "%s: forward %.4f s, calibrate %.4f s, score %.4f s, choose %.6f s, search %.4f s (medians of %d)\n";
  std::printf(format, o.method.c_str(), median(t.forward), median(t.calibrate), median(t.score), median(t.choose),
              median(t.all), o.rounds);
  if (t.peer.empty()) return;
  std::printf(o.json ? "{\"peer\":\"ModelOpt\",\"search_s\":%.4f,\"ratio\":%.3f,\"rounds\":%zu}\n"
                     : "ModelOpt: search %.4f s, %.3f times ours (medians of %zu)\n",
              median(t.peer), median(t.ratio), t.peer.size());
}

}  // namespace

int main(int argc, char** argv) {
  try {
    options const o = read_options(argc, argv);
    bool const peer = o.peer && bench::is_peer_there("ModelOpt", "modelopt_search.py");
    golden::lm_model lm{MIXBIT_GOLDEN_DIR, MIXBIT_DATA_DIR};
    timings t;
    for (int i = 0; i < o.rounds; ++i) {
      round(lm, o.method, t);
      if (peer && !peer_round(o.method, t)) break;
    }
    print(o, t);
  } catch (mixbit::error const& e) {
    std::fprintf(stderr, "bench_search: %.*s\n", static_cast<int>(e.message().size()), e.message().data());
    return 2;
  }
  return 0;
}
