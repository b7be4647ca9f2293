// A translation unit of its own: JSON and the exporter compile beside the model and the search.
#include "outputs.hpp"

#include <cstdio>

#include "mixbit/autoquant/json.hpp"
#include "mixbit/io/hf_checkpoint.hpp"
#include "mixbit/model/json.hpp"

namespace byte_lm {

void write_results(mixbit::model<backend>& model, results const& r) {
  mixbit::staged_output out{r.out};
  for (auto const& line : mixbit::export_hf_checkpoint(model, r.model_folder, out, "checkpoint"))
    std::fprintf(stderr, "checkpoint: %s\n", line.c_str());
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
