// Checkpoints of a layerwise calibration: one small safetensors file a layer, written when the layer is done, so that a
// run that was cut short goes on where it stopped.
//
//   mixbit::model_options<B> options;
//   options.checkpoints = mixbit::safetensors_checkpoints<B>();
//   config.algorithm = algorithm_step{"gptq", {{"layerwise", true}, {"layerwise_checkpoint_dir", "run"}}};
//
// A file holds amaxes with their groups and the tensor's own where a search left it, pre_quant_scale, and the weight
// where an algorithm has rewritten it, with the scale that it has in it. Its metadata say which layer it is, under
// which attributes, step and policy it was calibrated, and by a digest from which weight and scales. Other ones are
// refused; what the file cannot know is the data.
#pragma once

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "mixbit/calib/host_floats.hpp"
#include "mixbit/calib/layerwise.hpp"
#include "mixbit/config/json.hpp"
#include "mixbit/io/safetensors_writer.hpp"

namespace mixbit {

namespace detail {

inline std::filesystem::path layer_file(std::string const& folder, std::size_t place) {
  char name[32];
  std::snprintf(name, sizeof name, "layer-%05zu.safetensors", place);
  return std::filesystem::path{folder} / name;
}

/// FNV-1a, 64 bits: tells other weights from these, and is no defence against somebody who wants them to look alike.
class layer_digest {
 public:
  void add(std::vector<float> const& values) {
    add_number(values.size());
    for (float const v : values) add_number(fp::bits(v));
  }
  void add(std::string_view text) {
    add_number(text.size());
    for (char const c : text) add_number(static_cast<unsigned char>(c));
  }
  std::string text() const {
    char hex[17];
    std::snprintf(hex, sizeof hex, "%016llx", static_cast<unsigned long long>(hash_));
    return hex;
  }

 private:
  void add_number(std::uint64_t n) { hash_ = (hash_ ^ n) * 0x100000001b3u; }
  std::uint64_t hash_ = 0xcbf29ce484222325u;
};

/// Of the host's weight, and of what earlier steps have made of it and of its scales.
template <backend B>
std::string digest_of(B& device, calibrated_layer<B> const& layer) {
  layer_digest digest;
  if (layer.weight.data != nullptr) {
    digest.add(concat(name_of(layer.weight.type), ' ', to_string(layer.weight)));
    digest.add(fetch_floats(device, layer.weight));
  }
  auto const& recipe = layer.quantizers();
  if (recipe.weight) digest.add(fetch_floats(device, recipe.weight->view()));
  digest.add(recipe.absorbed_scale);
  for (auto const& q : recipe.quantizers) digest.add(q.pre_quant_scale(device));
  return digest.text();
}

/// What must be the same for a file to stand for a layer's calibration.
template <backend B>
layer_identity identify_layer(calibration<B> const& c, algorithm_step const& step, calibrated_layer<B> const& layer) {
  auto same = step;
  std::erase_if(same.parameters, [](auto const& p) { return p.first == "layerwise_checkpoint_dir"; });
  std::string quantizers;
  for (auto const& q : layer.quantizers().quantizers) {
    quantizers += q.leaf() + (q.enabled() ? " on" : " off");
    for (auto const& a : q.configured()) quantizers += " " + attributes_to_json(a).dump();
    quantizers += ";";
  }
  return {{"layer", layer.name()},
          {"algorithm", algorithm_to_json(same).dump()},
          {"quantizers", quantizers},
          {"numerics", concat(name_of(c.numerics.rules), ' ', name_of(c.numerics.mx))},
          {"weight", digest_of(c.home.device, layer)}};
}

/// The rank, blocks and groups of a partition as numbers of a file, and back.
using partition_numbers = std::array<std::int64_t, 1 + 2 * max_rank>;
inline partition_numbers numbers_of(partition const& p) {
  partition_numbers n{p.rank};
  std::copy(p.block.begin(), p.block.end(), n.begin() + 1);
  std::copy(p.groups.begin(), p.groups.end(), n.begin() + 1 + max_rank);
  return n;
}
inline partition partition_of(partition_numbers const& n) {
  partition p;
  p.rank = static_cast<std::int8_t>(n[0]);
  std::copy_n(n.begin() + 1, max_rank, p.block.begin());
  std::copy_n(n.begin() + 1 + max_rank, max_rank, p.groups.begin());
  return p;
}

/// Tensors of a file, with memory of their own.
class owned_tensors {
 public:
  void add(std::string name, geometry const& shape, void const* data) {
    auto& bytes = memory_.emplace_back(static_cast<std::size_t>(shape.bytes()));
    if (!bytes.empty()) std::memcpy(bytes.data(), data, bytes.size());
    all_.push_back({std::move(name), {shape, bytes.data()}});
  }
  void add(std::string name, std::vector<float> const& values) {
    add(std::move(name), dense_geometry(dtype::f32, {static_cast<std::int64_t>(values.size())}), values.data());
  }
  std::span<named_tensor const> all() const { return all_; }

 private:
  std::vector<std::vector<std::byte>> memory_;
  std::vector<named_tensor> all_;
};

/// One quantizer's scale and amaxes.
template <backend B>
void add_quantizer(owned_tensors& tensors, sequential_quantizer<B> const& q, B& device) {
  if (q.has_pre_quant_scale()) tensors.add(q.leaf() + ".pre_quant_scale", q.pre_quant_scale(device));
  for (std::size_t i = 0; i < q.members().size(); ++i) {
    auto const& member = q.members()[i];
    if (member.bias() && member.bias()->is_static())
      fail(error_id::config_conflict, member.name(), ": a layer's checkpoint does not hold a static bias");
    if (!member.has_amax()) continue;
    auto const name = concat(q.leaf(), ".", i);
    auto const groups = numbers_of(member.groups());
    tensors.add(name + ".amax", member.amax(device));
    tensors.add(name + ".groups", dense_geometry(dtype::i64, {static_cast<std::int64_t>(groups.size())}),
                groups.data());
    if (member.holds_tensor_amax()) tensors.add(name + ".tensor_amax", {member.tensor_amax(device, {})});
  }
}

template <backend B>
void save_layer(kept_layer const& kept, calibrated_layer<B> const& layer, B& device) {
  auto const& recipe = layer.quantizers();
  if (recipe.branch)
    fail(error_id::config_conflict, layer.name(), ": a layer's checkpoint does not hold a low-rank branch; run ",
         "svdquant without layerwise_checkpoint_dir");
  owned_tensors tensors;
  for (auto const& q : recipe.quantizers) add_quantizer(tensors, q, device);
  if (auto const& held = recipe.weight) {
    auto const w = held->view();
    std::vector<std::byte> bytes(static_cast<std::size_t>(w.bytes()));
    device.copy_to_host(bytes.data(), w.data, bytes.size());
    geometry on_host = w;
    on_host.where = mixbit::device::cpu;
    tensors.add("weight", on_host, bytes.data());
    if (!recipe.absorbed_scale.empty()) tensors.add("absorbed_scale", recipe.absorbed_scale);
  }
  std::filesystem::create_directories(kept.folder);
  write_safetensors(layer_file(kept.folder, kept.place), tensors.all(), kept.identity);
}

/// What the file does not hold of a quantizer it did not have.
template <backend B>
void take_quantizer(safetensors_file const& file, sequential_quantizer<B>& q, B& device) {
  auto const scale = q.leaf() + ".pre_quant_scale";
  q.set_pre_quant_scale(device, file.contains(scale) ? file.read_as_float(scale) : std::vector<float>{});
  for (std::size_t i = 0; i < q.members().size(); ++i) {
    auto& member = q.members()[i];
    auto const name = concat(q.leaf(), ".", i);
    if (!file.contains(name + ".amax")) continue;
    partition_numbers groups{};
    auto const bytes = file.bytes(name + ".groups");
    if (bytes.size() != sizeof groups)
      fail(error_id::file_content, file.label(), ": '", name, ".groups' is cut short");
    std::memcpy(groups.data(), bytes.data(), sizeof groups);
    member.forget();
    member.set_amax(device, partition_of(groups), file.read_as_float(name + ".amax"));
    if (!file.contains(name + ".tensor_amax")) continue;
    auto const whole = file.read_as_float(name + ".tensor_amax");
    if (whole.size() != 1) fail(error_id::file_content, file.label(), ": '", name, ".tensor_amax' is not one value");
    member.hold_tensor_amax(device, whole.front());
  }
}

template <backend B>
bool load_layer(kept_layer const& kept, calibrated_layer<B> const& layer, B& device) {
  auto const path = layer_file(kept.folder, kept.place);
  if (!std::filesystem::exists(path)) return false;
  auto const file = safetensors_file::open(path);
  for (auto const& entry : kept.identity)
    if (std::find(file.metadata().begin(), file.metadata().end(), entry) == file.metadata().end())
      fail(error_id::file_content, file.label(), ": is not of ", layer.name(), " with this ", entry.first,
           "; give another layerwise_checkpoint_dir, or remove it");
  for (auto& q : layer.quantizers().quantizers) take_quantizer(file, q, device);
  if (file.contains("weight")) {
    auto const w = file.at("weight");
    if (!w.same_shape(layer.weight) || w.type != layer.weight.type)
      fail(error_id::file_content, file.label(), ": 'weight' is ", to_string(w), ", and the layer's ",
           to_string(layer.weight));
    geometry dense = dense_geometry(w.type, std::span{w.shape.data(), static_cast<std::size_t>(w.rank)});
    dense.where = layer.weight.where;
    auto& held = layer.quantizers().weight.emplace(device, dense);
    device.copy_from_host(held.view().data, file.bytes("weight").data(), static_cast<std::size_t>(w.bytes()));
    layer.quantizers().absorbed_scale =
        file.contains("absorbed_scale") ? file.read_as_float("absorbed_scale") : std::vector<float>{};
  }
  layer.where->refresh();
  return true;
}

}  // namespace detail

template <backend B>
layer_checkpoints<B> safetensors_checkpoints() {
  return {detail::identify_layer<B>, detail::load_layer<B>, detail::save_layer<B>};
}

}  // namespace mixbit
