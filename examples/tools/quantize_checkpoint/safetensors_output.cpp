#include "safetensors_output.hpp"

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <span>
#include <string_view>
#include <utility>

#include "fused_layers.hpp"
#include "layer_tensors.hpp"
#include "mixbit/io/copy_file.hpp"
#include "mixbit/io/ct_loader_notes.hpp"
#include "mixbit/io/hf_config.hpp"
#include "mixbit/io/hf_loader_notes.hpp"
#include "mixbit/io/hf_tied.hpp"
#include "mixbit/io/safetensors_shards.hpp"
#include "other_files.hpp"

namespace quantize_checkpoint {

namespace fs = std::filesystem;

namespace {

std::int64_t bytes_of(layer const& l) {
  std::int64_t bytes = 0;
  for (auto const& t : layer_tensors{l}.all()) bytes += t.shape.bytes();
  return bytes;
}

}  // namespace

safetensors_output::safetensors_output(task const& work)
    : task_{work},
      fused_{fused_layers(work.made.layers)},
      shards_{mixbit::divided_into_shards(tensors(), mixbit::default_shard_bytes)} {}

/// What the output holds, by name.
std::vector<mixbit::named_geometry> safetensors_output::tensors() const {
  auto const& source = task_.source.tensors();
  std::vector<mixbit::named_geometry> all;
  for (auto const& name : task_.names) {
    auto const* const l = task_.layer_of(name);
    if (l == nullptr) {
      all.push_back({name, source.at(name)});
      continue;
    }
    for (auto& t : layer_tensors{*l}.all()) {
      if (source.contains(t.name) && t.name != name)
        mixbit::fail(mixbit::error_id::file_content, source.label_of(t.name), ": has a tensor ",
                     mixbit::in_quotes(t.name), " already");
      all.push_back(std::move(t));
    }
  }
  std::sort(all.begin(), all.end(), [](auto const& a, auto const& b) { return a.name < b.name; });
  return all;
}

std::vector<mixbit::hf_layer> safetensors_output::described() const {
  std::vector<mixbit::hf_layer> all;
  for (auto const& l : task_.made.layers)
    all.push_back({l.name, *l.format, l.weight, l.groups(), mixbit::site_kind::linear});
  return all;
}

std::vector<mixbit::ct_layer> safetensors_output::compressed() const {
  std::vector<mixbit::ct_layer> all;
  for (auto const& l : task_.made.layers) all.push_back({l.name, *l.compressed, l.weight, mixbit::site_kind::linear});
  return all;
}

std::vector<std::string> safetensors_output::notes() const {
  if (is_compressed()) return mixbit::ct_loader_notes(compressed(), unquantized());
  return mixbit::hf_loader_notes(described(), unquantized());
}

std::vector<partial_file> safetensors_output::files() const {
  std::vector<partial_file> files;
  for (std::size_t i = 0; i < shards_.size(); ++i) {
    auto const name = mixbit::shard_name(i, shards_.size());
    auto const path = fs::path{task_.wanted.out} / name;
    partial_file file{name, mixbit::safetensors_head(path, shards_[i], {{"format", "pt"}})};
    file.size = static_cast<std::int64_t>(file.head.size());
    for (auto const& t : shards_[i]) {
      file.offsets.emplace_back(t.name, file.size);
      file.size += t.shape.bytes();
    }
    files.push_back(std::move(file));
  }
  return files;
}

becoming safetensors_output::of(std::string const& tensor) const {
  if (auto const* const l = task_.layer_of(tensor)) return {l->label + " as " + l->form(), bytes_of(*l)};
  return {"unchanged: " + task_.why_kept(tensor), task_.source.tensors().at(tensor).bytes()};
}

void safetensors_output::write(partial_output& files, std::string const& tensor, shown const& show) {
  if (auto const* const l = task_.layer_of(tensor)) write_layer(files, *l, show);
  else files.write(tensor, 0, task_.source.tensors().bytes(tensor));
}

/// Of the layers that loaders fuse with this one and of its own: fused, they have one scale of the whole.
float safetensors_output::shared_amax(layer const& l) {
  auto const& layers = task_.made.layers;
  auto const& members = fused_[static_cast<std::size_t>(&l - layers.data())];
  if (auto const known = amax_.find(members.front()); known != amax_.end()) return known->second;
  float amax = 0;
  for (std::size_t const member : members) amax = std::max(amax, task_.rows_of(layers[member]).tensor_amax());
  return amax_[members.front()] = amax;
}

void safetensors_output::write_layer(partial_output& files, layer const& l, shown const& show) {
  auto rows = task_.rows_of(l);
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
    auto const code_bytes = codes_in_file(l, part, task_.threads);
    files.write(made.codes.name, codes, std::as_bytes(std::span{code_bytes}));
    files.write(made.scales.name, scales, scale_bytes);
    codes += static_cast<std::int64_t>(code_bytes.size());
    scales += static_cast<std::int64_t>(scale_bytes.size());
    show(part.first * row_bytes);
  });
}

void safetensors_output::write_others(mixbit::staged_output& out) const {
  mixbit::remove_stale_shards(out, {});
  copy_others(out);
  write_configs(out);
  if (!task_.made.plan) out.remove_stale("plan.json");
  if (shards_.size() > 1)
    mixbit::write_json_file(out.path("model.safetensors.index.json"), mixbit::shard_index(shards_));
}

mixbit::json_document safetensors_output::quantization() const {
  if (is_compressed()) return mixbit::ct_quantization_config(compressed(), unquantized());
  return mixbit::hf_quant_config(described(), exclude(), {}, {});
}

void safetensors_output::write_configs(mixbit::staged_output& out) const {
  auto config = task_.source.config();
  if (is_compressed()) {
    config["quantization_config"] = quantization();
    out.remove_stale("hf_quant_config.json");
  } else {
    auto const quant = quantization();
    config["quantization_config"] = mixbit::hf_quantization_config(described(), quant);
    mixbit::write_json_file(out.path("hf_quant_config.json"), quant, 4);
  }
  mixbit::write_json_file(out.path("config.json"), config, 4);
  out.publish_last("config.json");
}

/// Modules with a matrix, table or kernel that stays as it is.
std::vector<std::string> safetensors_output::unquantized() const {
  std::vector<std::string> modules;
  for (auto const& name : task_.names)
    if (auto const module = mixbit::detail::hf::module_of(name);
        module && task_.source.tensors().at(name).rank >= 2 && task_.layer_of(name) == nullptr)
      modules.push_back(*module);
  return modules;
}

std::vector<std::string> safetensors_output::exclude() const {
  std::vector<std::string> quantized;
  for (auto const& l : task_.made.layers) quantized.push_back(l.name);
  return mixbit::exclude_patterns(unquantized(), quantized);
}

void safetensors_output::copy_others(mixbit::staged_output& out) const {
  for (auto const& file : other_files(task_.source.folder()))
    mixbit::copy_file_atomically(task_.source.folder() / file, out.path(file));
}

}  // namespace quantize_checkpoint
