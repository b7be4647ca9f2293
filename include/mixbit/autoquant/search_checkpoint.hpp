// What a search keeps as it goes, so that one that was cut short goes on where it stopped, to the same bits: the
// calibrated state of each recipe, and the scores of each step. io/search_folder.hpp puts it into files.
//
// Calibrations are kept rather than run again: they take most of a search's forwards, GPTQ and SVDQuant much besides,
// while their results are amaxes and at most a weight a recipe. Scores are kept a step, in the sums that the statistics
// are made of. What is not kept is the data, so that a host hands step i the same batch in every run.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "mixbit/autoquant/plan.hpp"
#include "mixbit/model/quantize.hpp"
#include "mixbit/quantizer/kept_recipe.hpp"

namespace mixbit {

/// All that a search's scores follow from but the data. Costs and targets are not among it: they only choose.
struct search_facts {
  std::vector<std::pair<std::string, std::string>> options;  ///< a name and a text each
  std::vector<search_format> const& formats;
  candidate_stats const& groups;                             ///< modules and candidates
  std::vector<std::pair<std::string, std::string>> score_points;  ///< module -> its point, where it has one
  std::vector<std::pair<std::string, std::string>> weights;       ///< module -> a digest of its weight
};

/// One calibration: of all formats that go by max, or of one with its own algorithm.
struct kept_calibration {
  std::string name;  ///< "max", or the format's label
  std::vector<kept_recipe> recipes;
  calibration_report report;
};

/// The scores of the first `steps` steps.
struct kept_scores {
  int steps = 0;
  std::vector<double> values;        ///< [steps, candidates of groups with a choice], 0 for "do not quantize"
  std::vector<std::int64_t> counts;  ///< by group: how often it was scored; 0 where no choice is
};

/// Where it is kept. Each call throws what keeps it from its work; the search then ends, with the model as it was.
class search_checkpoint {
 public:
  virtual ~search_checkpoint() = default;
  /// A run begins. Throws `file_content` naming what has changed where something is kept of another search.
  virtual void begin(search_facts const& facts) = 0;
  /// Fills in the recipes and the report of the calibration so named; false where it is not kept. The recipes come with
  /// their quantizers, uncalibrated.
  virtual bool load_calibration(kept_calibration& calibration) = 0;
  virtual void save_calibration(kept_calibration const& calibration) = 0;
  virtual std::optional<kept_scores> load_scores() = 0;
  virtual void save_scores(kept_scores const& scores) = 0;
  /// The same of a part that has a name of its own: a round of a refinement. Where these are not overridden, parts are
  /// not kept and run again.
  virtual std::optional<kept_scores> load_part(std::string const& /*name*/) { return std::nullopt; }
  virtual void save_part(std::string const& /*name*/, kept_scores const& /*scores*/) {}
};

/// The scores of one part of a search, which have a checkpoint's way of keeping them.
class part_checkpoint final : public search_checkpoint {
 public:
  part_checkpoint(search_checkpoint& of, std::string name) : of_{of}, name_{std::move(name)} {}
  void begin(search_facts const&) override {}
  bool load_calibration(kept_calibration&) override { return false; }
  void save_calibration(kept_calibration const&) override {}
  std::optional<kept_scores> load_scores() override { return of_.load_part(name_); }
  void save_scores(kept_scores const& scores) override { of_.save_part(name_, scores); }

 private:
  search_checkpoint& of_;
  std::string name_;
};

}  // namespace mixbit
