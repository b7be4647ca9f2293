// A translation unit of its own: JSON and the exporter compile beside the model and the search.
#include "outputs.hpp"

#include <cstdio>
#include <filesystem>

#include "mixbit/autoquant/json.hpp"
#include "mixbit/io/hf_checkpoint.hpp"
#include "mixbit/model/json.hpp"

namespace byte_lm {

namespace {

/// Where a path leads, with links and ".." resolved as far as it exists.
std::filesystem::path resolved(std::string const& path) {
  std::error_code failure;
  auto const result = std::filesystem::weakly_canonical(std::filesystem::absolute(path), failure);
  if (failure) mixbit::fail_path("resolve", path, failure.value());
  return result;
}

/// Also true where both are the same.
bool is_inside(std::filesystem::path const& inner, std::filesystem::path const& outer) {
  auto const way = inner.lexically_relative(outer);
  return !way.empty() && *way.begin() != "..";
}

}  // namespace

void check_folders(std::string const& model_folder, std::string const& out) {
  auto const model = resolved(model_folder), target = resolved(out);
  if (is_inside(target, model) || is_inside(model, target))
    mixbit::fail(mixbit::error_id::usage, "--out ", mixbit::in_quotes(out), " and --model ",
                 mixbit::in_quotes(model_folder), " lie in one another; results go to a folder apart from the model's");
  mixbit::hf_source const source{model_folder};
  mixbit::staged_output const writable{out};  // not committed: it removes what it made
}

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
