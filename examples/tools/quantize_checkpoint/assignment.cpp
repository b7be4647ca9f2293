#include "assignment.hpp"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "choices.hpp"
#include "fused_layers.hpp"
#include "gguf_layer.hpp"
#include "layer_form.hpp"
#include "mixbit/autoquant/json.hpp"
#include "mixbit/autoquant/search.hpp"
#include "mixbit/config/json.hpp"
#include "mixbit/io/json.hpp"
#include "mixbit/io/safetensors.hpp"

namespace quantize_checkpoint {

using mixbit::error_id;
using mixbit::fail;

namespace {

/// Weights are all there is.
void require_max(mixbit::quantize_config const& config) {
  for (auto const& step : config.algorithm.steps())
    if (step.method != "max")
      fail(error_id::format_value, config.name, ": its algorithm '", step.method, "' needs a model that runs; take a ",
           "format that calibrates by max");
}

/// Matrices that are looked at together; nothing of them is kept but the layers that they become.
constexpr std::size_t at_once = 64;
/// Formats among which a layer's is looked for: more than any config has that is not made for each layer.
constexpr std::size_t formats_looked_at = 16;

class assigner {
 public:
  assigner(options const& o, mixbit::hf_source const& source, stored_model& stored, device const& on)
      : options_{o}, source_{source}, stored_{stored}, model_{stored}, on_{on} {
    if (stored.size() != 0) return;
    auto const first = stored.first_transposed();
    fail(error_id::file_content, source.tensors().label(), ": has no matrix that could be quantized",
         first.empty() ? "" : ": tensor " + mixbit::in_quotes(first) + " is " + stored.why_kept(first));
  }

  assignment run(measured const& progress) {
    if (!options_.plan.empty()) by_plan(plan_in_file());
    else if (options_.target) by_choice(progress);
    else by_config(options_.preset.empty() ? mixbit::load_config(options_.config) : load(options_.preset));
    if (made_.layers.empty())
      fail(error_id::config_no_match, "nothing would be quantized: no layer of ", source_.tensors().label(),
           " is given a format");
    return std::move(made_);
  }

 private:
  mixbit::quantization_plan plan_in_file() const {
    return mixbit::plan_from_json(mixbit::read_json_file(options_.plan), options_.plan);
  }

  /// A preset, a type of GGUF's or a file.
  mixbit::quantize_config load(std::string const& name) const {
    if (auto config = options_.to == "gguf" ? gguf_config(name) : std::nullopt) return *std::move(config);
    return mixbit::load_config(name);
  }

  /// As configure() does with all modules at once, which for tens of thousands would be much memory.
  void by_config(mixbit::quantize_config const& config) {
    require_max(config);
    mixbit::detail::require_known_algorithm(model_, config.algorithm, config.name.empty() ? "algorithm" : config.name);
    mixbit::resolution_totals all{config};
    auto const& classes = model_.options().classes;
    for (std::size_t i = 0; i < stored_.size();) {
      std::vector<stored_layer> modules;
      while (modules.size() < at_once && i < stored_.size()) modules.push_back(stored_.at(i++));
      auto const part = mixbit::apply_entries(mixbit::detail::placements_of(model_, modules), config, classes);
      all.add(part);
      auto recipes = mixbit::recipes_of(model_, modules, part);
      for (std::size_t m = 0; m < modules.size(); ++m) add(modules[m], recipes[m], config.name);
    }
    mixbit::check_resolution(all, config, model_.options().strict);
    take_notes(config, all.matches);
  }

  /// Of entries that match nothing: one by default is for layers that this model has not.
  void take_notes(mixbit::quantize_config const& config, std::vector<std::size_t> const& matches) {
    for (std::size_t i = 0; i < matches.size(); ++i)
      if (matches[i] == 0 && config.entries[i].origin != mixbit::entry_origin::default_rule)
        made_.notes.push_back(mixbit::detail::unmatched_note(config, i));
  }

  void by_plan(mixbit::quantization_plan const& plan) {
    for (auto const& p : plan.modules) {
      if (p.recipe == mixbit::none_label) continue;
      auto const at = stored_.find(p.name);
      if (!at) {
        auto const why = stored_.why_kept(p.name + ".weight");
        fail(error_id::search_plan, options_.plan, ": modules.", p.name, " is given '", p.recipe, "', and ",
             source_.tensors().label(), why.empty() ? " has no such layer" : " keeps it: it is " + why);
      }
      auto const* const format = plan.format(p.recipe);
      if (format == nullptr)
        fail(error_id::search_plan, options_.plan, ": modules.", p.name, ": the plan has no format '", p.recipe, "'");
      require_max(format->config);
      auto recipe = mixbit::search_recipe(model_, format->config, *at);
      add(*at, recipe, p.recipe);
    }
    std::ranges::sort(made_.layers, {}, &layer::name);
  }

  void by_choice(measured const& progress) {
    made_.plan = by_budget(progress);
    stored_.forget_slots();  // what the search kept of each layer
    by_plan(*made_.plan);
  }

  /// Scores are Σ of weight errors; layers that are fused are one group, as in a search.
  mixbit::quantization_plan by_budget(measured const& progress) {
    mixbit::search_options wanted;
    for (auto const& f : options_.formats) wanted.formats.push_back(load(f));
    for (auto const& f : wanted.formats) require_max(f);
    wanted.target = 16.0;  // what can be met is asked once costs are the file's
    mixbit::search<backend> const search{model_, std::move(wanted)};
    auto stats = possible_choices(options_.to, model_, search, stored_, made_.notes);
    mixbit::require_feasible(stats, *options_.target);
    score(search, stats, progress);
    auto const chosen = mixbit::allocate(stats, *options_.target);
    auto plan = mixbit::make_plan(stats, search.formats(), chosen, "exact");
    plan.method = mixbit::weight_error_method;
    return plan;
  }

  void score(mixbit::search<backend> const& search, mixbit::candidate_stats& stats, measured const& progress) {
    auto const importance = read_activations();
    std::int64_t all = 0, done = 0;
    for (auto const& group : stats)
      for (auto const& c : group.candidates)
        if (c.recipe >= 0)
          for (auto const& name : group.modules) all += stored_.find(name)->weight.bytes();
    for (auto& group : stats)
      for (auto& c : group.candidates) {
        if (c.recipe < 0) continue;
        auto const layers = layers_of(group, search.formats()[static_cast<std::size_t>(c.recipe)]);
        shared_amaxes amaxes{layers, [&](layer const& l) { return rows_of(l).tensor_amax(); }};
        for (std::size_t i = 0; i < layers.size(); ++i) {
          auto const at = importance.find(layers[i].name);
          auto rows = rows_of(layers[i]);
          // in safetensors' forms fused layers share the scale of a whole weight, in GGUF each has its own
          if (options_.to != "gguf" && layers[i].how->has_tensor_scale()) rows.share_tensor_amax(amaxes.of(i));
          c.score += rows.error(at == importance.end() ? std::vector<float>{} : at->second);
          source_.tensors().require_unchanged(layers[i].name + ".weight");  // hours of others may follow
          progress(done += layers[i].weight.bytes(), all);
        }
      }
  }

  std::vector<layer> layers_of(mixbit::group_stats const& group, mixbit::search_format const& format) {
    std::vector<layer> layers;
    for (auto const& name : group.modules)
      layers.push_back(layer_under(options_.to, model_, *stored_.find(name), format));
    return layers;
  }

  weight_rows rows_of(layer const& l) const {
    return {on_, l, source_.tensors().label_of(l.name + ".weight"), options_.memory};
  }

  std::unordered_map<std::string, std::vector<float>> read_activations() {
    std::unordered_map<std::string, std::vector<float>> all;
    if (options_.activations.empty()) return all;
    constexpr std::string_view suffix = ".input_square_mean";
    auto const file = mixbit::safetensors_file::open(options_.activations);
    for (auto const& name : file.names()) {
      auto const refuse = [&](auto const&... why) {
        fail(error_id::file_content, file.label(), ": tensor ", mixbit::in_quotes(name), ' ', why...);
      };
      if (!name.ends_with(suffix)) refuse("is not named MODULE", suffix);
      std::string const layer_name = name.substr(0, name.size() - suffix.size());
      auto const m = stored_.find(layer_name);
      if (!m) refuse("names no matrix that may be quantized");
      auto values = file.read_as_float(name);
      if (static_cast<std::int64_t>(values.size()) != m->weight.shape[1])
        refuse("has ", values.size(), " values for a layer of ", m->weight.shape[1], " inputs");
      for (float const v : values)
        if (!(v >= 0) || v > std::numeric_limits<float>::max()) refuse("holds ", v, "; a mean of squares is 0 or more");
      all.emplace(layer_name, std::move(values));
    }
    return all;
  }

  void add(stored_layer const& m, mixbit::recipe_quantizers<backend>& recipe, std::string const& label) {
    if (!recipe.any_acts()) return;
    auto l = layer_in_form(options_.to, m, recipe, label);
    auto const same = std::ranges::find_if(formats_, [&](auto const& f) { return *f == *l.how; });
    if (same != formats_.end()) l.how = *same;
    else if (formats_.size() < formats_looked_at) formats_.push_back(l.how);
    else formats_[next_format_++ % formats_looked_at] = l.how;
    made_.layers.push_back(std::move(l));
  }

  options const& options_;
  mixbit::hf_source const& source_;
  stored_model& stored_;
  mixbit::model<backend> model_;
  device on_;
  std::vector<std::shared_ptr<layer_format const>> formats_;  ///< of the layers
  std::size_t next_format_ = 0;
  assignment made_;
};

}  // namespace

assignment assign(options const& o, mixbit::hf_source const& source, stored_model& stored, device const& on,
                  measured const& progress) {
  return assigner{o, source, stored, on}.run(progress);
}

}  // namespace quantize_checkpoint
