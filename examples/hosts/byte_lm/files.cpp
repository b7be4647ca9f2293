// All that reads and writes files, in a translation unit of its own: JSON and the exporter are compiled once, beside
// the model and the search, which are not in it.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <utility>

#include "inputs.hpp"
#include "mixbit/autoquant/json.hpp"
#include "mixbit/autoquant/plan_config.hpp"
#include "mixbit/config/all_layers.hpp"
#include "mixbit/io/folders.hpp"
#include "mixbit/io/hf_checkpoint.hpp"
#include "mixbit/io/latency_file.hpp"
#include "mixbit/io/search_folder.hpp"
#include "mixbit/model/json.hpp"
#include "mixbit/report/html.hpp"
#include "outputs.hpp"
#include "stored_model_impl.hpp"
#include "text.hpp"

namespace byte_lm {

data_windows read_data(options const& o, config const& shapes) {
  std::string const text = o.text.empty() ? debian_licences() : read_text(o.text);
  auto const size = static_cast<std::int64_t>(text.size());
  std::int64_t const context = shapes.max_position_embeddings;
  if (text.empty()) mixbit::fail(mixbit::error_id::file_content, "--text ", mixbit::in_quotes(o.text), " is empty");
  window_plan const plan = o.windows.empty() ? even_windows(size, std::min(context, longest_even_window) + 1)
                                             : read_windows(o.windows, size);
  if (plan.window - 1 > context)
    mixbit::fail(mixbit::error_id::file_content, o.windows, ": field 'window' is ", plan.window, " bytes, that is ",
                 plan.window - 1, " tokens, and max_position_embeddings of ", o.model, "/config.json is ", context);
  data_windows data;
  for (auto const& step : plan.calibration) data.calibration.push_back(cut_windows(text, step, plan.window));
  for (auto const& step : plan.score) data.score.push_back(cut_windows(text, step, plan.window));
  data.validation = cut_windows(text, plan.validation, plan.window);
  return data;
}

namespace {

mixbit::quantize_config read_format(char const* option, std::string const& name) {
  return mixbit::detail::named(option, [&] { return mixbit::load_config(name); });
}

}  // namespace

mixbit::quantize_config read_combined(std::vector<std::string> const& formats) {
  auto config = read_format("--preset", formats.at(0));
  for (std::size_t i = 1; i < formats.size(); ++i)
    config = combine(std::move(config), read_format("--preset", formats[i]));
  return config;
}

std::vector<mixbit::quantize_config> read_formats(std::vector<std::string> const& names) {
  constexpr std::string_view prefix = "all-layers:";
  std::vector<mixbit::quantize_config> formats;
  int custom = 0;
  for (auto const& name : names)
    if (name.starts_with(prefix))
      formats.push_back(mixbit::all_layers(read_format("--formats", name.substr(prefix.size())),
                                           "CUSTOM_" + std::to_string(custom++)));
    else formats.push_back(read_format("--formats", name));
  return formats;
}

mixbit::algorithm_config algorithm_of(std::string const& text) {
  bool const is_json = text.front() == '{' || text.front() == '[';
  auto const algorithm =
      is_json ? mixbit::algorithm_from_json(
                    mixbit::parse_json_strict(text, "--algorithm", mixbit::error_id::config_json), "--algorithm")
              : mixbit::algorithm_config{text};
  algorithm.validate("--algorithm");
  return algorithm;
}

mixbit::latency_table read_latency(std::string const& path) {
  return mixbit::detail::named("--latency", [&] { return mixbit::read_latency_table(path); });
}

mixbit::quantization_plan read_plan(std::string const& path) {
  return mixbit::detail::named("--plan", [&] { return mixbit::plan_from_json(mixbit::read_json_file(path), path); });
}

namespace {

/// A search's calibration and scores follow from both lists' bytes, in their steps.
std::string digest_of(std::vector<byte_windows> const& steps) {
  mixbit::content_digest made;
  for (auto const& step : steps) {
    made.add(std::to_string(step.length));
    made.add(std::string_view{reinterpret_cast<char const*>(step.bytes.data()), step.bytes.size()});
  }
  return made.text();
}

}  // namespace

std::shared_ptr<mixbit::search_checkpoint> search_checkpoint(options const& o,
                                                             std::vector<named_values> const& weights,
                                                             std::vector<byte_windows> const& calibration,
                                                             std::vector<byte_windows> const& score) {
  if (o.checkpoint.empty()) return nullptr;
  mixbit::content_digest shapes;
  shapes.add(mixbit::mapped_file{std::filesystem::path{o.model} / "config.json"}.text());
  std::vector<std::pair<std::string, std::string>> host{{"calibration windows", digest_of(calibration)},
                                                        {"score windows", digest_of(score)},
                                                        {"config.json", shapes.text()}};
  for (auto const& w : weights) {
    mixbit::content_digest made;
    made.add(w.values);
    host.emplace_back(w.name, made.text());
  }
  return std::make_shared<mixbit::search_folder>(o.checkpoint, std::move(host));
}

namespace {

std::vector<char const*> const of_a_search{"candidate_stats.json", "manifest.json",               "plan.json",
                                           "quant_config.json",    "layer-sensitivity-report.md", "report.html"};
std::vector<char const*> const of_every_run{"quantizers.json",
                                            "evaluation.json",
                                            "checkpoint/config.json",
                                            "checkpoint/generation_config.json",
                                            "checkpoint/hf_quant_config.json",
                                            "checkpoint/model.safetensors",
                                            "checkpoint/model.safetensors.index.json"};

bool same_file(std::filesystem::path const& a, std::filesystem::path const& b) {
  std::error_code none;
  return std::filesystem::equivalent(a, b, none);
}

}  // namespace

void check_folders(std::string const& model_folder, std::string const& out, std::string const& search_checkpoint) {
  if (mixbit::lie_in_one_another(model_folder, out))
    mixbit::fail(mixbit::error_id::usage, "--out ", mixbit::in_quotes(out), " and --model ",
                 mixbit::in_quotes(model_folder), " lie in one another; results go to a folder apart from the model's");
  if (!search_checkpoint.empty())
    for (auto const& [option, other] : {std::pair{"--model", model_folder}, std::pair{"--out", out}})
      if (mixbit::lie_in_one_another(search_checkpoint, other))
        mixbit::fail(mixbit::error_id::usage, "--checkpoint ", mixbit::in_quotes(search_checkpoint), " and ", option,
                     " ", mixbit::in_quotes(other), " lie in one another; a search is kept in a folder of its own");
  std::error_code none;
  if (auto const there = std::filesystem::status(search_checkpoint, none);
      std::filesystem::exists(there) && !std::filesystem::is_directory(there))
    mixbit::fail(mixbit::error_id::usage, "--checkpoint ", mixbit::in_quotes(search_checkpoint), " is no folder");
  mixbit::hf_source const source{model_folder};
  mixbit::staged_output writable{out};  // not committed: it removes what it made
  for (auto const* files : {&of_a_search, &of_every_run})
    for (char const* file : *files) (void)writable.path(file);
  if (!search_checkpoint.empty()) mixbit::staged_output{search_checkpoint};
}

void check_inputs(std::vector<input_file> const& inputs, std::string const& model_folder, std::string const& out,
                  std::string const& resolved) {
  if (!resolved.empty() && mixbit::lie_in_one_another(model_folder, resolved))
    mixbit::fail(mixbit::error_id::usage, "--resolved ", mixbit::in_quotes(resolved), " lies in --model ",
                 mixbit::in_quotes(model_folder), ", whose files are only read");
  for (input_file const& input : inputs) {
    auto const require_other = [&](std::filesystem::path const& file) {
      if (same_file(file, input.path))
        mixbit::fail(mixbit::error_id::usage, input.option, " ", mixbit::in_quotes(input.path), " would be lost: this ",
                     "run writes or removes ", mixbit::in_quotes(file.string()));
    };
    require_other(resolved);
    if (out.empty()) continue;
    for (char const* file : of_every_run) require_other(std::filesystem::path{out} / file);
    if (input.option == "--plan" || input.option == "--preset") continue;  // write_results() keeps a search's for them
    for (char const* file : of_a_search) require_other(std::filesystem::path{out} / file);
  }
}

void write_resolved(std::string const& file, mixbit::resolved_search const& plan) {
  mixbit::write_json_file(file, mixbit::to_json(plan));
}

namespace {

/// What calibration made of formats that have a form may have none: a branch, or scales that differ within a kernel.
/// Says so in `why`.
std::optional<mixbit::hf_export<backend>> planned(mixbit::model<backend>& model, results const& r, std::string& why) {
  if (!why.empty()) return std::nullopt;
  try {
    return std::optional<mixbit::hf_export<backend>>{std::in_place, model, r.model_folder,
                                                     mixbit::hf_export_options{.preceding = r.folded}};
  } catch (mixbit::error const& e) {
    if (e.id() != mixbit::error_id::format_value) throw;
    why = std::string{e.message()};
    return std::nullopt;
  }
}

/// quant_config.json: the plan for --preset. Where it cannot be one config, or is not quite the plan, a line says why.
void write_config(mixbit::model<backend>& model, mixbit::quantization_plan const& plan, mixbit::staged_output& out) {
  try {
    auto const made = mixbit::plan_config(model, plan);
    for (auto const& note : made.notes) std::fprintf(stderr, "quant_config.json: %s\n", note.c_str());
    mixbit::write_file_atomically(out.path("quant_config.json"), mixbit::config_to_text(made.config));
  } catch (mixbit::error const& e) {
    if (e.id() != mixbit::error_id::config_conflict) throw;
    std::fprintf(stderr, "quant_config.json: not written: %s\n", std::string{e.message()}.c_str());
    out.remove_stale("quant_config.json");
  }
}

}  // namespace

void write_results(mixbit::model<backend>& model, results const& r) {
  mixbit::staged_output out{r.out};
  for (char const* file : of_a_search)
    if (std::none_of(r.inputs.begin(), r.inputs.end(),
                     [&](auto const& input) { return same_file(out.folder() / file, input); }))
      out.remove_stale(file);
  std::string why = r.no_checkpoint;
  if (auto checkpoint = planned(model, r, why)) {
    checkpoint->write(out, "checkpoint");
    for (auto const& line : checkpoint->notes()) std::fprintf(stderr, "checkpoint: %s\n", line.c_str());
  } else {
    std::fprintf(stderr, "checkpoint: not written: %s\n", why.c_str());
    mixbit::remove_stale_shards(out, "checkpoint");
    for (char const* file : {"config.json", "hf_quant_config.json", "generation_config.json"})
      out.remove_stale(std::filesystem::path{"checkpoint"} / file);
  }
  if (r.stats != nullptr) {
    mixbit::write_json_file(out.path("candidate_stats.json"), mixbit::to_json(*r.stats, r.plan.formats));
    mixbit::write_json_file(out.path("manifest.json"), mixbit::manifest_json(*r.stats, r.plan));
    mixbit::write_json_file(out.path("plan.json"), mixbit::to_json(r.plan));
    write_config(model, r.plan, out);
    mixbit::write_file_atomically(out.path("layer-sensitivity-report.md"),
                                  mixbit::sensitivity_report(*r.stats, r.plan, r.loss));
    auto const frontier = mixbit::pareto_points(*r.stats);
    mixbit::write_file_atomically(out.path("report.html"),
                                  mixbit::sensitivity_page(*r.stats, r.plan, frontier, r.loss));
  }
  mixbit::write_json_file(out.path("quantizers.json"), mixbit::quantizers_json(model));
  mixbit::json_document const loss{{"unquantized", r.loss.unquantized}, {"quantized", r.loss.quantized}};
  mixbit::write_json_file(out.path("evaluation.json"), {{"validation_loss", loss}});
  out.commit();
}

}  // namespace byte_lm
