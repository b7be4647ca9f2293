// Every format of the library under budgets of exact bits, beside the best that one format for all layers can do.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "budget_search.hpp"
#include "every_format.hpp"
#include "mixbit/adapters/eigen_linalg.hpp"
#include "mixbit/autoquant/refine.hpp"
#include "window_losses.hpp"

namespace bench {

/// Divergence from the unquantized model: on the score windows, which search and refinement see, and on others.
struct divergences {
  byte_lm::divergence_since seen, unseen;
};

/// A model as some choice leaves it.
struct measured {
  std::string name;  ///< of a format for all layers
  double bits = 0;   ///< exact, an element
  double seen = 0, unseen = 0;
  loss_by_window losses = {};
};

/// Afterwards the model runs the choice.
inline measured measure(golden::lm_model& lm, lm_search& s, mixbit::allocation const& chosen,
                        divergences const& divergence) {
  s.apply(chosen);
  return {{}, chosen.bits_per_element, divergence.seen(), divergence.unseen(), window_losses(lm)};
}

/// Each format in every layer; all groups have the same candidates, and the last is not to quantize.
inline std::vector<measured> formats_alone(golden::lm_model& lm, lm_search& s,
                                           divergences const& divergence) {
  std::vector<measured> all;
  auto const& stats = s.stats();
  for (std::size_t k = 0; k < s.formats().size(); ++k) {
    mixbit::allocation one;
    one.choice.assign(stats.size(), static_cast<int>(k));
    for (auto const& g : stats) one.bits += g.candidates[k].bits;
    one.bits_per_element = mixbit::bits_per_element(one.bits, mixbit::total_elements(stats));
    all.push_back(measure(lm, s, one, divergence));
    all.back().name = s.formats()[k].config.name;
  }
  return all;
}

/// By what the search does not see, the validation loss, which is in favour of one format.
inline measured const& best_within(double bits, std::vector<measured> const& alone) {
  auto const rank = [&](measured const& m) { return std::pair{m.bits > bits, mean(m.losses)}; };
  return *std::min_element(alone.begin(), alone.end(),
                           [&](auto const& a, auto const& b) { return rank(a) < rank(b); });
}

struct mixed_row {
  double budget;
  mixbit::allocation chosen;
  measured plain, refined;
};

inline void print(mixed_row const& r, measured const& one, loss_by_window const& unquantized, bool json) {
  double const gain = mean(one.losses) - mean(r.refined.losses);
  char const* const format =
      json ? "{\"exact_bits\": %g, \"plain_bits\": %.4f, \"plain_loss\": %.6f, \"plain_error\": %.6f, "
             "\"refined_bits\": %.4f, \"refined_loss\": %.6f, \"refined_error\": %.6f, \"format\": \"%s\", "
             "\"format_bits\": %.4f, \"format_loss\": %.6f, \"gain\": %.6f, \"gain_error\": %.6f, "
             "\"seen_divergence\": [%.4f, %.4f, %.4f], \"unseen_divergence\": [%.4f, %.4f, %.4f]}\n"
           : "| %g | %.3f: %.5f ± %.5f | %.3f: %.5f ± %.5f | %s, %.3f: %.5f | %.5f ± %.5f | %.1f, %.1f, %.1f | "
             "%.1f, %.1f, %.1f |\n";
  std::printf(format, r.budget, r.plain.bits, mean(r.plain.losses), standard_error(r.plain.losses, unquantized),
              r.refined.bits, mean(r.refined.losses), standard_error(r.refined.losses, unquantized), one.name.c_str(),
              one.bits, mean(one.losses), gain, standard_error(one.losses, r.refined.losses), r.plain.seen,
              r.refined.seen, one.seen, r.plain.unseen, r.refined.unseen, one.unseen);
  std::fflush(stdout);
}

/// By bits, then by name.
inline void print(std::vector<measured> alone, loss_by_window const& unquantized, bool json) {
  std::sort(alone.begin(), alone.end(),
            [](auto const& a, auto const& b) { return std::tie(a.bits, a.name) < std::tie(b.bits, b.name); });
  if (!json)
    std::puts("\n| in every layer | exact bits | loss | score windows | validation windows |\n|---|---|---|---|---|");
  for (auto const& m : alone)
    std::printf(json ? "{\"format\": \"%s\", \"exact_bits\": %.4f, \"loss\": %.6f, \"error\": %.6f, "
                       "\"seen_divergence\": %.4f, \"unseen_divergence\": %.4f}\n"
                     : "| %s | %.3f | %.5f ± %.5f | %.1f | %.1f |\n",
                m.name.c_str(), m.bits, mean(m.losses), standard_error(m.losses, unquantized), m.seen, m.unseen);
}

/// Which formats each choice has, and in how many groups.
inline void print(lm_search const& s, std::vector<mixed_row> const& rows, bool json) {
  for (auto const& r : rows) {
    std::map<std::string, int> groups;
    for (std::size_t g = 0; g < s.stats().size(); ++g)
      ++groups[s.stats()[g].candidates[static_cast<std::size_t>(r.chosen.choice[g])].format];
    std::string text;
    for (auto const& [format, count] : groups)
      text += (text.empty() ? "" : ", ") + (json ? '"' + format + "\": " : format + " ") + std::to_string(count);
    std::printf(json ? "{\"exact_bits\": %g, \"groups_of\": {%s}}\n" : "\n%g bits, groups of: %s\n", r.budget,
                text.c_str());
  }
}

/// Seconds from one call to the next.
class phases {
 public:
  double next() {
    auto const before = std::exchange(last_, clock::now());
    return std::chrono::duration<double>(last_ - before).count();
  }

 private:
  using clock = std::chrono::steady_clock;
  clock::time_point last_ = clock::now();
};

/// The formats that these choices have in any layer.
inline std::vector<mixbit::quantize_config> chosen_formats(lm_search const& s, std::vector<mixed_row> const& rows) {
  std::set<int> recipes;
  for (auto const& r : rows)
    for (std::size_t g = 0; g < s.stats().size(); ++g)
      recipes.insert(s.stats()[g].candidates[static_cast<std::size_t>(r.chosen.choice[g])].recipe);
  recipes.erase(-1);
  std::vector<mixbit::quantize_config> chosen;
  for (int const i : recipes) chosen.push_back(s.formats()[static_cast<std::size_t>(i)].config);
  return chosen;
}

inline mixbit::search_options among(std::vector<mixbit::quantize_config> formats) {
  mixbit::search_options o;
  o.formats = std::move(formats);
  o.target = 16.0;         // budgets come later
  o.difference_bytes = 0;  // of so many formats they would be gigabytes
  return o;
}

/// Around each choice for one round, with the formats that any of them has: with all of them, to its end, it would be
/// many times as many forwards. Prints each row when it is done.
inline void refine(golden::lm_model& lm, lm_search& few, std::vector<mixed_row>& rows,
                   std::vector<measured> const& alone, loss_by_window const& unquantized,
                   divergences const& divergence, bool json) {
  auto const steps = score_window_steps(lm);
  few.run(steps);
  if (!json)
    std::puts("\n| budget | plain | refined | best format alone | gain of mixing | score windows | validation windows |"
              "\n|---|---|---|---|---|---|---|");
  for (auto& r : rows) {
    auto const found = mixbit::refine(few, few.choose(r.budget), steps, divergence.seen,
                                      {.method = mixbit::score_method::kl_div, .rounds = 1});
    r.refined = measure(lm, few, found.best, divergence);
    print(r, best_within(r.budget, alone), unquantized, json);
  }
}

inline void mixed_table(golden::lm_model& lm, bool json) {
  phases clock;
  auto const unquantized = window_losses(lm);
  std::vector<byte_lm::byte_windows> const validation{lm.validation};
  divergences const divergence{divergence_from_here(lm), {lm.host, validation, 1}};
  mixbit::model<byte_lm::backend> model{
      lm.host, {.device = byte_lm::backend{lm.pool}, .linalg = mixbit::eigen_linalg{lm.pool}}};
  auto const list = every_format();
  lm_search s{model, among(list.formats)};
  s.run(score_window_steps(lm));
  double const searched = clock.next();
  std::vector<mixed_row> rows;
  for (double const bits : {3.5, 4.5, 5.0, 6.0, 8.0}) {
    auto const chosen = s.choose(bits);
    rows.push_back({bits, chosen, measure(lm, s, chosen, divergence), {}});
  }
  auto const alone = formats_alone(lm, s, divergence);
  double const measured_alone = clock.next();
  lm_search few{model, among(chosen_formats(s, rows))};
  refine(lm, few, rows, alone, unquantized, divergence, json);
  double const refined = clock.next();
  print(s, rows, json);
  print(alone, unquantized, json);
  std::printf(json ? "{\"groups\": %zu, \"candidates\": %zu, \"refined_among\": %zu, \"search_s\": %.1f, "
                     "\"choices_and_formats_s\": %.1f, \"refine_s\": %.1f}\n"
                   : "\n%zu groups, %zu candidates each, refined among %zu; search %.0f s, choices and formats %.0f s, "
                     "refinement %.0f s\n",
              s.stats().size(), s.stats().front().candidates.size(), few.stats().front().candidates.size(), searched,
              measured_alone, refined);
  for (auto const& repeat : list.repeats)
    std::printf(json ? "{\"repeat\": \"%s\"}\n" : "the same in all layers: %s\n", repeat.c_str());
}

}  // namespace bench
