// A translation unit of its own: JSON and the exporter compile beside the model and the search.
#include "outputs.hpp"

#include <cstdio>
#include <filesystem>

#include "mixbit/autoquant/json.hpp"
#include "mixbit/io/folders.hpp"
#include "mixbit/io/hf_checkpoint.hpp"
#include "mixbit/model/json.hpp"

namespace byte_lm {

void check_folders(std::string const& model_folder, std::string const& out) {
  if (mixbit::lie_in_one_another(model_folder, out))
    mixbit::fail(mixbit::error_id::usage, "--out ", mixbit::in_quotes(out), " and --model ",
                 mixbit::in_quotes(model_folder), " lie in one another; results go to a folder apart from the model's");
  mixbit::hf_source const source{model_folder};
  mixbit::staged_output const writable{out};  // not committed: it removes what it made
}

namespace {

/// The first quantizer that scales its operand, which no checkpoint holds in this version; empty where there is none.
std::string scaled_quantizer(mixbit::model<backend>& model) {
  for (auto const& module : model.modules())
    for (auto const& q : module.slots->shared_site()->quantizers().quantizers)
      if (q.has_pre_quant_scale()) return q.path();
  return {};
}

}  // namespace

void write_results(mixbit::model<backend>& model, results const& r) {
  mixbit::staged_output out{r.out};
  for (char const* of_a_search : {"candidate_stats.json", "manifest.json", "plan.json", "layer-sensitivity-report.md"})
    if (std::error_code none; !std::filesystem::equivalent(out.folder() / of_a_search, r.plan_file, none))
      out.remove_stale(of_a_search);
  if (auto const scaled = scaled_quantizer(model); !scaled.empty()) {
    std::fprintf(stderr, "checkpoint: not written: %s has a pre_quant_scale\n", scaled.c_str());
    for (char const* file : {"config.json", "hf_quant_config.json", "model.safetensors"})
      out.remove_stale(std::filesystem::path{"checkpoint"} / file);
  } else {
    for (auto const& line : mixbit::export_hf_checkpoint(model, r.model_folder, out, "checkpoint"))
      std::fprintf(stderr, "checkpoint: %s\n", line.c_str());
  }
  if (r.stats != nullptr) {
    mixbit::write_json_file(out.path("candidate_stats.json"), mixbit::to_json(*r.stats));
    mixbit::write_json_file(out.path("manifest.json"), mixbit::manifest_json(*r.stats, r.plan));
    mixbit::write_json_file(out.path("plan.json"), mixbit::to_json(r.plan));
    mixbit::write_file_atomically(out.path("layer-sensitivity-report.md"),
                                  mixbit::sensitivity_report(*r.stats, r.plan, r.loss));
  }
  mixbit::write_json_file(out.path("quantizers.json"), mixbit::quantizers_json(model));
  mixbit::json_document const loss{{"unquantized", r.loss.unquantized}, {"quantized", r.loss.quantized}};
  mixbit::write_json_file(out.path("evaluation.json"), {{"validation_loss", loss}});
  out.commit();
}

}  // namespace byte_lm
