// A search over a mixture of experts: each expert gets a format of its own, scored at the mixture's output and paid for
// the tokens that run through it.
//
//   moe_search     prints each group's scores and choice
#include <cstdio>
#include <string>
#include <vector>

#include "mixbit/config/presets.hpp"
#include "moe/regression.hpp"

namespace {

using namespace moe;

void print(mixbit::candidate_stats const& stats, mixbit::allocation const& chosen) {
  for (std::size_t g = 0; g < stats.size(); ++g) {
    std::printf("%-24s", stats[g].modules.front().c_str());
    if (!stats[g].is_open()) std::printf(" %s", stats[g].disabled_by.c_str());
    else
      for (auto const& c : stats[g].candidates) std::printf(" %9.3g", c.score);
    std::printf("  %s\n", stats[g].candidates[static_cast<std::size_t>(chosen.choice[g])].format.c_str());
  }
}

int run() {
  random_source random;
  regression net{random};
  std::vector<matrix> tokens, targets;
  for (int i = 0; i < 4; ++i) {
    tokens.push_back(tokens_with(random, 48, i == 3 ? 1.0f : -1.0f));  // one batch has tokens for the shunned expert
    targets.push_back(random(48, 8, 1.0f));
  }
  mixbit::model<backend> m{net};
  auto options = by_expert({mixbit::preset("INT4_BLOCKWISE_WEIGHT_ONLY_CFG"), mixbit::preset("INT8_DEFAULT_CFG")});
  options.active_experts = mixbit::active_moe{.top_k = chosen, .num_experts = expert_count};
  mixbit::search<backend> search{m, options};
  auto const batch = [](int i) { return static_cast<std::size_t>(i); };
  search.run({.calibration = 4,
              .scoring = 4,
              .calibrate = [&](int i) { net.forward(tokens[batch(i)]); },
              .score = [&](int i) { net.score_step(search, tokens[batch(i)], targets[batch(i)]); }});
  for (auto const& note : search.notes()) std::printf("note: %s\n", note.c_str());
  auto const best = search.choose(options.target);
  print(search.stats(), best);
  std::printf("%.3f bits an element that runs, of %.1f\n", best.bits_per_element, best.target_bits);
  search.apply(best);
  return best.optimal && best.bits <= best.budget ? 0 : 1;
}

}  // namespace

int main() {
  try {
    return run();
  } catch (mixbit::error const& e) {
    std::fprintf(stderr, "moe_search: %s\n", e.what());
    return 1;
  }
}
