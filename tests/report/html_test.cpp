#include "mixbit/report/html.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "support/error_text.hpp"

namespace {

using namespace mixbit;
using namespace mixbit::test;

/// Three groups of a search with two formats; the names hold what markup is made of.
candidate_stats three_groups() {
  candidate_stats stats;
  for (auto const& [name, score] : {std::pair{"a<b>&\"c\"", 0.5}, {"layers.1.up", 1234.5}, {"layers.2.down", 0.0}}) {
    group_stats g{std::string{name} + ".quant_recipe", {name}, "", "", 1000, {}};
    g.candidates.push_back({"INT4<x>", 0, score, {score * 0.4, score * 0.6}, 4500});
    g.candidates.push_back({"INT8", 1, score / 16, {score / 32, score / 32}, 9000});
    g.candidates.push_back({none_label, -1, 0, {0, 0}, 16000});
    stats.push_back(g);
  }
  return stats;
}

quantization_plan planned(candidate_stats const& stats) {
  return make_plan(stats, {{"INT4<x>", {}, 4.0}, {"INT8", {}, 8.0}}, allocate(stats, 9.0), "exact", {"a <note>"});
}

std::string page_of(candidate_stats const& stats, std::optional<measured_loss> const& loss = {}) {
  return sensitivity_page(stats, planned(stats), pareto_points(stats), loss);
}

std::size_t count(std::string const& text, std::string const& what) {
  std::size_t n = 0;
  for (auto at = text.find(what); at != text.npos; at = text.find(what, at + what.size())) ++n;
  return n;
}

/// Every tag is closed in the order in which tags were opened. Returns what is wrong, or nothing.
std::string fault_of_tags(std::string const& page) {
  static std::set<std::string> const empty{"meta", "!doctype", "line", "polyline"};
  std::vector<std::string> open;
  for (std::size_t at = page.find('<'); at != page.npos; at = page.find('<', at + 1)) {
    bool const closes = page[at + 1] == '/';
    std::size_t const begin = at + 1 + closes;
    std::string const name = page.substr(begin, page.find_first_of(" >\n", begin) - begin);
    if (closes) {
      if (open.empty() || open.back() != name) return "</" + name + "> closes what is not the last tag";
      open.pop_back();
    } else if (!empty.contains(name)) {
      open.push_back(name);
      if (name == "style" || name == "script") at = page.find("</" + name, at) - 1;
    }
  }
  return open.empty() ? "" : open.back() + " stays open";
}

TEST_CASE("html report: one page, whole and without anything from elsewhere") {
  auto const page = page_of(three_groups(), measured_loss{1.25, 1.5});
  CHECK(page.starts_with("<!doctype html>"));
  CHECK(fault_of_tags(page) == "");
  for (char const* outside : {"http", "src=", "<link", "@import", "url("})
    CHECK_MESSAGE(page.find(outside) == std::string::npos, outside);
}

TEST_CASE("html report: what names hold does not become markup") {
  auto const page = page_of(three_groups());
  CHECK(page.find("a<b>") == std::string::npos);
  CHECK(page.find("INT4<x>") == std::string::npos);
  CHECK(page.find("a <note>") == std::string::npos);
  CHECK(count(page, "a&lt;b&gt;&amp;&quot;c&quot;") == 4);  // strip, bars, table, modules
  CHECK(page.find("<li>a &lt;note&gt;</li>") != std::string::npos);
}

TEST_CASE("html report: every group is in the strip, the bars and the table, in the colour of its format") {
  auto const stats = three_groups();
  auto const plan = planned(stats);
  CHECK(plan.achieved.choice == std::vector<int>{0, 2, 0});  // 4.5, 16, 4.5 bits
  auto const page = page_of(stats);
  auto const strip = page.substr(page.find("<div class=strip>"));
  CHECK(strip.substr(0, strip.find("</div>")) ==
        "<div class=strip><span title=\"a&lt;b&gt;&amp;&quot;c&quot;: INT4&lt;x&gt;\"><i class=f0></i>A</span>"
        "<span title=\"layers.1.up: NONE(effective-bits: 16.0)\"><i class=fn></i>-</span>"
        "<span title=\"layers.2.down: INT4&lt;x&gt;\"><i class=f0></i>A</span>");
  CHECK(count(page, "<span class=bar>") == 3);
  CHECK(page.find("style=\"width:100.00%\"") != std::string::npos);  // the largest
  CHECK(page.find("style=\"width:0.00%\"") != std::string::npos);    // a score of zero
  auto const table = page.substr(page.find("<table class=sortable>"));
  CHECK(count(table.substr(0, table.find("</table>")), "<tr>") == 4);
  CHECK(table.find("data-key=\"1.23450000000000000e+03\">1.234e+03 ± 2.469e+02<") != std::string::npos);
}

TEST_CASE("html report: thirty formats look different, each with a rule of style and a letter of its own") {
  candidate_stats stats;
  std::vector<search_format> formats;
  for (int f = 0; f < 30; ++f) {
    std::string const n = std::to_string(f);
    formats.push_back({"FORMAT" + n, {}, 8.0});
    stats.push_back({n + ".quant_recipe", {n}, "", "", 10, {{"FORMAT" + n, f, 1.0 + f, {}, 80}}});
  }
  auto const page = sensitivity_page(stats, make_plan(stats, formats, allocate(stats, 8.0), "exact"), {});
  CHECK(fault_of_tags(page) == "");
  std::set<std::string> looks, letters;
  auto const strip = page.substr(page.find("<div class=strip>"));
  for (auto at = strip.find("<i class="); at < strip.find("</div>"); at = strip.find("<i class=", at + 1)) {
    looks.insert(strip.substr(at, strip.find("</i>", at) - at));
    letters.insert(strip.substr(strip.find("</i>", at), strip.find("</span>", at) - strip.find("</i>", at)));
  }
  CHECK(looks.size() == 30);
  CHECK(letters.size() == 30);
  for (char const* const part : {"f0", "f7", "h1", "h2", "h3"})
    CHECK_MESSAGE(page.find("." + std::string{part} + " { background") != std::string::npos, part);
  for (char const* const key :
       {"<i class=\"f1 h1\"></i><b>J</b> FORMAT9<", "<i class=\"f4 h3\"></i><b>C2</b> FORMAT28<"})
    CHECK_MESSAGE(page.find(key) != std::string::npos, key);
}

TEST_CASE("html report: the choice lies on the frontier; prediction has an error, measurement a sign") {
  auto const stats = three_groups();
  auto const points = pareto_points(stats);
  auto const plan = planned(stats);
  bool on_it = false;
  for (auto const& p : points)
    on_it = on_it || (p.bits_per_element == plan.achieved.bits_per_element && p.score == plan.achieved.score);
  CHECK(on_it);
  CHECK(points.front().bits_per_element == 4.5);
  CHECK(points.back().score == 0.0);
  auto const page = page_of(stats, measured_loss{1.5, 1.25});
  CHECK(page.find("<td>5.000e-01 ± 1.000e-01</td>") != std::string::npos);
  CHECK(page.find("<td>-2.500e-01</td>") != std::string::npos);
  CHECK(count(page, "class=chosen") == 1);
  CHECK(page_of(stats).find("not measured") != std::string::npos);
}

TEST_CASE("html report: a curve of more points than are drawn goes right and down throughout") {
  std::vector<budget_point> points;
  for (int i = 0; i < 1499; ++i) points.push_back({4 + i / 100.0, std::exp2(-i / 100.0), 0});  // 3 a step, 1 at last
  allocation chosen;
  chosen.bits_per_element = 8;
  chosen.score = 1;
  std::string const svg = detail::html::curve(points, chosen);
  std::string rest = svg.substr(svg.find("points=\"") + 8);
  std::istringstream drawn{rest.substr(0, rest.find('"'))};
  double x = 0, y = 0, last_x = 0, last_y = 0;
  char comma = 0;
  int count_of = 0;
  while (drawn >> x >> comma >> y) {
    CHECK(x >= last_x);
    CHECK(y >= last_y);
    last_x = x;
    last_y = y;
    ++count_of;
  }
  CHECK(count_of > 900);
  CHECK(last_x == 708);
}

TEST_CASE("html report: without steps and with a single choice there is no NaN, infinity or division by zero") {
  candidate_stats one{{"only.quant_recipe", {"only"}, "", "", 10, {{"INT8", 0, 0.0, {}, 80}}}};
  auto const plan = make_plan(one, {{"INT8", {}, 8.0}}, allocate(one, 8.0), "exact");
  auto const page = sensitivity_page(one, plan, pareto_points(one));
  CHECK(fault_of_tags(page) == "");
  for (char const* bad : {"nan\"", ">nan", "nan%", " nan", "inf\"", ">inf", "inf%"})
    CHECK_MESSAGE(page.find(bad) == std::string::npos, bad);
  CHECK(count(sensitivity_page(one, plan, {}), "<svg") == 0);
}

TEST_CASE("html report: a plan without its choice is refused") {
  auto const stats = three_groups();
  auto plan = planned(stats);
  plan.achieved.choice.clear();
  CHECK(says(error_text(error_id::search_input, [&] { sensitivity_page(stats, plan, {}); }), "0 group", "3"));
}

}  // namespace
