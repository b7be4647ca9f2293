// Limits of bytes and time beside a target: the best choice within all, what is said where there is none, and a search
// that is given them.
#include "mixbit/autoquant/limits.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "mixbit/autoquant/json.hpp"
#include "mixbit/autoquant/refine.hpp"
#include "support/error_text.hpp"
#include "support/named_chain.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

/// Three formats a group of 1000 elements; the first group counts for a half where `weighted_first`.
candidate_stats timed(unsigned seed, bool weighted_first) {
  candidate_stats stats;
  for (unsigned g = 0; g < 6; ++g) {
    group_stats s;
    s.modules = {"g" + std::to_string(g)};
    s.name = with_recipe_suffix(s.modules[0]);
    s.elements = 1000;
    unsigned const mix = (g * 2654435761u) ^ (seed * 40503u);
    s.candidates = {{"A(effective-bits: 4.0)", 0, 9.0 + mix % 7, {}, 4000 + 8 * (mix % 5), 5000 + mix % 4000},
                    {"B(effective-bits: 8.0)", 1, 2.0 + mix % 3, {}, 8000, 2000 + mix % 7000},
                    {none_label, -1, 0, {}, 16000, 9000 - mix % 6000}};
    stats.push_back(std::move(s));
  }
  if (weighted_first) stats[0].weight = {1, 2};
  return stats;
}

/// The least score within the limits by trying every choice; empty: there is none.
std::optional<double> tried(candidate_stats const& stats, search_limits const& limits) {
  std::optional<double> best;
  for (int code = 0; code < 729; ++code) {
    allocation a;
    a.unit = cost_unit(stats);
    double score = 0;
    for (int g = 0, rest = code; g < 6; ++g, rest /= 3) {
      a.choice.push_back(rest % 3);
      score += stats[static_cast<std::size_t>(g)].candidates[static_cast<std::size_t>(rest % 3)].score;
    }
    detail::set_costs(stats, a);
    if (limits.target.given() && a.bits > limits.target.budget(weighted_elements(stats))) continue;
    if (limits.max_bytes && a.stored_bits > 8 * *limits.max_bytes) continue;
    if (limits.max_nanoseconds && a.nanoseconds > *limits.max_nanoseconds) continue;
    if (!best || score < *best) best = score;
  }
  return best;
}

template <class... Parts>
bool shows(std::string const& text, Parts const&... parts) {
  return (... && (text.find(parts) != std::string::npos));
}

latency_table table_of(double limit) {
  return {limit, {{"*", "INT4_BLOCKWISE_WEIGHT_ONLY_CFG", 4.0}, {"*", "INT8_DEFAULT_CFG", 2.5}, {"*", "NONE", 8.0}}};
}

named_chain two_layers() { return named_chain{{"0.up_proj", "1.up_proj"}}; }

search_options options_with(search_limits const& limits, std::optional<latency_table> table) {
  search_options o{.formats = {preset("INT4_BLOCKWISE_WEIGHT_ONLY_CFG"), preset("INT8_DEFAULT_CFG")}};
  o.target = limits.target;
  o.max_bytes = limits.max_bytes;
  o.latency = std::move(table);
  return o;
}

}  // namespace

TEST_CASE("limits: the best choice within all of them is that of trying every choice") {
  int met = 0, missed = 0;
  for (unsigned seed = 0; seed < 40; ++seed)
    for (bool const weighted_first : {false, true}) {
      auto const stats = timed(seed, weighted_first);
      auto const in_time = 12000 + 1500 * (seed % 12);
      for (search_limits const& limits :
           {search_limits{6.5}, search_limits{{}, 5000}, search_limits{{}, {}, in_time}, search_limits{7.0, 5500},
            search_limits{9.0, {}, in_time}, search_limits{{}, 6000, in_time}, search_limits{8.5, 6200, in_time}}) {
        auto const best = tried(stats, limits);
        if (!best) {
          CHECK_THROWS_AS(allocate(stats, limits), error);
          CHECK_THROWS_AS(require_feasible(stats, limits), error);
          ++missed;
          continue;
        }
        auto const a = allocate(stats, limits);
        CHECK(a.score == *best);
        CHECK(a.optimal);
        CHECK(a.bits <= a.budget);
        if (limits.max_bytes) CHECK(a.stored_bits <= 8 * *limits.max_bytes);
        if (limits.max_nanoseconds) CHECK(a.nanoseconds <= *limits.max_nanoseconds);
        ++met;
      }
    }
  CHECK(met > 100);
  CHECK(missed > 20);
}

TEST_CASE("limits: a target alone is chosen as allocate() of a target chooses") {
  auto const stats = timed(3, true);
  auto const one = allocate(stats, effective_bits{6.25}), other = allocate(stats, search_limits{6.25});
  CHECK(one.choice == other.choice);
  CHECK(one.bits == other.bits);
  CHECK(one.budget == other.budget);
  CHECK(one.target_bits == other.target_bits);
}

TEST_CASE("limits: bytes are of all that is stored, whatever part of it counts") {
  auto stats = timed(0, true);
  auto const all = allocate(stats, search_limits{16.0});
  CHECK(all.stored_bits == 6 * 16000);
  CHECK(all.bits == 2 * 5 * 16000 + 16000);  // in halves
  CHECK(says(error_text(error_id::search_infeasible, [&] { allocate(stats, search_limits{{}, 2999}); }),
             "a max_bytes of 2999 cannot be met: 30", "to 12000 bytes can be reached", "alone needs 50"));
}

TEST_CASE("limits: what cannot be met is said with the range of each, before any forward") {
  auto const stats = timed(1, false);
  CHECK(says(error_text(error_id::search_input, [&] { require_feasible(stats, search_limits{}); }), "a search needs"));
  CHECK(says(error_text(error_id::search_infeasible, [&] { require_feasible(stats, search_limits{3.0, 9000, 1}); }),
             "a target of 3 effective bits", "beside it a max_bytes of 9000: 30", "to 12000 bytes",
             "beside it a latency limit of 0.001 microseconds: "));
  CHECK(says(error_text(error_id::search_infeasible, [&] { require_feasible(stats, search_limits{{}, {}, 1234}); }),
             "a latency limit of 1.234 microseconds cannot be met: ", "microseconds can be reached",
             "quant_recipe alone needs"));
  candidate_stats opposed{stats[0]};
  opposed[0].candidates = {{"A", 0, 1, {}, 4000, 9000}, {"B", 1, 1, {}, 8000, 1000}};
  CHECK(says(error_text(error_id::search_infeasible, [&] { require_feasible(opposed, search_limits{5.0, {}, 2000}); }),
             "a target of 5 effective bits (4 to 8 bits can be reached) and a latency limit of 2 microseconds "
             "(1 to 9 microseconds can be reached) can be met each alone but not together; g0.quant_recipe"));
}

TEST_CASE("limits: a search plans with times, drops what is not allowed, and its plan says what was achieved") {
  auto net = two_layers();
  model<cpu_backend> m{net};
  auto table = table_of(5.0);
  table.entries.push_back({"1.up_proj", "INT4_BLOCKWISE_WEIGHT_ONLY_CFG(effective-bits: 4.0)", std::nullopt});
  table.entries.push_back({"1.up_proj.quant_recipe", "INT8_DEFAULT_CFG", 1.0001});
  table.entries.push_back({"1.up_proj", "NONE", 30.0});
  search<cpu_backend> s{m, options_with({{}, 2400}, table)};
  CHECK(s.stats()[0].candidates[0].nanoseconds == 4000);
  CHECK(formats_of(s.stats()[1]) == std::vector<std::string>{"INT8_DEFAULT_CFG", "NONE"});
  CHECK(s.stats()[1].candidates[0].nanoseconds == 1001);  // rounded up
  auto const text = to_text(s.resolved(2, 2));
  CHECK(shows(text, "limit: a max_bytes of 2400; ", "limit: a latency limit of 5 microseconds; 3.501 to 38",
              " an element, 1.001 microseconds", "bits an element that can be reached"));
  s.run(net.steps());
  auto const chosen = s.choose();
  CHECK(chosen.choice == std::vector<int>{1, 0});  // INT8 alone is within 5 microseconds there
  auto const j = to_json(s.plan(chosen));
  CHECK(j["constraints"].dump() == R"({"max_bytes":2400,"max_microseconds":5.0})");
  CHECK(j["achieved"]["microseconds"] == 3.501);
  CHECK(j["achieved"]["stored_bytes"] == static_cast<double>(chosen.stored_bits) / 8);
  CHECK(manifest_json(s.stats(), s.plan(chosen))["autoquant_state"]["constraints"] == j["constraints"]);
  CHECK(plan_from_json(j, "p").recipe == s.plan(chosen).recipe);
  CHECK(to_json(s.stats())["1.up_proj.quant_recipe"]["microseconds"].dump() == "[1.001,30.0]");
  CHECK(says(error_text(error_id::search_infeasible, [&] { (void)s.choose(4.0); }), "4 effective bits"));
  CHECK(s.choose(search_limits{16.0}).choice == std::vector<int>{2, 1});
}

TEST_CASE("limits: refinement stays within the time of its choice") {
  auto net = two_layers();
  model<cpu_backend> m{net};
  search<cpu_backend> s{m, options_with({16.0}, table_of(10.5))};  // one layer may stay unquantized
  auto const steps = net.steps();
  s.run(steps);
  auto const refined = refine(s, s.choose(), steps, [&] { return 1.0 * s.stats().size(); }, {.rounds = 2});
  CHECK_FALSE(refined.attempts.empty());
  for (auto const& a : refined.attempts) CHECK(a.choice.nanoseconds <= 10500);
  auto over = s.choose(search_limits{16.0});
  over.asked = s.limits();
  CHECK(says(error_text(error_id::search_input, [&] { (void)refine(s, over, steps, [] { return 1.0; }, {}); }),
             "costs 16000, over its budget of 10500 nanoseconds"));
}

TEST_CASE("limits: a table's mistakes are named") {
  auto net = two_layers();
  model<cpu_backend> m{net};
  auto const refused = [&](error_id id, latency_table const& table) {
    return error_text(id, [&] { search<cpu_backend>{m, options_with({16.0}, table)}; });
  };
  auto table = table_of(50);
  table.entries.pop_back();
  CHECK(says(refused(error_id::config_no_match, table), "latency: has no entry for NONE(effective-bits: 16.0) of 0."));
  table = table_of(50);
  table.entries.push_back({"2.up_proj", "NONE", 1.0});
  CHECK(says(refused(error_id::config_no_match, table), "latency.2.up_proj.NONE: matches no group and format"));
  table = table_of(50);
  table.entries.push_back({"*", "NONE", 1.0, "line 7"});
  CHECK(says(refused(error_id::state_duplicate, table), "line 7: is a second entry for NONE"));
  table = table_of(50);
  for (auto& e : table.entries) e.microseconds.reset();
  CHECK(says(refused(error_id::config_conflict, table), "latency: allows no format of 0.up_proj.quant_recipe"));
  table = table_of(50);
  table.entries[0].microseconds.reset();
  CHECK(says(refused(error_id::config_no_match, table), "latency: allows INT4_BLOCKWISE_WEIGHT_ONLY_CFG in no group"));
  table = table_of(-1);
  CHECK(says(refused(error_id::config_value, table), "latency: limit: must be microseconds from 0 to 1e12, got -1"));
  auto o = options_with({{}, 0}, std::nullopt);
  CHECK(says(error_text(error_id::config_value, [&] { search<cpu_backend>{m, o}; }), "search_options.max_bytes is 0"));
  o.max_bytes = (std::int64_t{1} << 50) + 1;
  CHECK(says(error_text(error_id::config_value, [&] { search<cpu_backend>{m, o}; }), "is 1125899906842625; it is"));
}

TEST_CASE("limits: microseconds that are whole nanoseconds are no other number of them") {
  for (std::int64_t n = 0; n < 20000; ++n) {
    double const microseconds = static_cast<double>(n) / 1000;
    latency_table const table{microseconds, {{"*", "INT8", microseconds}}};
    latency_lookup times{table};
    REQUIRE(times.limit() == n);
    REQUIRE(times.of("a", "INT8") == n);
  }
  latency_table const table{1.0009, {{"*", "INT8", 1.0001}}};
  latency_lookup times{table};
  CHECK(times.limit() == 1000);
  CHECK(times.of("a", "INT8") == 1001);
}

TEST_CASE("limits: a limit of time needs times") {
  group_stats g{"a.quant_recipe", {"a"}, "", "", 100, {}};
  g.candidates.push_back({"INT8", 0, 1.0, {}, 800});
  CHECK(says(error_text(error_id::search_input,
                        [&] { (void)allocate({g}, search_limits{{}, std::nullopt, std::int64_t{5}}); }),
             "a.quant_recipe: INT8 has no time"));
}
