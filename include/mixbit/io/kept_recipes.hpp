// Kept recipes (quantizer/kept_recipe.hpp) as tensors and metadata of a safetensors file, and back.
//
// Under a prefix of its own a recipe is: LEAF.pre_quant_scale; of the quantizer's member I LEAF.I.amax with
// LEAF.I.groups, LEAF.I.tensor_amax where it is not the largest of those, LEAF.I.bias with LEAF.I.bias_groups; weight
// with absorbed_scale; branch.down, branch.up and branch.negative. Metadata LEAF.attributes are a JSON list, where a
// calibration has changed them.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "mixbit/config/json.hpp"
#include "mixbit/io/quantizer_tensors.hpp"
#include "mixbit/quantizer/kept_recipe.hpp"

namespace mixbit {

namespace detail {

inline void add_member(file_tensors& tensors, std::string const& name, kept_member const& m) {
  if (!m.amax.empty()) {
    tensors.add(name + ".amax", m.amax);
    tensors.add_groups(name + ".groups", m.groups);
  }
  if (m.tensor_amax) tensors.add(name + ".tensor_amax", {*m.tensor_amax});
  if (m.bias.empty()) return;
  tensors.add(name + ".bias", m.bias);
  tensors.add_groups(name + ".bias_groups", m.bias_groups);
}
inline kept_member read_member(safetensors_file const& file, std::string const& name) {
  kept_member m;
  if (file.contains(name + ".amax")) {
    m.amax = file.read_as_float(name + ".amax");
    m.groups = read_groups(file, name + ".groups", m.amax.size());
  }
  if (file.contains(name + ".tensor_amax")) {
    auto const whole = file.read_as_float(name + ".tensor_amax");
    if (whole.size() != 1) fail(error_id::file_content, file.label(), ": '", name, ".tensor_amax' is not one value");
    m.tensor_amax = whole.front();
  }
  if (!file.contains(name + ".bias")) return m;
  m.bias = file.read_as_float(name + ".bias");
  m.bias_groups = read_groups(file, name + ".bias_groups", m.bias.size());
  return m;
}

inline kept_tensor read_tensor(safetensors_file const& file, std::string const& name) {
  auto const bytes = file.bytes(name);
  return {file.at(name), {bytes.begin(), bytes.end()}};
}
inline void add_tensor(file_tensors& tensors, std::string name, kept_tensor const& t) {
  tensors.add(std::move(name), t.shape, t.bytes.data());
}

/// A file's metadata by key: a search keeps thousands.
using metadata_map = std::map<std::string, std::string, std::less<>>;
inline metadata_map map_of(safetensors_metadata const& metadata) { return {metadata.begin(), metadata.end()}; }

inline void add_recipe(file_tensors& tensors, safetensors_metadata& metadata, std::string const& prefix,
                       kept_recipe const& k) {
  for (auto const& q : k.quantizers) {
    auto const leaf = prefix + q.leaf;
    if (!q.attributes.empty()) {
      auto list = json_document::array();
      for (auto const& a : q.attributes) list.push_back(attributes_to_json(a));
      metadata.emplace_back(leaf + ".attributes", list.dump());
    }
    if (!q.pre_quant_scale.empty()) tensors.add(leaf + ".pre_quant_scale", q.pre_quant_scale);
    for (std::size_t i = 0; i < q.members.size(); ++i) add_member(tensors, concat(leaf, '.', i), q.members[i]);
  }
  if (k.weight) add_tensor(tensors, prefix + "weight", *k.weight);
  if (k.weight && !k.absorbed_scale.empty()) tensors.add(prefix + "absorbed_scale", k.absorbed_scale);
  if (!k.branch) return;
  add_tensor(tensors, prefix + "branch.down", k.branch->down);
  add_tensor(tensors, prefix + "branch.up", k.branch->up);
  add_tensor(tensors, prefix + "branch.negative", k.branch->negative);
}

/// Makes of a recipe with the same quantizers what the file holds; what it does not hold, the recipe did not have.
inline void read_recipe(safetensors_file const& file, metadata_map const& metadata, std::string const& prefix,
                        kept_recipe& k) {
  auto const floats = [&](std::string const& name) {
    return file.contains(name) ? file.read_as_float(name) : std::vector<float>{};
  };
  for (auto& q : k.quantizers) {
    auto const leaf = prefix + q.leaf;
    q.attributes.clear();
    if (auto const at = metadata.find(leaf + ".attributes"); at != metadata.end()) {
      auto const where = file.label() + ": " + at->first;
      auto const list = parse_json_strict(at->second, where, error_id::file_content);
      for (auto const& a : list)
        q.attributes.push_back(attributes_from_json(a, where));
    }
    q.pre_quant_scale = floats(leaf + ".pre_quant_scale");
    for (std::size_t i = 0; i < q.members.size(); ++i) q.members[i] = read_member(file, concat(leaf, '.', i));
  }
  k.weight.reset();
  k.branch.reset();
  if (file.contains(prefix + "weight")) k.weight = read_tensor(file, prefix + "weight");
  k.absorbed_scale = floats(prefix + "absorbed_scale");
  if (file.contains(prefix + "branch.down"))
    k.branch = {read_tensor(file, prefix + "branch.down"), read_tensor(file, prefix + "branch.up"),
                read_tensor(file, prefix + "branch.negative")};
}

}  // namespace detail

}  // namespace mixbit
