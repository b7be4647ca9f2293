#include "job.hpp"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <memory>
#include <numeric>
#include <optional>
#include <set>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <vector>

#include "assignment.hpp"
#include "layer_tensors.hpp"
#include "mixbit/autoquant/json.hpp"
#include "mixbit/config/attribute_json.hpp"
#include "mixbit/config/grouping_rule.hpp"
#include "mixbit/core/executor.hpp"
#include "mixbit/io/ct_loader_notes.hpp"
#include "mixbit/io/folders.hpp"
#include "mixbit/io/hf_config.hpp"
#include "mixbit/io/hf_loader_notes.hpp"
#include "mixbit/io/hf_tied.hpp"
#include "mixbit/io/safetensors_shards.hpp"
#include "partial_output.hpp"
#include "progress.hpp"
#include "stored_model.hpp"

namespace quantize_checkpoint {

namespace fs = std::filesystem;

namespace {

/// What of --memory remains for weights: the program, its names and its threads take the rest.
std::int64_t memory_for_weights(std::int64_t memory) {
  constexpr std::int64_t taken = std::int64_t{48} << 20;
  if (memory <= taken + (std::int64_t{1} << 20))
    mixbit::fail(mixbit::error_id::usage, "--memory ", memory, ": the program itself takes up to ", taken, " bytes");
  return memory - taken;
}

std::unordered_map<std::string, layer const*> by_tensor(std::vector<layer> const& layers) {
  std::unordered_map<std::string, layer const*> all;
  for (auto const& l : layers) all.emplace(l.name + ".weight", &l);
  return all;
}

/// Each layer with those of its format that loaders run as one with it.
std::unordered_map<layer const*, std::vector<layer const*>> fused_layers(std::vector<layer> const& layers) {
  std::vector<std::string> names;
  for (auto const& l : layers) names.push_back(l.name);
  std::unordered_map<layer const*, std::vector<layer const*>> all;
  for (auto const& group : mixbit::group_modules(names, mixbit::fused_layer_rules()))
    for (std::size_t const i : group.members)
      for (std::size_t const k : group.members)
        if (layers[k].is_of_form(layers[i])) all[&layers[i]].push_back(&layers[k]);
  return all;
}

class job {
 public:
  explicit job(options const& o)
      : options_{with_memory(o)},
        source_{o.model},
        stored_{source_},
        pool_{o.threads > 0 ? o.threads : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()))},
        on_{mixbit::executor_ref{pool_}} {
    if (!o.dry_run && mixbit::lie_in_one_another(o.model, o.out))
      mixbit::fail(mixbit::error_id::usage, "--out ", mixbit::in_quotes(o.out), " and --model ",
                   mixbit::in_quotes(o.model), " lie in one another; results go to a folder apart from the model's");
    made_ = assign(options_, source_, stored_, on_, measuring());
    layer_of_ = by_tensor(made_.layers);
    fused_ = fused_layers(made_.layers);
    names_ = source_.tensors().names();
    std::sort(names_.begin(), names_.end());
    shards_ = mixbit::divided_into_shards(tensors(), mixbit::default_shard_bytes);
  }

  void run() {
    for (auto const& note : made_.notes) std::printf("note: %s\n", note.c_str());
    for (auto const& note : loader_notes()) std::printf("note: %s\n", note.c_str());
    if (options_.dry_run) return show();
    write();
    summary();
  }

 private:
  static options with_memory(options o) {
    o.memory = memory_for_weights(o.memory);
    return o;
  }

  measured measuring() {
    return [bar = std::shared_ptr<progress>{}](std::int64_t done, std::int64_t all) mutable {
      if (!bar) bar = std::make_shared<progress>("measuring", all);
      bar->show(done);
    };
  }

  /// What the output holds, by name.
  std::vector<mixbit::named_geometry> tensors() const {
    std::vector<mixbit::named_geometry> all;
    for (auto const& name : names_) {
      auto const at = layer_of_.find(name);
      if (at == layer_of_.end()) {
        all.push_back({name, source_.tensors().at(name)});
        continue;
      }
      for (auto& t : layer_tensors{*at->second}.all()) {
        if (source_.tensors().contains(t.name) && t.name != name)
          mixbit::fail(mixbit::error_id::file_content, source_.tensors().label(), ": has a tensor ",
                       mixbit::in_quotes(t.name), " already");
        all.push_back(std::move(t));
      }
    }
    std::sort(all.begin(), all.end(), [](auto const& a, auto const& b) { return a.name < b.name; });
    return all;
  }

  std::vector<mixbit::hf_layer> described() const {
    std::vector<mixbit::hf_layer> all;
    for (auto const& l : made_.layers)
      all.push_back({l.name, *l.format, l.weight, l.groups(), mixbit::site_kind::linear});
    return all;
  }

  std::vector<mixbit::ct_layer> compressed() const {
    std::vector<mixbit::ct_layer> all;
    for (auto const& l : made_.layers) all.push_back({l.name, *l.compressed, l.weight, mixbit::site_kind::linear});
    return all;
  }
  bool to_compressed_tensors() const { return options_.to == "compressed-tensors"; }

  std::vector<std::string> loader_notes() const {
    if (to_compressed_tensors()) return mixbit::ct_loader_notes(compressed(), unquantized());
    return mixbit::hf_loader_notes(described(), unquantized());
  }

  /// Why a tensor stays as it is.
  std::string why_kept(std::string const& name) const {
    auto const& why = stored_.why_kept(name);
    return why.empty() ? std::string{"the config gives it no format"} : why;
  }

  std::int64_t source_bytes() const {
    return std::accumulate(names_.begin(), names_.end(), std::int64_t{0}, [&](std::int64_t sum, auto const& n) {
      return sum + source_.tensors().at(n).bytes();
    });
  }
  std::int64_t output_bytes() const {
    std::int64_t bytes = 0;
    for (auto const& shard : shards_)
      for (auto const& t : shard) bytes += t.shape.bytes();
    return bytes;
  }

  static std::string form_of(layer const& l) {
    return std::string{l.compressed ? mixbit::name_of(l.compressed->format) : mixbit::name_of(l.format->algorithm)};
  }

  void show() const {
    std::unordered_map<std::string, std::int64_t> out;
    for (auto const& shard : shards_)
      for (auto const& t : shard) out.emplace(t.name, t.shape.bytes());
    for (auto const& name : names_) {
      auto const t = source_.tensors().at(name);
      std::string what = "unchanged: " + why_kept(name);
      std::int64_t bytes = t.bytes();
      if (auto const at = layer_of_.find(name); at != layer_of_.end()) {
        what = at->second->label + " as " + form_of(*at->second);
        bytes = 0;
        for (auto const& made : layer_tensors{*at->second}.all()) bytes += out.at(made.name);
      }
      std::printf("%-56s %-5s %-14s %12lld -> %12lld  %s\n", name.c_str(), std::string{mixbit::name_of(t.type)}.c_str(),
                  mixbit::to_string(t).c_str(), static_cast<long long>(t.bytes()), static_cast<long long>(bytes),
                  what.c_str());
    }
    summary();
  }

  void summary() const {
    auto const before = static_cast<double>(source_bytes()), after = static_cast<double>(output_bytes());
    std::printf("%zu of %zu tensors quantized, %s -> %s in %zu file(s)\n", made_.layers.size(), names_.size(),
                bytes_text(before).c_str(), bytes_text(after).c_str(), shards_.size());
    if (made_.plan)
      std::printf("%.4f effective bits of %.4f, weight error %.6e (%s)\n", made_.plan->achieved.bits_per_element,
                  options_.target->value(), made_.plan->achieved.score,
                  made_.plan->achieved.optimal ? "proven least" : "best found");
  }

  /// All that the output's bytes depend on. A source file that is changed in place without another size or time is not
  /// seen.
  std::string work() const {
    std::string text = "quantize_checkpoint 1\n";
    for (auto const& s : source_.tensors().shards()) {
      auto const path = source_.folder() / s.name;
      text += s.name + ' ' + std::to_string(fs::file_size(path)) + ' ' +
              std::to_string(fs::last_write_time(path).time_since_epoch().count()) + '\n';
    }
    for (auto const& l : made_.layers)
      text += l.name + ' ' + form_of(l) + ' ' +
              mixbit::attributes_to_json(l.attributes).dump() + '\n';
    return text;
  }

  void write() {
    partial_output files{options_.out, work(), shards_, {{"format", "pt"}}};
    std::int64_t done = 0;
    for (std::size_t i = 0; i < files.done(); ++i) done += source_.tensors().at(names_[i]).bytes();
    if (files.done() > 0)
      std::printf("goes on at tensor %zu of %zu\n", files.done() + 1, names_.size());
    if (files.begins_anew())
      std::printf("begins anew: an earlier run left other work in %s (another model, form or format)\n",
                  options_.out.c_str());
    {
      progress bar{"quantizing", source_bytes(), done};
      for (std::size_t i = files.done(); i < names_.size(); ++i) {
        auto const at = layer_of_.find(names_[i]);
        if (at == layer_of_.end()) files.write(names_[i], 0, source_.tensors().bytes(names_[i]));
        else write_layer(files, *at->second, [&](std::int64_t bytes) { bar.show(done + bytes); });
        files.finished(i + 1);
        bar.show(done += source_.tensors().at(names_[i]).bytes());
      }
    }
    publish(files);
  }

  /// Of the layers that loaders fuse with this one and of its own: fused, they have one scale of the whole.
  float shared_amax(layer const& l) {
    auto const& members = fused_.at(&l);
    if (auto const known = amax_.find(members.front()); known != amax_.end()) return known->second;
    float amax = 0;
    for (auto const* const member : members)
      amax = std::max(amax, weight_rows{on_, *member, source_.tensors().label(), options_.memory}.tensor_amax());
    return amax_[members.front()] = amax;
  }

  void write_layer(partial_output& files, layer const& l, std::function<void(std::int64_t)> const& shown) {
    weight_rows rows{on_, l, source_.tensors().label(), options_.memory};
    layer_tensors const made{l};
    if (l.has_tensor_scale()) rows.share_tensor_amax(shared_amax(l));
    if (l.is_nvfp4()) {
      float const scale = second_scale(l, rows.tensor_scale());
      files.write(made.second.name, 0, std::as_bytes(std::span{&scale, 1}));
    }
    if (!made.shape.name.empty())
      files.write(made.shape.name, 0, std::as_bytes(std::span{l.weight.shape.data(), 2}));
    std::int64_t const row_bytes = l.weight.bytes() / l.weight.shape[0];
    std::int64_t codes = 0, scales = 0;
    rows.encode([&](encoded_rows const& part) {
      auto const scale_bytes = part.scales.empty() ? std::as_bytes(std::span{part.block_scales})
                                                   : std::as_bytes(std::span{part.scales});
      auto const code_bytes = codes_in_file(l, part, pool_);
      files.write(made.codes.name, codes, std::as_bytes(std::span{code_bytes}));
      files.write(made.scales.name, scales, scale_bytes);
      codes += static_cast<std::int64_t>(code_bytes.size());
      scales += static_cast<std::int64_t>(scale_bytes.size());
      shown(part.first * row_bytes);
    });
  }

  void publish(partial_output& files) {
    mixbit::staged_output out{options_.out};
    mixbit::remove_stale_shards(out, {});
    copy_others(out);
    write_configs(out);
    if (made_.plan) mixbit::write_json_file(out.path("plan.json"), mixbit::to_json(*made_.plan));
    else out.remove_stale("plan.json");
    if (shards_.size() > 1)
      mixbit::write_json_file(out.path("model.safetensors.index.json"), mixbit::shard_index(shards_));
    files.move_into(out);
    out.commit();
  }

  void write_configs(mixbit::staged_output& out) const {
    auto config = source_.config();
    if (to_compressed_tensors()) {
      config["quantization_config"] = mixbit::ct_quantization_config(compressed(), unquantized());
      out.remove_stale("hf_quant_config.json");
    } else {
      auto const quant = mixbit::hf_quant_config(described(), exclude(), {}, {});
      config["quantization_config"] = mixbit::hf_quantization_config(described(), quant);
      mixbit::write_json_file(out.path("hf_quant_config.json"), quant, 4);
    }
    mixbit::write_json_file(out.path("config.json"), config, 4);
  }

  /// Modules with a matrix, table or kernel that stays as it is.
  std::vector<std::string> unquantized() const {
    std::vector<std::string> modules;
    for (auto const& name : names_)
      if (auto const module = mixbit::detail::hf::module_of(name);
          module && source_.tensors().at(name).rank >= 2 && !layer_of_.contains(name))
        modules.push_back(*module);
    return modules;
  }

  std::vector<std::string> exclude() const {
    std::vector<std::string> quantized;
    for (auto const& l : made_.layers) quantized.push_back(l.name);
    return mixbit::exclude_patterns(unquantized(), quantized);
  }

  /// The tokenizer and what else lies beside the weights, in folders too.
  void copy_others(mixbit::staged_output& out) const {
    std::set<std::string, std::less<>> const weights{".safetensors", ".bin", ".pt",  ".pth",     ".onnx",
                                                     ".h5",          ".gguf", ".ot", ".msgpack"};
    for (fs::recursive_directory_iterator it{source_.folder()}, end; it != end; ++it) {
      auto const relative = it->path().lexically_relative(source_.folder());
      std::string const name = relative.filename().string();
      bool const written = relative == "config.json" || relative == "hf_quant_config.json" ||
                           relative == "plan.json" || name.ends_with(".index.json");
      if (name.starts_with(".")) it.disable_recursion_pending();
      if (!it->is_regular_file() || written || name.starts_with(".") ||
          weights.contains(relative.extension().string()))
        continue;
      mixbit::write_file_atomically(out.path(relative), mixbit::mapped_file{it->path()}.text());
    }
  }

  options options_;
  mixbit::hf_source source_;
  stored_model stored_;
  mixbit::thread_pool pool_;
  device on_;
  assignment made_;
  std::unordered_map<std::string, layer const*> layer_of_;
  std::unordered_map<layer const*, std::vector<layer const*>> fused_;
  std::unordered_map<layer const*, float> amax_;  ///< of the first of fused layers
  std::vector<std::string> names_;  ///< of the source's tensors; the order of the work
  std::vector<std::vector<mixbit::named_geometry>> shards_;
};

}  // namespace

void run(options const& o) { job{o}.run(); }

}  // namespace quantize_checkpoint
