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

class assigner {
 public:
  assigner(options const& o, mixbit::hf_source const& source, stored_model& stored, device const& on)
      : options_{o}, source_{source}, stored_{stored}, model_{stored}, on_{on}, modules_{model_.modules()} {
    if (modules_.empty())
      fail(error_id::file_content, source.tensors().label(), ": has no matrix that could be quantized");
  }

  assignment run(measured const& progress) {
    if (!options_.plan.empty()) by_plan(mixbit::plan_from_json(mixbit::read_json_file(options_.plan), options_.plan));
    else if (options_.target) by_budget(progress);
    else by_config(options_.preset.empty() ? mixbit::load_config(options_.config) : load(options_.preset));
    if (made_.layers.empty())
      fail(error_id::config_no_match, "nothing would be quantized: no layer of ", source_.tensors().label(),
           " is given a format");
    return std::move(made_);
  }

 private:
  /// Null where there is none; modules are sorted by name.
  mixbit::module_ref<backend> const* find(std::string const& name) const {
    auto const at = std::ranges::lower_bound(modules_, name, {}, &mixbit::module_ref<backend>::name);
    return at != modules_.end() && at->name == name ? &*at : nullptr;
  }

  /// A preset, a type of GGUF's or a file.
  mixbit::quantize_config load(std::string const& name) const {
    if (auto config = options_.to == "gguf" ? gguf_config(name) : std::nullopt) return *std::move(config);
    return mixbit::load_config(name);
  }

  void by_config(mixbit::quantize_config const& config) {
    require_max(config);
    auto made = mixbit::configure(model_, modules_, config);
    take_notes(config, std::move(made.resolved.notes), made.resolved.matches);
    for (std::size_t i = 0; i < modules_.size(); ++i) add(modules_[i], made.recipes[i], config.name);
  }

  /// Of entries that match nothing: one by default is for layers that this model has not.
  void take_notes(mixbit::quantize_config const& config, std::vector<std::string> notes,
                  std::vector<std::size_t> const& matches) {
    std::size_t n = 0;
    for (std::size_t i = 0; i < matches.size(); ++i) {
      if (matches[i] != 0) continue;
      if (config.entries[i].origin != mixbit::entry_origin::default_rule) made_.notes.push_back(std::move(notes[n]));
      ++n;
    }
  }

  void by_plan(mixbit::quantization_plan const& plan) {
    for (auto const& p : plan.modules) {
      auto const* const at = find(p.name);
      if (at == nullptr && p.recipe == mixbit::none_label) continue;
      std::string const& why = stored_.why_kept(p.name + ".weight");
      if (at == nullptr)
        fail(error_id::search_plan, options_.plan, ": modules.", p.name, " is given '", p.recipe, "', and ",
             source_.tensors().label(), why.empty() ? " has no such layer" : " keeps it: it is " + why);
      if (p.recipe == mixbit::none_label) continue;
      auto const* const format = plan.format(p.recipe);
      if (format == nullptr)
        fail(error_id::search_plan, options_.plan, ": modules.", p.name, ": the plan has no format '", p.recipe, "'");
      require_max(format->config);
      auto recipe = mixbit::search_recipe(model_, format->config, *at);
      add(*at, recipe, p.recipe);
    }
    std::ranges::sort(made_.layers, {}, &layer::name);
  }

  /// Scores are Σ of weight errors; layers that are fused are one group, as in a search.
  void by_budget(measured const& progress) {
    mixbit::search_options wanted;
    for (auto const& f : options_.formats) wanted.formats.push_back(load(f));
    for (auto const& f : wanted.formats) require_max(f);
    wanted.target = 16.0;  // what can be met is asked once costs are the file's
    mixbit::search<backend> const search{model_, std::move(wanted)};
    auto stats = possible_choices(options_.to, model_, search, modules_, made_.notes);
    mixbit::require_feasible(stats, *options_.target);
    score(search, stats, progress);
    auto const chosen = mixbit::allocate(stats, *options_.target);
    made_.plan = mixbit::make_plan(stats, search.formats(), chosen, "exact");
    made_.plan->method = "weight_error";
    by_plan(*made_.plan);
  }

  void score(mixbit::search<backend> const& search, mixbit::candidate_stats& stats, measured const& progress) {
    auto const importance = read_activations();
    std::int64_t all = 0, done = 0;
    for (auto const& group : stats)
      for (auto const& c : group.candidates)
        if (c.recipe >= 0)
          for (auto const& name : group.modules) all += find(name)->weight.bytes();
    for (auto& group : stats)
      for (auto& c : group.candidates) {
        if (c.recipe < 0) continue;
        auto const layers = layers_of(group, search.formats()[static_cast<std::size_t>(c.recipe)]);
        auto const amaxes = shared_amaxes(layers);
        for (std::size_t i = 0; i < layers.size(); ++i) {
          auto const at = importance.find(layers[i].name);
          auto rows = rows_of(layers[i]);
          if (amaxes[i]) rows.share_tensor_amax(*amaxes[i]);
          c.score += rows.error(at == importance.end() ? std::vector<float>{} : at->second);
          progress(done += layers[i].weight.bytes(), all);
        }
      }
  }

  std::vector<layer> layers_of(mixbit::group_stats const& group, mixbit::search_format const& format) {
    std::vector<layer> layers;
    for (auto const& name : group.modules) {
      auto const& m = *find(name);
      auto recipe = mixbit::search_recipe(model_, format.config, m);
      layers.push_back(layer_in_form(options_.to, m, recipe, format.label));
    }
    return layers;
  }

  weight_rows rows_of(layer const& l) const {
    return {on_, l, source_.tensors().label_of(l.name + ".weight"), options_.memory};
  }

  /// What scales of whole weights come from where fused layers share them, as they do in safetensors' forms.
  std::vector<std::optional<float>> shared_amaxes(std::vector<layer> const& layers) const {
    std::vector<std::optional<float>> amaxes(layers.size());
    if (options_.to == "gguf") return amaxes;
    std::vector<float> own;
    for (auto const& l : layers) own.push_back(l.has_tensor_scale() ? rows_of(l).tensor_amax() : 0.0f);
    auto const fused = fused_layers(layers);
    for (std::size_t i = 0; i < layers.size(); ++i)
      for (std::size_t const k : fused[i])
        if (layers[i].has_tensor_scale()) amaxes[i] = std::max(amaxes[i].value_or(0.0f), own[k]);
    return amaxes;
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
      std::string const module = name.substr(0, name.size() - suffix.size());
      auto const* const m = find(module);
      if (m == nullptr) refuse("names no matrix that may be quantized");
      auto values = file.read_as_float(name);
      if (static_cast<std::int64_t>(values.size()) != m->weight.shape[1])
        refuse("has ", values.size(), " values for a layer of ", m->weight.shape[1], " inputs");
      for (float const v : values)
        if (!(v >= 0) || v > std::numeric_limits<float>::max()) refuse("holds ", v, "; a mean of squares is 0 or more");
      all.emplace(module, std::move(values));
    }
    return all;
  }

  void add(mixbit::module_ref<backend> const& m, mixbit::recipe_quantizers<backend>& recipe, std::string const& label) {
    if (recipe.any_acts()) made_.layers.push_back(layer_in_form(options_.to, m, recipe, label));
  }

  options const& options_;
  mixbit::hf_source const& source_;
  stored_model const& stored_;
  mixbit::model<backend> model_;
  device on_;
  std::vector<mixbit::module_ref<backend>> modules_;
  assignment made_;
};

}  // namespace

assignment assign(options const& o, mixbit::hf_source const& source, stored_model& stored, device const& on,
                  measured const& progress) {
  return assigner{o, source, stored, on}.run(progress);
}

}  // namespace quantize_checkpoint
