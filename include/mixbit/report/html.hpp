// report.html: what a search found, as one page that needs nothing beside itself: no script, font or picture from
// elsewhere. It shows the choice and what it cost, every group's sensitivity with its standard error, the formats over
// the model's depth, the Pareto frontier with the choice on it, prediction beside measurement, and a table that sorts
// by a click on its heads. Light and dark as the reader's system has it; printable; 400 pixels of width are enough.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mixbit/autoquant/frontier.hpp"
#include "mixbit/autoquant/plan.hpp"
#include "mixbit/autoquant/rank_stability.hpp"
#include "mixbit/report/html_parts.hpp"
#include "mixbit/report/text.hpp"

namespace mixbit {

namespace detail::html {

/// Writes one page; holds on to what it is given.
class page {
 public:
  page(candidate_stats const& stats, quantization_plan const& plan, std::span<budget_point const> frontier,
       std::optional<measured_loss> const& loss)
      : stats_{stats}, plan_{plan}, frontier_{frontier}, loss_{loss} {
    for (auto const& f : plan.formats) formats_.push_back(f.label);
    for (auto const& g : stats)
      for (auto const& c : g.candidates)
        if (c.recipe >= 0 && std::find(formats_.begin(), formats_.end(), c.format) == formats_.end())
          formats_.push_back(c.format);
  }

  std::string write() {
    out_ = page_head;
    summary();
    strip();
    sensitivities();
    pareto();
    prediction();
    table();
    modules();
    out_ += page_tail;
    return std::move(out_);
  }

 private:
  candidate_stat const& chosen(std::size_t g) const {
    return stats_[g].candidates[static_cast<std::size_t>(plan_.achieved.choice[g])];
  }

  std::size_t number(candidate_stat const& c) const {
    return static_cast<std::size_t>(std::find(formats_.begin(), formats_.end(), c.format) - formats_.begin());
  }
  std::string colour(candidate_stat const& c) const { return c.recipe < 0 ? "fn" : look_of(number(c)); }
  std::string letter(candidate_stat const& c) const { return c.recipe < 0 ? "-" : letter_of(number(c)); }

  template <class... Parts>
  void put(Parts const&... parts) {
    out_ += concat(parts...);
  }

  void tile(char const* name, std::string const& value, std::string const& more) {
    put("<div class=tile><span>", name, "</span><b>", escaped(value), "</b><small>", escaped(more), "</small></div>\n");
  }

  void summary() {
    auto const& a = plan_.achieved;
    auto const range = reachable(stats_);
    auto const elements = weighted_elements(stats_), unit = cost_unit(stats_);
    put("<h1>Layer sensitivity and chosen formats</h1>\n<section class=tiles>\n");
    tile("effective bits", decimals(a.bits_per_element, 4),
         concat("asked for: ", asked_text(a), taken_text(a, "; takes "), "; ", plan_.cost_model, " cost; ",
                decimals(bits_per_element(range.minimum, elements), 3), " to ",
                decimals(bits_per_element(range.maximum, elements), 3), " can be reached"));
    tile("total score", scientific(a.score), a.optimal ? "proven least" : "gap " + scientific(a.gap));
    tile("weights", bits_text(a.bits, unit) + " bits",
         concat(total_elements(stats_), " elements in ", stats_.size(), " groups"));
    if (loss_)
      tile("measured loss", decimals(loss_->quantized, 6), decimals(loss_->unquantized, 6) + " unquantized");
    put("</section>\n");
  }

  void legend() {
    put("<p class=legend>");
    for (std::size_t f = 0; f < formats_.size(); ++f)
      put("<span><i class=", look_of(f), "></i><b>", letter_of(f), "</b> ", escaped(formats_[f]), "</span>");
    put("<span><i class=fn></i><b>-</b> not quantized</span></p>\n");
  }

  void strip() {
    put("<h2>Formats over depth</h2>\n");
    legend();
    put("<div class=strip>");
    for (std::size_t g = 0; g < stats_.size(); ++g)
      put("<span title=\"", escaped(group_name(stats_[g])), ": ", escaped(chosen(g).format), "\"><i class=",
          colour(chosen(g)), "></i>", letter(chosen(g)), "</span>");
    put("</div>\n<p class=note>A cell a group, in the model's order, with its format's letter.</p>\n");
  }

  /// Bars on a logarithmic scale, as scores differ by orders of magnitude; a thin line spans one standard error.
  void sensitivities() {
    std::vector<double> values;
    for (auto const& g : stats_)
      if (g.is_open()) values.push_back(std::abs(sensitivity(g)));
    log_scale const scale{values};
    put("<h2>Sensitivity by layer</h2>\n<p class=note>Score of the format of the fewest nominal bits, ",
        escaped(score_text(plan_.method)), "; logarithmic scale, the line is one standard error to both sides.</p>\n",
        "<div class=bars>\n");
    for (std::size_t g = 0; g < stats_.size(); ++g) {
      bool const scored_at_all = stats_[g].is_open();  // else nothing is known of it, and no bar is drawn
      double const s = scored_at_all ? std::abs(sensitivity(stats_[g])) : 0.0, e = error_of(g);
      put("<span class=name>", escaped(group_name(stats_[g])), "</span><span class=bar><i class=", colour(chosen(g)),
          " style=\"width:", decimals(scale.percent(s), 2), "%\"></i>");
      if (std::isfinite(e) && e > 0) {
        double const from = scale.percent(std::max(s - e, 0.0)), to = scale.percent(s + e);
        put("<u style=\"left:", decimals(from, 2), "%;width:", decimals(to - from, 2), "%\"></u>");
      }
      put("</span><span class=value>", scored_at_all ? scientific(sensitivity(stats_[g])) : "-", "</span>\n");
    }
    put("</div>\n");
  }

  double error_of(std::size_t g) const {
    return stats_[g].is_open() ? stats_[g].candidates.front().standard_error() : std::nan("");
  }

  void pareto() {
    if (frontier_.empty()) return;
    put("<h2>Pareto frontier</h2>\n<div class=wide>", curve(frontier_, plan_.achieved), "</div>\n");
    double missed = 0;
    for (auto const& p : frontier_) missed = std::max(missed, p.missed);
    put("<p class=note>Least total score for every budget, ", frontier_.size(), " choices",
        missed == 0 ? std::string{", exact"} : ", to within " + scientific(missed),
        "; the ring is the choice made.</p>\n");
  }

  void prediction() {
    put("<h2>Predicted and measured</h2>\n<table class=small><tbody>\n",
        "<tr><th scope=row>predicted: sum of scores</th><td>", scored(chosen_sum()),
        "</td></tr>\n<tr><th scope=row>measured: change of the loss</th><td>",
        loss_ ? scientific(loss_->quantized - loss_->unquantized) : std::string{"not measured"},
        "</td></tr>\n</tbody></table>\n<p class=note>",
        plan_.method == "degradation" ? "Both are in the metric's unit if the loss is the metric; scores add up over "
                                        "groups as if groups did not interact."
                                      : "Scores rank formats and groups against each other and add up as if groups did "
                                        "not interact; they are not in the loss's unit.",
        "</p>\n");
  }

  /// The chosen scores' sum, with its steps, for groups err together; without steps where groups have not as many.
  candidate_stat chosen_sum() const {
    candidate_stat sum;
    bool comparable = true;
    for (std::size_t g = 0; g < stats_.size(); ++g) {
      auto const& c = chosen(g);
      if (c.recipe < 0) continue;
      if (sum.by_step.empty()) sum.by_step.resize(c.by_step.size());
      comparable = comparable && sum.by_step.size() == c.by_step.size();
      for (std::size_t t = 0; comparable && t < c.by_step.size(); ++t) sum.by_step[t] += c.by_step[t];
      sum.score += c.score;
    }
    if (!comparable) sum.by_step.clear();
    return sum;
  }

  void head_cell(std::string const& text, bool is_number) {
    put("<th scope=col", is_number ? " class=n" : "", "><button type=button>", escaped(text), "</button></th>");
  }
  /// `key` is what the column sorts by.
  void number_cell(double key, std::string const& text) {
    put("<td class=n data-key=\"", std::isfinite(key) ? written(key, std::chars_format::scientific, 17) : std::string{},
        "\">", escaped(text), "</td>");
  }

  void table() {
    put("<h2>Groups</h2>\n<div class=wide><table class=sortable><thead><tr>");
    head_cell("rank", true), head_cell("group", false), head_cell("chosen", false), head_cell("bits", true);
    head_cell("elements", true), head_cell("swaps with next", true);
    for (auto const& f : formats_) head_cell(f, true);
    put("</tr></thead><tbody>\n");
    auto const ranking = rank_stability(stats_);
    for (std::size_t r = 0; r < ranking.size(); ++r) row(r, ranking[r]);
    put("</tbody></table></div>\n<p class=note>Scores ± standard error over the scoring steps. ",
        "<em>swaps with next</em>: the chance that other steps would rank the next group before this one.</p>\n");
  }

  void row(std::size_t rank, ranked_group const& place) {
    auto const& g = stats_[place.group];
    auto const& c = chosen(place.group);
    double const bits = bits_per_element(c.bits, g.elements);
    put("<tr>");
    if (g.is_open()) number_cell(static_cast<double>(rank + 1), std::to_string(rank + 1));
    else number_cell(std::nan(""), "-");
    put("<td>", escaped(group_name(g)), "</td><td><i class=", colour(c), "></i>", escaped(c.format), "</td>");
    number_cell(bits, decimals(bits, 3));
    number_cell(static_cast<double>(g.elements), std::to_string(g.elements));
    number_cell(place.swaps_with_next, std::isfinite(place.swaps_with_next) ? decimals(place.swaps_with_next, 3) : "-");
    for (auto const& f : formats_) {
      auto const at = std::find_if(g.candidates.begin(), g.candidates.end(), [&](auto& o) { return o.format == f; });
      if (at == g.candidates.end() || !g.is_open()) number_cell(std::nan(""), "-");
      else number_cell(at->score, scored(*at));
    }
    put("</tr>\n");
  }

  void modules() {
    put("<details><summary>Modules and the rules that placed them</summary>\n<div class=wide><table><thead><tr>",
        "<th scope=col>module</th><th scope=col>recipe</th><th scope=col>rule</th></tr></thead><tbody>\n");
    for (auto const& m : plan_.modules)
      put("<tr><td>", escaped(m.name), "</td><td>", escaped(m.recipe), "</td><td>", escaped(m.rule), "</td></tr>\n");
    put("</tbody></table></div></details>\n");
    if (plan_.notes.empty()) return;
    put("<h2>Notes</h2>\n<ul>\n");
    for (auto const& note : plan_.notes) put("<li>", escaped(note), "</li>\n");
    put("</ul>\n");
  }

  candidate_stats const& stats_;
  quantization_plan const& plan_;
  std::span<budget_point const> frontier_;
  std::optional<measured_loss> const& loss_;
  std::vector<std::string> formats_;
  std::string out_;
};

}  // namespace detail::html

/// The whole page in UTF-8. `frontier`: pareto_points(stats), or nothing to leave that part out. Throws `search_input`
/// for a plan without the choice that was made from these statistics.
inline std::string sensitivity_page(candidate_stats const& stats, quantization_plan const& plan,
                                    std::span<budget_point const> frontier,
                                    std::optional<measured_loss> const& loss = {}) {
  require_choice(stats, plan.achieved);
  return detail::html::page{stats, plan, frontier, loss}.write();
}

}  // namespace mixbit
