#include "output.hpp"

#include <algorithm>
#include <cstdio>
#include <set>
#include <vector>

#include "mixbit/autoquant/candidate_stats.hpp"
#include "mixbit/config/presets.hpp"
#include "mixbit/config/strict_json.hpp"
#include "mixbit/core/error.hpp"
#include "mixbit/core/quoted.hpp"

namespace allocate {

using namespace mixbit;

namespace {

template <class... Values>
std::string line(char const* format, Values... values) {
  char text[512];
  int const length = std::snprintf(text, sizeof text, format, values...);
  return {text, std::min<std::size_t>(static_cast<std::size_t>(std::max(length, 0)), sizeof text - 1)};
}

candidate const& chosen_of(statistics const& stats, choice const& c, std::size_t g) {
  return stats.groups[g].candidates[static_cast<std::size_t>(c.of_group[g])];
}

std::string proof_of(choice const& c, bool minimax) {
  std::string text = line("score   %.9g, bound %.9g, gap %.3g: ", c.score, c.bound, c.gap);
  text += c.gap == 0 ? "proved optimal" : "the best found within the limits";
  text += minimax ? " among the choices of this worst score\n" : "\n";
  if (!minimax) return text;
  bool const proved = c.largest == c.largest_bound;
  return line("worst   %.9g, bound %.9g: ", c.largest, c.largest_bound) +
         (proved ? "proved least\n" : "the least found within the limits\n") + text;
}

/// The config that comes with the statistics or that a format's label names.
search_format format_of(statistics const& stats, group const& g, candidate const& c) {
  double const bits = g.elements > 0 ? bits_of(stats, c.cost) / g.elements : 16;
  double const nominal = bits > 0 ? bits : 16;
  if (auto const at = stats.configs.find(c.format); at != stats.configs.end()) return {c.format, at->second, nominal};
  std::string const name{without_bits(c.format)};
  auto const names = preset_names();
  bool const known = std::any_of(names.begin(), names.end(), [&](std::string_view n) {
    return n == name || preset_full_name(n) == name;
  });
  if (!known)
    fail(error_id::search_plan, "--out: ", in_quotes(stats.file), ": ", g.name, ".formats: '", c.format,
         "' is no preset, and no group's 'configs' has its config");
  return {c.format, preset(name), nominal};
}

}  // namespace

std::string table_of(statistics const& stats, budgets const& given, choice const& c, bool minimax) {
  std::size_t width = 5;
  for (group const& g : stats.groups) width = std::max(width, without_recipe_suffix(g.name).size());
  std::string text = line("%-*s  %12s  %9s  %12s  %s\n", static_cast<int>(width), "group", "elements", "bits", "score",
                          "format");
  for (std::size_t g = 0; g < stats.groups.size(); ++g) {
    group const& of = stats.groups[g];
    candidate const& chosen = chosen_of(stats, c, g);
    std::string name{without_recipe_suffix(of.name)};
    name.resize(width, ' ');
    text += name + line("  %12.0f  %9.4g  %12.6g  ", of.elements,
                        of.elements > 0 ? bits_of(stats, chosen.cost) / of.elements : 0, chosen.score) +
            std::string{without_bits(chosen.format)} + "\n";
  }
  text += line("\nbits    %.6f an element, %.17g in all, %.17g bytes", effective(stats, c.cost), bits_of(stats, c.cost),
               bits_of(stats, c.cost) / 8);
  if (given.cost) text += line(" of at most %.17g bits", bits_of(stats, *given.cost));
  text += stats.rounded ? " (costs rounded up to 2^-16 of a bit)\n" : "\n";
  if (given.nanoseconds)
    text += line("time    %.17g microseconds of at most %.17g\n", static_cast<double>(c.nanoseconds) / 1e3,
                 static_cast<double>(*given.nanoseconds) / 1e3);
  text += proof_of(c, minimax);
  text += stats.raw ? "scores  raw_scores: as measured" : "scores  scores: what the search chose by";
  return text + (stats.rewritten ? ", which are others\n" : "\n");
}

quantization_plan plan_of(statistics const& stats, options const& o, budgets const& given, choice const& c) {
  quantization_plan plan;
  plan.cost_model = "of the statistics";
  std::set<std::string> held;
  for (std::size_t g = 0; g < stats.groups.size(); ++g) {
    group const& of = stats.groups[g];
    if (of.modules.empty())
      fail(error_id::search_plan, "--out: ", in_quotes(stats.file), ": ", of.name, " needs 'module_names' for a plan");
    candidate const& chosen = chosen_of(stats, c, g);
    bool const none = without_bits(chosen.format) == "NONE";
    std::string const label = none ? none_label : chosen.format;
    if (!none && held.insert(label).second) plan.formats.push_back(format_of(stats, of, chosen));
    plan.recipe.emplace_back(with_recipe_suffix(of.modules.front()), label);
    for (std::string const& m : of.modules) plan.modules.push_back({m, label, "allocated from statistics"});
  }
  std::int64_t const units = stats.units;
  std::int64_t const budget = given.cost.value_or(c.cost);
  plan.achieved = {c.of_group, (c.cost + units - 1) / units, budget / units, c.score, c.bound, c.gap, c.optimal,
                   effective(stats, c.cost), o.target ? o.target->value() : effective(stats, budget)};
  auto& made = plan.achieved;
  if (o.target) made.asked.target = *o.target;
  made.asked.max_bytes = o.max_bytes;
  made.asked.max_nanoseconds = given.nanoseconds;
  made.stored_bits = made.bits;
  made.nanoseconds = c.nanoseconds;
  return plan;
}

}  // namespace allocate
