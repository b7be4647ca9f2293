// What report/html.hpp puts its page together from: text made safe, scales, the frontier's curve, style and script.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mixbit/autoquant/frontier.hpp"
#include "mixbit/report/text.hpp"

namespace mixbit::detail::html {

/// Names come from models and files: none of them may become markup.
inline std::string escaped(std::string_view text) {
  std::string safe;
  for (char const c : text) {
    if (c == '&') safe += "&amp;";
    else if (c == '<') safe += "&lt;";
    else if (c == '>') safe += "&gt;";
    else if (c == '"') safe += "&quot;";
    else safe += c;
  }
  return safe;
}

/// Positions of values of any size on a logarithmic axis, in percent: the least positive one at 4, the largest at 100,
/// zero at 0. No more than 12 decades are told apart.
class log_scale {
 public:
  explicit log_scale(std::span<double const> values) {
    for (double const v : values)
      if (std::isfinite(v) && v > 0) {
        high_ = any_ ? std::max(high_, std::log10(v)) : std::log10(v);
        low_ = any_ ? std::min(low_, std::log10(v)) : std::log10(v);
        any_ = true;
      }
    low_ = std::max(low_, high_ - 12);
  }
  double percent(double value) const {
    if (!any_ || !(value > 0)) return 0;
    if (!std::isfinite(value)) return 100;
    double const part = high_ > low_ ? (std::log10(value) - low_) / (high_ - low_) : 1;
    return std::clamp(4 + 96 * part, 0.0, 100.0);
  }
  double low() const { return low_; }
  double high() const { return high_; }

 private:
  bool any_ = false;
  double low_ = 0, high_ = 0;
};

inline constexpr std::size_t colours = 8, hatches = 4;

/// The classes of the n-th format: of colours repeats a hatch tells one from the other, up to 32 formats.
inline std::string look_of(std::size_t n) {
  std::string const colour = "f" + std::to_string(n % colours);
  std::size_t const hatch = n / colours % hatches;
  return hatch == 0 ? colour : "\"" + colour + " h" + std::to_string(hatch) + "\"";
}

/// What stands for it where colours do not: on paper without them, and to eyes that do not tell them apart.
inline std::string letter_of(std::size_t n) {
  return std::string(1, static_cast<char>('A' + n % 26)) + (n < 26 ? "" : std::to_string(n / 26 + 1));
}

/// At most this many points of a frontier are drawn; more cannot be told apart.
inline constexpr std::size_t most_drawn = 600;

/// The frontier as SVG: bits an element to the right, scores up on a logarithmic axis, the choice ringed.
inline std::string curve(std::span<budget_point const> points, allocation const& chosen) {
  constexpr double left = 84, right = 708, top = 16, bottom = 300;
  std::vector<double> scores;
  for (auto const& p : points) scores.push_back(p.score);
  scores.push_back(chosen.score);
  log_scale const scale{scores};
  double const least = points.front().bits_per_element, most = points.back().bits_per_element;
  double const width = most > least ? most - least : 1;
  auto const x = [&](double bits) { return decimals(left + (right - left) * (bits - least) / width, 2); };
  auto const y = [&](double score) { return decimals(bottom - (bottom - top) * scale.percent(score) / 100, 2); };
  std::string svg = "<svg viewBox=\"0 0 736 346\" role=img aria-label=\"Pareto frontier of bits and score\">\n";
  for (int i = 0; i <= 4; ++i) {
    double const bits = least + width * i / 4;
    svg += concat("<line class=grid x1=", x(bits), " x2=", x(bits), " y1=16 y2=300 /><text x=", x(bits),
                  " y=318 text-anchor=middle>", decimals(bits, 2), "</text>\n");
  }
  for (int i = 0; i <= 3; ++i) {
    double const score = std::pow(10.0, scale.low() + (scale.high() - scale.low()) * i / 3);
    svg += concat("<line class=grid x1=84 x2=708 y1=", y(score), " y2=", y(score), " /><text x=78 y=", y(score),
                  " text-anchor=end dominant-baseline=middle>", scientific(score), "</text>\n");
  }
  svg += "<polyline points=\"";
  std::size_t const stride = (points.size() + most_drawn - 1) / most_drawn;
  std::size_t const last = points.size() - 1;  // is drawn whatever the stride
  for (std::size_t before = 0, i = 0; i <= last; before = i, i = i == last ? i + 1 : std::min(i + stride, last)) {
    if (i > 0) svg += concat(x(points[i].bits_per_element), ",", y(points[before].score), " ");
    svg += concat(x(points[i].bits_per_element), ",", y(points[i].score), " ");
  }
  svg += concat("\" />\n<circle class=chosen r=7 cx=", x(std::clamp(chosen.bits_per_element, least, most)), " cy=",
                y(chosen.score), "><title>", decimals(chosen.bits_per_element, 4), " bits, score ",
                scientific(chosen.score), "</title></circle>\n");
  return svg + "<text x=396 y=340 text-anchor=middle>effective bits</text>\n</svg>";
}

inline constexpr char const* page_head = R"html(<!doctype html>
<html lang=en>
<head>
<meta charset=utf-8>
<meta name=viewport content="width=device-width, initial-scale=1">
<title>Layer sensitivity</title>
<style>
:root { color-scheme: light dark; --back: #fff; --text: #1b1f24; --soft: #57606a; --line: #d0d7de; --panel: #f6f8fa;
  --f0: #0072b2; --f1: #e69f00; --f2: #009e73; --f3: #cc79a7; --f4: #56b4e9; --f5: #d55e00; --f6: #7a5cc2;
  --f7: #8c7000; --fn: #afb8c1; }
@media (prefers-color-scheme: dark) { :root { --back: #0d1117; --text: #e6edf3; --soft: #9198a1; --line: #3d444d;
  --panel: #151b23; --f0: #4fa8dc; --f1: #f0b429; --f2: #2fc79b; --f3: #e39cc2; --f4: #8fd0f5; --f5: #f0833a;
  --f6: #a78bfa; --f7: #cbb132; --fn: #59636e; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 20px 16px 48px; background: var(--back); color: var(--text);
  font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 24px; margin: 8px 0 16px; } h2 { font-size: 18px; margin: 32px 0 8px; }
.note, small, .legend { color: var(--soft); font-size: 13px; }
.tiles { display: grid; gap: 12px; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); }
.tile { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: 12px 14px; }
.tile span { color: var(--soft); display: block; font-size: 13px; }
.tile b { display: block; font-size: 21px; font-variant-numeric: tabular-nums; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 16px; margin: 0 0 8px; }
.legend span { overflow-wrap: anywhere; }
.legend i, td i { border-radius: 2px; display: inline-block; height: 15px; margin-right: 6px; vertical-align: -2px;
  width: 15px; }
.legend b { color: var(--text); }
.strip { display: grid; gap: 3px 2px; grid-template-columns: repeat(auto-fit, minmax(12px, 1fr)); }
.strip span { color: var(--soft); font-size: 11px; line-height: 14px; text-align: center; }
.strip i { border-radius: 2px; display: block; height: 34px; }
.bars { align-items: center; display: grid; font-size: 13px; gap: 3px 10px;
  grid-template-columns: minmax(90px, max-content) 1fr max-content; }
.bars .name { overflow-wrap: anywhere; } .bars .value { font-variant-numeric: tabular-nums; text-align: right; }
.bar { background: var(--panel); border-radius: 3px; height: 15px; position: relative; }
.bar i { border-radius: 3px; display: block; height: 100%; min-width: 2px; }
.bar u { background: var(--text); height: 1px; position: absolute; top: 7px; }
.f0 { background: var(--f0); } .f1 { background: var(--f1); } .f2 { background: var(--f2); }
.f3 { background: var(--f3); } .f4 { background: var(--f4); } .f5 { background: var(--f5); }
.f6 { background: var(--f6); } .f7 { background: var(--f7); } .fn { background: var(--fn); }
.h1 { background-image: repeating-linear-gradient(45deg, transparent 0 3px, var(--back) 3px 5px); }
.h2 { background-image: radial-gradient(circle, var(--back) 1.4px, transparent 1.9px); background-size: 5px 5px; }
.h3 { background-image: repeating-linear-gradient(0deg, transparent 0 3px, var(--back) 3px 5px); }
.wide { overflow-x: auto; }
svg { display: block; max-width: 900px; min-width: 560px; width: 100%; }
svg text { fill: var(--soft); font-size: 12px; } svg polyline { fill: none; stroke: var(--f0); stroke-width: 2; }
.grid { stroke: var(--line); } .chosen { fill: none; stroke: var(--f5); stroke-width: 3; }
table { border-collapse: collapse; font-size: 13px; width: 100%; } table.small { width: auto; }
th, td { border-bottom: 1px solid var(--line); padding: 5px 8px; text-align: left; vertical-align: top; }
td { overflow-wrap: anywhere; } .sortable td { white-space: nowrap; }
.n { font-variant-numeric: tabular-nums; text-align: right; } thead th { vertical-align: bottom; }
th button { all: unset; cursor: pointer; display: inline-block; max-width: 150px; overflow-wrap: break-word; }
th button:focus-visible { outline: 2px solid var(--f0); }
th[aria-sort=ascending] button::after { content: " \2191"; }
th[aria-sort=descending] button::after { content: " \2193"; }
details { margin-top: 24px; } summary { cursor: pointer; }
@media (max-width: 560px) { .bars { grid-template-columns: 1fr max-content; } .bars .name { grid-column: 1 / 3; } }
@media print { body { max-width: none; } .wide { overflow: visible; } svg { min-width: 0; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
</style>
</head>
<body>
)html";

/// Sorting by a click on a head: by data-key where cells have one, empty ones last; else by text.
inline constexpr char const* page_tail = R"html(<script>
for (const button of document.querySelectorAll("table.sortable th button"))
  button.addEventListener("click", () => {
    const head = button.parentElement, body = head.closest("table").tBodies[0], column = head.cellIndex;
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const compare = (a, b) => {
      const left = a.cells[column], right = b.cells[column];
      if (!("key" in left.dataset)) return (up ? 1 : -1) * left.textContent.localeCompare(right.textContent);
      if (left.dataset.key === "" || right.dataset.key === "")
        return (left.dataset.key === "") - (right.dataset.key === "");
      return (up ? 1 : -1) * (left.dataset.key - right.dataset.key);
    };
    body.append(...[...body.rows].sort(compare));
  });
</script>
</body>
</html>
)html";

}  // namespace mixbit::detail::html
