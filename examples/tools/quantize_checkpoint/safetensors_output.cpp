#include "safetensors_output.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <filesystem>
#include <numeric>
#include <span>
#include <string_view>
#include <utility>

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
  for (auto const& t : layer_tensors{l}.parts)
    if (t.suffix != nullptr) bytes += t.shape.bytes();
  return bytes;
}

}  // namespace

safetensors_output::safetensors_output(task const& work)
    : task_{work}, amaxes_{work.made.layers, [this](layer const& l) { return task_.rows_of(l).tensor_amax(); }} {
  find_tensors();
  place_tensors();
}

void safetensors_output::find_tensors() {
  auto const& source = task_.source.tensors();
  for (std::uint32_t i = 0; i < task_.names.size(); ++i) {
    std::string_view const name = task_.names[i];
    auto const* const l = task_.layer_of(name);
    if (l == nullptr) {
      auto const t = source.at(name);
      tensors_.push_back({name, "", t.bytes(), 0, i, 0, t.type});
      continue;
    }
    layer_tensors const made{*l};
    for (std::uint8_t part = 0; part < made.parts.size(); ++part) {
      auto const& t = made.parts[part];
      if (t.suffix == nullptr) continue;
      tensors_.push_back({l->name, t.suffix, t.shape.bytes(), 0, i, 0, t.shape.type, part});
      if (auto const made_name = tensors_.back().name(); made_name != name && source.contains(made_name))
        mixbit::fail(mixbit::error_id::file_content, source.label_of(made_name), ": has a tensor ",
                     mixbit::in_quotes(made_name), " already");
    }
  }
}

/// Without making names, of which most differ within the shorter base.
bool safetensors_output::is_before(placed const& a, placed const& b) {
  std::size_t const both = std::min(a.base.size(), b.base.size());
  if (int const c = a.base.compare(0, both, b.base, 0, both); c != 0) return c < 0;
  return std::string{a.base.substr(both)}.append(a.suffix) < std::string{b.base.substr(both)}.append(b.suffix);
}

bool safetensors_output::lies_before(placed const& a, placed const& b) {
  if (a.file != b.file) return a.file < b.file;
  auto const left = mixbit::detail::safetensors_rank(a.type), right = mixbit::detail::safetensors_rank(b.type);
  return left != right ? left > right : is_before(a, b);
}

void safetensors_output::place_tensors() {
  order_.resize(tensors_.size());
  std::iota(order_.begin(), order_.end(), 0u);
  auto const sort_by = [&](auto const& before) {
    std::sort(order_.begin(), order_.end(),
              [&](std::uint32_t a, std::uint32_t b) { return before(tensors_[a], tensors_[b]); });
  };
  sort_by(is_before);
  mixbit::shard_division division{task_.wanted.shard_bytes};
  for (auto const i : order_) tensors_[i].file = static_cast<std::uint32_t>(division.add(tensors_[i].bytes));
  sort_by(lies_before);
  sizes_.resize(division.file_count());
  for (std::size_t file = 0; file < sizes_.size(); ++file)
    show_head(file, [&](std::string_view piece) { sizes_[file] += static_cast<std::int64_t>(piece.size()); });
  for (auto const i : order_) {
    tensors_[i].offset = sizes_[tensors_[i].file];
    sizes_[tensors_[i].file] += tensors_[i].bytes;
  }
}

void safetensors_output::show_head(std::size_t file, partial_file::put_text const& put) const {
  auto const each = [&](auto const& visit) {
    for (auto const i : order_) {
      auto const& t = tensors_[i];
      if (t.file != file) continue;
      auto const source = task_.names[t.source];
      auto const* const l = task_.layer_of(source);
      visit(mixbit::named_geometry{t.name(), l == nullptr ? mixbit::geometry{task_.source.tensors().at(source)}
                                                          : layer_tensors{*l}.parts[t.part].shape});
    }
  };
  auto const path = fs::path{task_.wanted.out} / mixbit::shard_name(file, sizes_.size());
  mixbit::write_safetensors_head(path, each, {{"format", "pt"}}, put);
}

std::vector<partial_file> safetensors_output::files() const {
  std::vector<partial_file> files;
  for (std::size_t i = 0; i < sizes_.size(); ++i)
    files.push_back({mixbit::shard_name(i, sizes_.size()), sizes_[i],
                     [this, i](partial_file::put_text const& put) { show_head(i, put); }});
  return files;
}

std::span<safetensors_output::placed const> safetensors_output::placed_of(std::string_view tensor) const {
  auto const at = std::lower_bound(task_.names.begin(), task_.names.end(), tensor) - task_.names.begin();
  auto const behind = [](placed const& t, std::ptrdiff_t i) { return t.source < i; };
  auto const first = std::lower_bound(tensors_.begin(), tensors_.end(), at, behind);
  return {first, std::lower_bound(first, tensors_.end(), at + 1, behind)};
}

mixbit::hf_layer safetensors_output::described(layer const& l) const {
  return {l.name, *l.how->modelopt, l.weight, l.groups(), mixbit::site_kind::linear};
}

mixbit::ct_layer safetensors_output::compressed(layer const& l) const {
  return {l.name, *l.how->compressed, l.weight, mixbit::site_kind::linear};
}

template <class Describe>
auto safetensors_output::all_layers(Describe const& describe) const {
  std::vector<decltype(describe(task_.made.layers.front()))> all;
  all.reserve(task_.made.layers.size());
  for (auto const& l : task_.made.layers) all.push_back(describe(l));
  return all;
}

std::vector<std::string> safetensors_output::notes() const {
  if (is_compressed())
    return mixbit::ct_loader_notes(all_layers([&](layer const& l) { return compressed(l); }), unquantized());
  return mixbit::hf_loader_notes(all_layers([&](layer const& l) { return described(l); }), unquantized());
}

becoming safetensors_output::of(std::string_view tensor) const {
  if (auto const* const l = task_.layer_of(tensor)) return {l->how->label + " as " + l->how->form(), bytes_of(*l)};
  return {"unchanged: " + task_.why_kept(tensor), task_.source.tensors().at(tensor).bytes()};
}

void safetensors_output::write(partial_output& files, std::string_view tensor, shown const& show) {
  auto const to = placed_of(tensor);
  if (auto const* const l = task_.layer_of(tensor)) write_layer(files, *l, to, show);
  else files.write(to.front().file, to.front().offset, task_.source.tensors().bytes(tensor));
}

void safetensors_output::write_layer(partial_output& files, layer const& l, std::span<placed const> to,
                                     shown const& show) {
  auto rows = task_.rows_of(l);
  std::array<std::int64_t, 4> written{};
  auto const write = [&](layer_tensors::part part, std::span<std::byte const> bytes) {
    auto const& at = *std::ranges::find(to, part, &placed::part);
    files.write(at.file, at.offset + written[part], bytes);
    written[part] += static_cast<std::int64_t>(bytes.size());
  };
  if (l.how->has_tensor_scale())
    rows.share_tensor_amax(amaxes_.of(static_cast<std::size_t>(&l - task_.made.layers.data())));
  if (l.how->is_nvfp4()) {
    float const scale = second_scale(l, rows.tensor_scale());
    write(layer_tensors::second, std::as_bytes(std::span{&scale, 1}));
  }
  if (to.back().part == layer_tensors::shape)
    write(layer_tensors::shape, std::as_bytes(std::span{l.weight.shape.data(), 2}));
  std::int64_t const row_bytes = l.weight.bytes() / l.weight.shape[0];
  rows.encode([&](encoded_rows& part) {
    write(layer_tensors::scales, part.scales.empty() ? std::as_bytes(std::span{part.block_scales})
                                                     : std::as_bytes(std::span{part.scales}));
    auto const first = part.first;
    auto const codes = codes_in_file(l, std::move(part), task_.threads);
    write(layer_tensors::codes, std::as_bytes(std::span{codes}));
    show(first * row_bytes);
  });
}

void safetensors_output::write_others(mixbit::staged_output& out) const {
  mixbit::remove_stale_shards(out, {});
  copy_others(out);
  write_configs(out);
  if (!task_.made.plan) out.remove_stale("plan.json");
  if (sizes_.size() > 1) write_index(out);
}

std::string safetensors_output::depends_on(layer const& one_of_format) const {
  if (is_compressed()) return mixbit::ct_quantization_config({compressed(one_of_format)}, {}).dump();
  return mixbit::hf_quant_config({described(one_of_format)}, {}, {}, {}).dump();
}

void safetensors_output::write_configs(mixbit::staged_output& out) const {
  auto config = task_.source.config();
  if (is_compressed()) {
    auto const layers = all_layers([&](layer const& l) { return compressed(l); });
    config["quantization_config"] = mixbit::ct_quantization_config(layers, unquantized());
    out.remove_stale("hf_quant_config.json");
  } else {
    auto const layers = all_layers([&](layer const& l) { return described(l); });
    auto const quant = mixbit::hf_quant_config(layers, exclude(), {}, {});
    config["quantization_config"] = mixbit::hf_quantization_config(layers, quant);
    mixbit::write_json_file(out.path("hf_quant_config.json"), quant, 4);
  }
  mixbit::write_json_file(out.path("config.json"), config, 4);
  out.publish_last("config.json");
}

/// As shard_index() has it, by name; in pieces, since it names every tensor.
void safetensors_output::write_index(mixbit::staged_output& out) const {
  auto by_name = order_;
  std::sort(by_name.begin(), by_name.end(),
            [&](std::uint32_t a, std::uint32_t b) { return is_before(tensors_[a], tensors_[b]); });
  std::int64_t total = 0;
  for (auto const& t : tensors_) total += t.bytes;
  auto const path = out.path("model.safetensors.index.json");
  mixbit::atomic_file file{path};
  file.write("{\n  \"metadata\": {\n    \"total_size\": " + std::to_string(total) + "\n  },\n  \"weight_map\": {");
  char const* separator = "\n    ";
  for (auto const i : by_name) {
    auto const& t = tensors_[i];
    file.write(separator + mixbit::dump_json(t.name(), mixbit::in_quotes(path)) + ": \"" +
               mixbit::shard_name(t.file, sizes_.size()) + '"');
    separator = ",\n    ";
  }
  file.write(std::string_view{"\n  }\n}\n"});
  file.commit();
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
