#include "mixbit/report/markdown.hpp"

#include <doctest/doctest.h>

#include <locale>

#include "mixbit/autoquant/cost_model.hpp"
#include "support/error_text.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

/// Two groups of a search with one format, by hand.
candidate_stats two_groups() {
  std::string const label = "INT8_DEFAULT_CFG(effective-bits: 8.0)";
  auto const group = [&](std::string const& name, std::int64_t elements, double score) {
    group_stats g{name + ".quant_recipe", {name}, "", "", elements, {}};
    g.candidates.push_back({label, 0, score, {score / 2, score / 2}, 9 * elements});
    g.candidates.push_back({none_label, -1, 0, {0, 0}, 16 * elements});
    return g;
  };
  return {group("first", 123456, 0.5), group("second", 1024, 1234.5)};
}

quantization_plan planned(candidate_stats const& stats) {
  return make_plan(stats, {{stats[0].candidates[0].format, {}, 8.0}}, allocate(stats, 10.5), "exact");
}

/// A host that writes 1.234,5.
struct comma final : std::numpunct<char> {
  char do_decimal_point() const override { return ','; }
  char do_thousands_sep() const override { return '.'; }
  std::string do_grouping() const override { return "\3"; }
};
struct in_comma_locale {
  std::locale before = std::locale::global(std::locale{std::locale::classic(), new comma});
  ~in_comma_locale() { std::locale::global(before); }
};

}  // namespace

TEST_CASE("report: ranks groups and says what was chosen") {
  auto const stats = two_groups();
  auto const report = sensitivity_report(stats, planned(stats));
  CHECK(report.find("| target | 10.5 effective bits (exact cost) |") != std::string::npos);
  CHECK(report.find("| 1 | second | " + std::string{none_label} + " | 16.000 | 1.234e+03") != std::string::npos);
  CHECK(report.find("| 2 | first | " + stats[0].candidates[0].format + " | 9.000 | 5.000e-01") != std::string::npos);
}

TEST_CASE("report: limits of bytes and time are the target where they were given, and what they take is said") {
  auto const stats = two_groups();
  auto plan = planned(stats);
  plan.achieved.asked.max_bytes = 200000;
  plan.achieved.asked.max_nanoseconds = 12500;
  plan.achieved.stored_bits = 8 * 150000 - 3;
  plan.achieved.nanoseconds = 12250;
  auto report = sensitivity_report(stats, plan);
  CHECK(report.find("| target | 200000 bytes, 12.5 microseconds (exact cost) |") != report.npos);
  CHECK(report.find(" bits, 150000 bytes, 12.25 microseconds |") != report.npos);
  plan.achieved.asked.target = 10.5;
  report = sensitivity_report(stats, plan);
  CHECK(report.find("| target | 10.5 effective bits, 200000 bytes, 12.5 microseconds (exact cost) |") != report.npos);
}

TEST_CASE("report: a bar in a name does not end its cell, and a group without a choice has no rank") {
  auto stats = two_groups();
  stats[0].name = "a|b.quant_recipe";
  stats[0].modules = {"a|b"};
  stats[1].candidates.pop_back();
  auto const text = sensitivity_report(stats, planned(stats));
  CHECK(text.find("| 1 | a\\|b | ") != text.npos);
  CHECK(text.find("| a\\|b | INT8_DEFAULT_CFG(effective-bits: 8.0) | ") != text.npos);
  CHECK(text.find("| - | second | INT8_DEFAULT_CFG(effective-bits: 8.0) | 9.000 | - |") != text.npos);
}

TEST_CASE("report: a plan without its choice, as JSON gives it, is refused") {
  auto const stats = two_groups();
  auto plan = planned(stats);
  plan.achieved.choice.clear();
  CHECK(says(error_text(error_id::search_input, [&] { sensitivity_report(stats, plan); }), "0 group", "2"));
}

TEST_CASE("report: labels, numbers and messages are the same in every locale") {
  auto const stats = two_groups();
  auto const plan = planned(stats);
  auto const report = sensitivity_report(stats, plan, measured_loss{1.5, 1.625});
  in_comma_locale const other;
  CHECK(sensitivity_report(stats, plan, measured_loss{1.5, 1.625}) == report);
  CHECK(format_label("X", 4.5) == "X(effective-bits: 4.5)");
  CHECK(format_label("X", 4096) == "X(effective-bits: 4096.0)");
  CHECK(detail::concat(1234.5, ' ', 100000) == "1234.5 100000");
}
