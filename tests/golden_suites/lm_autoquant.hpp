// Suite lm_autoquant: the gradient searches. Groups, members and costs equal ModelOpt's, raw scores within 1 %, and at
// the same budget our choice never has a worse total of ModelOpt's own raw scores.
#pragma once

#include <cmath>

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
    for (auto const& r : golden_["runs"]) {
      if (r["method"] == "gradient")
        search(r);
      else
        result_.skip(1, "method " + r["method"].get<std::string>() + " is not there yet");
    }
    return result_;
  }

 private:
  using backend = lm_model::backend;
  using json = mixbit::json_document;

  static mixbit::search_options options_of(json const& run) {
    mixbit::search_options o;
    for (auto const& f : run["formats"]) o.formats.push_back(mixbit::preset(f.get<std::string>()));
    o.target = run["effective_bits"].get<double>();
    if (!run["disabled_layers"].is_null())
      for (auto const& p : run["disabled_layers"]) o.disabled_layers.emplace_back(p.get<std::string>());
    o.cost = mixbit::cost_model::modelopt;
    return o;
  }

  void search(json const& run) {
    std::string const where =
        mixbit::detail::concat(run["formats"].size(), " formats at ", run["effective_bits"].dump(), " bits");
    auto model = lm_.quantized(mixbit::policy::modelopt);
    mixbit::search<backend> s{model, options_of(run)};
    auto const forward = [&](int i) { return lm_.host.logits(lm_.score[static_cast<std::size_t>(i)].inputs()); };
    int const steps = static_cast<int>(lm_.score.size());
    s.run({steps, steps, [&](int i) { (void)forward(i); },
           [&](int i) {
             auto const targets = lm_.score[static_cast<std::size_t>(i)].targets();
             lm_.host.backward(byte_lm::cross_entropy_gradient(lm_.pool, forward(i), targets));
           },
           {}});
    compare(where, s.stats(), run["candidate_stats"]);
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
      result_.check(o.name == name && json(o.modules) == g["module_names"],
                    at + ": group or members differ: " + o.name);
      result_.check(static_cast<double>(o.elements) == g["uncompressed_cost"].get<double>(),
                    at + ": uncompressed cost");
      result_.check(o.candidates.size() == g["formats"].size(), at + ": number of candidates");
      for (std::size_t c = 0; c < o.candidates.size() && c < g["formats"].size(); ++c)
        candidate(at, o.candidates[c], g, c);
    }
  }

  void candidate(std::string const& at, mixbit::candidate_stat const& ours, json const& g, std::size_t c) {
    double const score = g["raw_scores"][c], cost = g["costs"][c];
    result_.check(ours.format == g["formats"][c].get<std::string>(), at + ": format " + ours.format);
    result_.check(static_cast<double>(ours.bits) == 16 * cost,
                  mixbit::detail::concat(at, ": ", ours.bits, " bits against a cost of ", cost));
    result_.check(std::abs(ours.score - score) <= 0.01 * score,
                  mixbit::detail::concat(at, ": ", ours.format, " scores ", ours.score, " against ", score));
  }

  void never_worse(std::string const& where, mixbit::candidate_stats const& stats, mixbit::allocation const& chosen,
                   json const& run) {
    double ours = 0, theirs = 0;
    for (std::size_t g = 0; g < stats.size(); ++g) {
      auto const& golden = run["candidate_stats"][stats[g].name];
      ours += golden["raw_scores"][static_cast<std::size_t>(chosen.choice[g])].get<double>();
      auto const label = run["best"]["recipe"][stats[g].name];
      for (std::size_t c = 0; c < golden["formats"].size(); ++c)
        if (golden["formats"][c] == label) theirs += golden["raw_scores"][c].get<double>();
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
