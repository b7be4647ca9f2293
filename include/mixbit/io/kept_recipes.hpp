// Kept recipes (quantizer/kept_recipe.hpp) as tensors and metadata of a safetensors file, and back.
//
// Under a prefix of its own a recipe is: LEAF.pre_quant_scale; of the quantizer's member I LEAF.I.amax with
// LEAF.I.groups, LEAF.I.tensor_amax where it is not the largest of those, LEAF.I.bias with LEAF.I.bias_groups; weight
// with absorbed_scale; branch.down, branch.up and branch.negative. Metadata LEAF.attributes are a JSON list, where a
// calibration has changed them.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "mixbit/config/json.hpp"
#include "mixbit/io/safetensors_writer.hpp"
#include "mixbit/quantizer/kept_recipe.hpp"

namespace mixbit {

namespace detail {

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

inline void add_groups(owned_tensors& tensors, std::string name, partition const& p) {
  auto const numbers = numbers_of(p);
  tensors.add(std::move(name), dense_geometry(dtype::i64, {static_cast<std::int64_t>(numbers.size())}),
              numbers.data());
}
inline partition read_groups(safetensors_file const& file, std::string const& name) {
  partition_numbers numbers{};
  auto const bytes = file.bytes(name);
  if (bytes.size() != sizeof numbers) fail(error_id::file_content, file.label(), ": '", name, "' is cut short");
  std::memcpy(numbers.data(), bytes.data(), sizeof numbers);
  if (numbers[0] < 0 || numbers[0] > max_rank || *std::min_element(numbers.begin() + 1, numbers.end()) < 1)
    fail(error_id::file_content, file.label(), ": '", name, "' divides no tensor");
  return partition_of(numbers);
}

inline void add_member(owned_tensors& tensors, std::string const& name, kept_member const& m) {
  if (!m.amax.empty()) {
    tensors.add(name + ".amax", m.amax);
    add_groups(tensors, name + ".groups", m.groups);
  }
  if (m.tensor_amax) tensors.add(name + ".tensor_amax", {*m.tensor_amax});
  if (m.bias.empty()) return;
  tensors.add(name + ".bias", m.bias);
  add_groups(tensors, name + ".bias_groups", m.bias_groups);
}
inline kept_member read_member(safetensors_file const& file, std::string const& name) {
  kept_member m;
  if (file.contains(name + ".amax")) {
    m.amax = file.read_as_float(name + ".amax");
    m.groups = read_groups(file, name + ".groups");
  }
  if (file.contains(name + ".tensor_amax")) {
    auto const whole = file.read_as_float(name + ".tensor_amax");
    if (whole.size() != 1) fail(error_id::file_content, file.label(), ": '", name, ".tensor_amax' is not one value");
    m.tensor_amax = whole.front();
  }
  if (!file.contains(name + ".bias")) return m;
  m.bias = file.read_as_float(name + ".bias");
  m.bias_groups = read_groups(file, name + ".bias_groups");
  return m;
}

inline kept_tensor read_tensor(safetensors_file const& file, std::string const& name) {
  auto const bytes = file.bytes(name);
  return {file.at(name), {bytes.begin(), bytes.end()}};
}
inline void add_tensor(owned_tensors& tensors, std::string name, kept_tensor const& t) {
  tensors.add(std::move(name), t.shape, t.bytes.data());
}

/// A file's metadata by key: a search keeps thousands.
using metadata_map = std::map<std::string, std::string, std::less<>>;
inline metadata_map map_of(safetensors_metadata const& metadata) { return {metadata.begin(), metadata.end()}; }

inline void add_recipe(owned_tensors& tensors, safetensors_metadata& metadata, std::string const& prefix,
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
