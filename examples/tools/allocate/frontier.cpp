#include "frontier.hpp"

#include <algorithm>
#include <charconv>
#include <cstdint>

#include "mixbit/autoquant/candidate_stats.hpp"
#include "mixbit/config/strict_json.hpp"
#include "mixbit/core/error.hpp"

namespace allocate {

using namespace mixbit;

namespace {

/// The shortest decimal that reads back as the same number.
std::string shortest(double value) {
  char text[64];
  auto const [end, code] = std::to_chars(text, text + sizeof text, value);
  return code == std::errc{} ? std::string{text, end} : std::string{};
}

std::string quoted_for_csv(std::string_view text) {
  if (text.find_first_of(",\"\n") == text.npos) return std::string{text};
  std::string result = "\"";
  for (char const c : text) result += c == '"' ? std::string{"\"\""} : std::string{c};
  return result + "\"";
}

/// Those of points `first` to `last` - 1 that are shown: all, or the best within `most` budgets at equal distances.
std::vector<std::size_t> spaced(solver::pareto_frontier const& all, std::size_t first, std::size_t last,
                                std::size_t most) {
  std::vector<std::size_t> shown;
  if (last - first <= most) {
    for (std::size_t i = first; i < last; ++i) shown.push_back(i);
    return shown;
  }
  __extension__ using wide = __int128;
  std::int64_t const low = all.points()[first].cost, high = all.points()[last - 1].cost;
  for (std::size_t k = 0; k < most; ++k) {
    auto const above = static_cast<std::int64_t>(static_cast<wide>(high - low) * static_cast<wide>(k) /
                                                 static_cast<wide>(most - 1));
    std::size_t const i = all.find(low + above);
    if (shown.empty() || i > shown.back()) shown.push_back(i);
  }
  return shown;
}

}  // namespace

frontier frontier_of(options const& o, statistics const& stats) {
  solver::problem problem;
  std::vector<solver::candidate> group_of;
  for (group const& g : stats.groups) {
    group_of.clear();
    for (candidate const& c : g.candidates) group_of.push_back({c.score, c.cost});
    problem.add_group(group_of);
  }
  solver::frontier_limits limit;
  limit.seconds = o.limit.seconds;
  if (o.limit.memory) limit.bytes = static_cast<std::size_t>(*o.limit.memory);
  frontier result{solver::frontier(problem, limit), {}};
  auto const& points = result.all.points();
  auto const bits = [&](solver::frontier_point const& p) { return effective(stats, p.cost); };
  auto first = points.begin(), last = points.end();
  if (o.pareto_range) {
    first = std::partition_point(first, last, [&](auto const& p) { return bits(p) < o.pareto_range->first; });
    last = std::partition_point(first, last, [&](auto const& p) { return bits(p) <= o.pareto_range->second; });
    if (first == last)
      fail(error_id::search_infeasible, "--pareto-range ", shortest(o.pareto_range->first), ":",
           shortest(o.pareto_range->second), ": no choice lies there; ", points.size(), " do from ",
           shortest(bits(points.front())), " to ", shortest(bits(points.back())), " effective bits");
  }
  result.shown = spaced(result.all, static_cast<std::size_t>(first - points.begin()),
                        static_cast<std::size_t>(last - points.begin()), o.pareto_points);
  return result;
}

std::string frontier_summary(statistics const& stats, frontier const& f) {
  auto const bits = [&](std::size_t i) { return shortest(effective(stats, f.all.points()[i].cost)); };
  return "pareto  " + std::to_string(f.shown.size()) + " of " + std::to_string(f.all.points().size()) +
         " choices, from " + bits(f.shown.front()) + " to " + bits(f.shown.back()) + " bits an element, " +
         (f.all.exact() ? std::string{"exact"} : "scores at most " + shortest(f.all.gap()) + " above the least") + "\n";
}

void write_csv(statistics const& stats, frontier const& f, text_sink const& to) {
  std::string line = "effective_bits,bits,bytes,score,missed";
  for (group const& g : stats.groups) line += "," + quoted_for_csv(without_recipe_suffix(g.name));
  to(line + "\n");
  for (std::size_t const i : f.shown) {
    auto const& p = f.all.points()[i];
    double const bits = bits_of(stats, p.cost);
    line = shortest(effective(stats, p.cost)) + "," + shortest(bits) + "," + shortest(bits / 8) + "," +
           shortest(p.score) + "," + shortest(f.all.missed(i));
    auto const choice = f.all.choice(i);
    for (std::size_t g = 0; g < choice.size(); ++g) {
      candidate const& c = stats.groups[g].candidates[static_cast<std::size_t>(choice[g])];
      line += "," + quoted_for_csv(without_bits(c.format));
    }
    to(line + "\n");
  }
}

void write_json(statistics const& stats, frontier const& f, text_sink const& to) {
  json_document j;
  j["version"] = 1;
  j["gap"] = f.all.gap();
  j["of"] = f.all.points().size();
  auto& groups = j["groups"] = json_document::array();
  for (group const& g : stats.groups) {
    auto formats = json_document::array();
    for (candidate const& c : g.candidates) formats.push_back(c.format);
    groups.push_back({{"name", g.name}, {"formats", formats}});
  }
  std::string head = j.dump();
  head.pop_back();
  to(head + ",\"points\":[");  // `choice`: an index into each group's formats
  for (std::size_t k = 0; k < f.shown.size(); ++k) {
    std::size_t const i = f.shown[k];
    auto const& p = f.all.points()[i];
    json_document const point{{"effective_bits", effective(stats, p.cost)},
                              {"bits", bits_of(stats, p.cost)},
                              {"score", p.score},
                              {"missed", f.all.missed(i)},
                              {"choice", f.all.choice(i)}};
    to((k == 0 ? "\n" : ",\n") + point.dump());
  }
  to("]}\n");
}

}  // namespace allocate
