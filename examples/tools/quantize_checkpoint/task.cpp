#include "task.hpp"

#include <algorithm>
#include <memory>
#include <set>
#include <string>
#include <thread>

#include "gguf_output.hpp"
#include "memory_need.hpp"
#include "mixbit/autoquant/json.hpp"
#include "mixbit/io/folders.hpp"
#include "mixbit/io/json.hpp"
#include "other_files.hpp"
#include "progress.hpp"

namespace quantize_checkpoint {

namespace {

options with_memory(options o) {
  o.memory = memory_for_weights(o);
  return o;
}

/// Layers that a plan gives a format: output heads too are quantized then. Not a head that is an embedding's weight.
std::set<std::string> heads_of_plan(options const& o, mixbit::hf_source const& source) {
  std::set<std::string> names;
  auto const& config = source.config();
  bool const tied = config.contains("tie_word_embeddings") && config.at("tie_word_embeddings") == true;
  if (o.plan.empty() || tied) return names;
  for (auto const& m : mixbit::plan_from_json(mixbit::read_json_file(o.plan), o.plan).modules)
    if (m.recipe != mixbit::none_label) names.insert(m.name);
  return names;
}

measured measuring() {
  return [bar = std::shared_ptr<progress>{}](std::int64_t done, std::int64_t all) mutable {
    if (!bar) bar = std::make_shared<progress>("measuring", all);
    bar->show(done);
  };
}

}  // namespace

task::task(options const& o)
    : wanted{with_memory(o)},
      source{o.model},
      stored{source, heads_of_plan(o, source)},
      pool{o.threads > 0 ? o.threads : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()))},
      threads{pool},
      on{threads},
      names{source.tensors().names().begin(), source.tensors().names().end()} {
  if (!o.out.empty() && mixbit::lie_in_one_another(o.model, o.out))
    mixbit::fail(mixbit::error_id::usage, "--out ", mixbit::in_quotes(o.out), " and --model ",
                 mixbit::in_quotes(o.model), " lie in one another; results go to a folder apart from the model's");
  if (!o.dry_run) require_places(o.out, known_files(o));
  if (o.to == "gguf") require_gguf_source(source);  // before weights are measured
  source.tensors().while_unchanged([&] { made = assign(wanted, source, stored, on, measuring()); });
  std::sort(names.begin(), names.end());
}

layer const* task::layer_of(std::string_view tensor) const {
  constexpr std::string_view suffix = ".weight";
  if (!tensor.ends_with(suffix)) return nullptr;
  auto const name = tensor.substr(0, tensor.size() - suffix.size());
  auto const by_name = [](layer const& l) { return std::string_view{l.name}; };
  auto const at = std::ranges::lower_bound(made.layers, name, {}, by_name);
  return at == made.layers.end() || at->name != name ? nullptr : &*at;
}

std::string task::why_kept(std::string_view tensor) const {
  auto why = stored.why_kept(tensor);
  return why.empty() ? std::string{"the config gives it no format"} : why;
}

}  // namespace quantize_checkpoint
