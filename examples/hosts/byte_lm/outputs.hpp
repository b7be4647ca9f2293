// What a run leaves behind: the files of --out, all of them or none.
#pragma once

#include <string>
#include <vector>

#include "backend.hpp"
#include "mixbit/autoquant/plan.hpp"
#include "mixbit/autoquant/resolved.hpp"
#include "mixbit/model/model.hpp"
#include "mixbit/model/preceding_op.hpp"
#include "mixbit/report/markdown.hpp"

namespace byte_lm {

struct results {
  std::string model_folder, out;
  std::vector<std::string> inputs;       ///< files that --plan or --preset name: not stale, wherever they are
  mixbit::candidate_stats const* stats;  ///< null where nothing was searched; then there is no plan either
  mixbit::quantization_plan const& plan;
  mixbit::measured_loss loss;
  std::string no_checkpoint;  ///< why the model's formats have no form in one; empty where they have
  std::vector<mixbit::preceding_op> folded = {};  ///< what fold_pre_quant_scales has rewritten
};

/// What of writing can be checked before there is anything to write: `out` is apart from the model's folder and can be
/// written to, no folder lies where a file goes, the search's checkpoint, where there is one, is apart from both and
/// can be written to, and the model's folder is one that a checkpoint can be made from. Leaves nothing behind.
void check_folders(std::string const& model_folder, std::string const& out, std::string const& search_checkpoint);

/// What an option names to be read.
struct input_file {
  std::string option, path;
};
/// Throws where what a run writes to `out` and `resolved` (empty: nothing is) would take the place of what it reads.
void check_inputs(std::vector<input_file> const& inputs, std::string const& model_folder, std::string const& out,
                  std::string const& resolved);

/// --resolved, whole or not at all.
void write_resolved(std::string const& file, mixbit::resolved_search const& plan);

/// An earlier search's files that this run does not write are taken away, but for those that it read.
/// Throws mixbit::error; the folder is then as it was. What loaders will not take is said on stderr, and so is why no
/// checkpoint is written, of which an earlier run's is then taken away.
void write_results(mixbit::model<backend>& model, results const& r);

}  // namespace byte_lm
