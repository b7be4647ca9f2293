// Suite lm_autoquant: searches by gradient and by kl_div. Groups, members and costs equal ModelOpt's, raw scores within
// 1 %, and at the same budget our choice never has a worse total of ModelOpt's own raw scores.
#pragma once

#include <cmath>

#include "byte_lm/search_steps.hpp"
#include "golden_suites/lm_model.hpp"
#include "golden_suites/suite.hpp"

namespace golden {

class lm_autoquant_suite {
 public:
  lm_autoquant_suite(std::filesystem::path const& dir, std::filesystem::path const& data)
      : lm_{dir, data}, golden_(mixbit::read_json_file(dir / "lm_autoquant.json")) {
    result_.name = "lm_autoquant";
  }

  suite_result run() {
    for (auto const& r : golden_.at("runs")) search(r);
    return result_;
  }

 private:
  using backend = lm_model::backend;
  using json = mixbit::json_document;

  static mixbit::search_options options_of(json const& run) {
    mixbit::search_options o;
    for (auto const& f : run.at("formats")) o.formats.push_back(mixbit::preset(f.get<std::string>()));
    o.target = run.at("effective_bits").get<double>();
    if (!run.at("disabled_layers").is_null())
      for (auto const& p : run.at("disabled_layers")) o.disabled_layers.emplace_back(p.get<std::string>());
    o.cost = mixbit::cost_model::modelopt;
    o.method = run.at("method") == "kl_div" ? mixbit::score_method::kl_div : mixbit::score_method::gradient;
    return o;
  }

  void search(json const& run) {
    std::string const where =
        mixbit::detail::concat(run.at("method").get<std::string>(), ", ", run.at("formats").size(), " formats at ",
                               run.at("effective_bits").dump(), " bits");
    auto model = lm_.quantized(mixbit::policy::modelopt);
    mixbit::search<backend> s{model, options_of(run)};
    int const steps = static_cast<int>(lm_.score.size());
    s.run(byte_lm::search_steps(lm_.host, lm_.score, steps, lm_.score, steps));
    compare(where, s.stats(), run.at("candidate_stats"));
    auto const chosen = s.choose(s.options().target);
    result_.check(chosen.bits <= chosen.budget && chosen.optimal,
                  where + ": the choice is over its budget or not proven");
    never_worse(where, s.stats(), chosen, run);
  }

  void compare(std::string const& where, mixbit::candidate_stats const& ours, json const& theirs) {
    result_.check(ours.size() == theirs.size(),
                  mixbit::detail::concat(where, ": ", ours.size(), " groups against ", theirs.size()));
    std::size_t i = 0;
    for (auto const& [name, g] : theirs.items()) {
      if (i >= ours.size()) break;
      auto const& o = ours[i++];
      std::string const at = where + ": " + name;
      result_.check(o.name == name && json(o.modules) == g.at("module_names"),
                    at + ": group or members differ: " + o.name);
      result_.check(static_cast<double>(o.elements) == g.at("uncompressed_cost").get<double>(),
                    at + ": uncompressed cost");
      result_.check(o.candidates.size() == g.at("formats").size(), at + ": number of candidates");
      for (std::size_t c = 0; c < o.candidates.size() && c < g.at("formats").size(); ++c)
        candidate(at, o.candidates[c], g, c);
    }
  }

  void candidate(std::string const& at, mixbit::candidate_stat const& ours, json const& g, std::size_t c) {
    double const score = g.at("raw_scores").at(c), cost = g.at("costs").at(c);
    result_.check(ours.format == g.at("formats").at(c).get<std::string>(), at + ": format " + ours.format);
    result_.check(static_cast<double>(ours.bits) == 16 * cost,
                  mixbit::detail::concat(at, ": ", ours.bits, " bits against a cost of ", cost));
    result_.check(std::abs(ours.score - score) <= 0.01 * score,
                  mixbit::detail::concat(at, ": ", ours.format, " scores ", ours.score, " against ", score));
  }

  void never_worse(std::string const& where, mixbit::candidate_stats const& stats, mixbit::allocation const& chosen,
                   json const& run) {
    double ours = 0, theirs = 0;
    for (std::size_t g = 0; g < stats.size(); ++g) {
      auto const& golden = run.at("candidate_stats").at(stats[g].name);
      ours += golden.at("raw_scores").at(static_cast<std::size_t>(chosen.choice[g])).get<double>();
      auto const label = run.at("best").at("recipe").at(stats[g].name);
      for (std::size_t c = 0; c < golden.at("formats").size(); ++c)
        if (golden.at("formats").at(c) == label) theirs += golden.at("raw_scores").at(c).get<double>();
    }
    result_.check(ours <= theirs, mixbit::detail::concat(where, ": our choice scores ", ours, ", ModelOpt's ", theirs));
  }

  lm_model lm_;
  json golden_;
  suite_result result_;
};

}  // namespace golden

inline suite_result run_lm_autoquant(std::filesystem::path const& dir, std::filesystem::path const& data) {
  return golden::lm_autoquant_suite{dir, data}.run();
}
