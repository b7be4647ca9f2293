// What a calibration has made of one module's quantizers, as tensors of a safetensors file and back: amaxes with their
// groups, biases, pre_quant_scales, a rewritten weight, a low-rank branch: the state of a model (io/state.hpp) puts a
// recipe under a prefix of its own. Recipes that are apart from a model: io/kept_recipes.hpp.
//
//   LEAF.pre_quant_scale             float32 [channels]
//   LEAF.I.amax, .groups             float32 [groups]; rank, block sizes and group counts as int64
//   LEAF.I.tensor_amax               float32 [1], where it is not the largest of the groups'
//   LEAF.I.seen                      no elements: its type is that of the tensors it was calibrated on, if not float32
//   LEAF.I.bias, .bias_groups        of a static affine quantizer
//   rewritten_weight                 in PyTorch's axis order
//   absorbed_scale                   float32 [in]
//   branch.down, .up, .negative      [rank, in], [out, rank], [out, in]
//   packed.codes, .scales            of a compressed weight: bytes; one a group, in the type in which a file has them
//   packed.block_scales              float32, of double quantization
//   packed.tensor_scale              float32 [1], where the format has one
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "mixbit/calib/host_floats.hpp"
#include "mixbit/core/digest.hpp"
#include "mixbit/io/safetensors_writer.hpp"
#include "mixbit/quantizer/site.hpp"

namespace mixbit::detail {

/// The rank, blocks and groups of a partition as numbers of a file, and back.
using partition_numbers = std::array<std::int64_t, 1 + 2 * max_rank>;
inline partition_numbers numbers_of(partition const& p) {
  partition_numbers n{p.rank};
  std::copy(p.block.begin(), p.block.end(), n.begin() + 1);
  std::copy(p.groups.begin(), p.groups.end(), n.begin() + 1 + max_rank);
  return n;
}

/// Tensors of a file to be written.
class file_tensors {
 public:
  /// Copies the elements, which are dense.
  void add(std::string name, geometry const& shape, void const* data) {
    add_copy(std::move(name), shape, [&](void* to, std::size_t bytes) { std::memcpy(to, data, bytes); });
  }
  void add(std::string name, std::vector<float> const& values) {
    add(std::move(name), dense_geometry(dtype::f32, {static_cast<std::int64_t>(values.size())}), values.data());
  }
  void add_groups(std::string const& name, partition const& groups) {
    auto const n = numbers_of(groups);
    add(name, dense_geometry(dtype::i64, {static_cast<std::int64_t>(n.size())}), n.data());
  }
  /// Memory of the backend: on a CPU it is looked at where it lies, so it has to stay; else it is dense, and copied.
  template <backend B>
  void add_held(std::string name, B& device, const_tensor_ref const& dense) {
    if constexpr (B::place == mixbit::device::cpu)
      all_.push_back({std::move(name), dense});
    else
      add_copy(std::move(name), dense, [&](void* to, std::size_t n) { device.copy_to_host(to, dense.data, n); });
  }
  std::span<named_tensor const> all() const { return all_; }

 private:
  template <class Fill>
  void add_copy(std::string name, geometry shape, Fill&& fill) {
    auto& bytes = memory_.emplace_back(static_cast<std::size_t>(shape.bytes()));
    if (!bytes.empty()) fill(bytes.data(), bytes.size());
    shape.where = device::cpu;
    all_.push_back({std::move(name), {shape, bytes.data()}});
  }

  std::deque<std::vector<std::byte>> memory_;
  std::vector<named_tensor> all_;
};

/// A weight in PyTorch's order: its type, shape and values.
template <backend B>
void add_weight(content_digest& digest, B& device, const_tensor_ref const& weight) {
  digest.add(concat(name_of(weight.type), ' ', to_string(weight)));
  digest.add(fetch_floats(device, weight));
}

template <backend B>
void add_member(file_tensors& tensors, std::string const& name, tensor_quantizer<B> const& member, B& device) {
  if (auto const* const bias = member.bias(); bias != nullptr && bias->is_static() && bias->has_value()) {
    tensors.add(name + ".bias", bias->values());
    tensors.add_groups(name + ".bias_groups", bias->groups());
  }
  if (!member.has_amax()) return;
  tensors.add(name + ".amax", member.amax(device));
  tensors.add_groups(name + ".groups", member.groups());
  if (member.seen_type() != dtype::f32) tensors.add(name + ".seen", dense_geometry(member.seen_type(), {0}), nullptr);
  if (member.holds_tensor_amax()) tensors.add(name + ".tensor_amax", {member.tensor_amax(device, {})});
}

template <backend B>
void add_packed(file_tensors& tensors, std::string const& name, packed_weight<B> const& packed, B& device) {
  auto const arrays = packed.arrays(device);
  auto const add_bytes = [&](char const* what, dtype type, std::vector<std::uint8_t> const& bytes) {
    auto const count = static_cast<std::int64_t>(bytes.size() / size_of(type));
    tensors.add(name + what, dense_geometry(type, {count}), bytes.data());
  };
  add_bytes(".codes", dtype::u8, arrays.codes);
  add_bytes(".scales", packed.how().scale_block > 0 ? dtype::i8 : packed.how().scale_type, arrays.scales);
  if (!arrays.block_scales.empty()) tensors.add(name + ".block_scales", arrays.block_scales);
  if (!arrays.tensor_scale.empty()) tensors.add(name + ".tensor_scale", arrays.tensor_scale);
}

/// What calibration has left of a recipe.
template <backend B>
void add_recipe(file_tensors& tensors, std::string const& prefix, recipe_quantizers<B> const& recipe, B& device) {
  for (auto const& q : recipe.quantizers) {
    if (q.has_pre_quant_scale()) tensors.add(prefix + q.leaf() + ".pre_quant_scale", q.pre_quant_scale(device));
    for (std::size_t i = 0; i < q.members().size(); ++i)
      add_member(tensors, concat(prefix, q.leaf(), ".", i), q.members()[i], device);
  }
  if (recipe.weight) tensors.add_held(prefix + "rewritten_weight", device, recipe.weight->view());
  if (!recipe.absorbed_scale.empty()) tensors.add(prefix + "absorbed_scale", recipe.absorbed_scale);
  if (recipe.packed) add_packed(tensors, prefix + "packed", *recipe.packed, device);
  if (!recipe.branch) return;
  tensors.add_held(prefix + "branch.down", device, recipe.branch->down.view());
  tensors.add_held(prefix + "branch.up", device, recipe.branch->up.view());
  tensors.add_held(prefix + "branch.negative", device, recipe.branch->negative.view());
}

[[noreturn]] inline void refuse_tensor(safetensors_file const& file, std::string const& name, std::string const& why) {
  fail(error_id::file_content, file.label(), ": ", in_quotes(name), " ", why);
}

/// A partition into `count` groups. Throws `file_content`.
inline partition read_groups(safetensors_file const& file, std::string const& name, std::size_t count) {
  partition_numbers n{};
  auto const tensor = file.at(name);
  if (tensor.type != dtype::i64 || tensor.size() != static_cast<std::int64_t>(n.size()))
    refuse_tensor(file, name, concat("is not ", n.size(), " numbers"));
  std::memcpy(n.data(), tensor.data, sizeof n);
  partition p;
  if (n[0] < 0 || n[0] > max_rank) refuse_tensor(file, name, concat("says rank ", n[0]));
  p.rank = static_cast<std::int8_t>(n[0]);
  std::copy_n(n.begin() + 1, max_rank, p.block.begin());
  std::copy_n(n.begin() + 1 + max_rank, max_rank, p.groups.begin());
  auto left = static_cast<std::int64_t>(count);  // divided, since a product of what a file says may overflow
  for (int a = 0; a < p.rank; ++a) {
    if (p.groups[a] < 0 || (left != 0 && (p.groups[a] == 0 || left % p.groups[a] != 0)))
      refuse_tensor(file, name, concat("does not give ", count, " groups"));
    left = p.groups[a] == 0 ? 0 : left / p.groups[a];
  }
  if (p.group_count() != static_cast<std::int64_t>(count))
    refuse_tensor(file, name, concat("does not give ", count, " groups"));
  return p;
}

template <backend B>
void take_member(safetensors_file const& file, std::string const& name, tensor_quantizer<B>& member, B& device) {
  member.forget();
  if (file.contains(name + ".bias")) {
    auto const values = file.read_as_float(name + ".bias");
    if (member.bias() == nullptr) refuse_tensor(file, name + ".bias", "is of a quantizer without a bias");
    member.bias()->set(device, read_groups(file, name + ".bias_groups", values.size()), values);
  }
  if (!file.contains(name + ".amax")) return;
  auto const values = file.read_as_float(name + ".amax");
  if (file.contains(name + ".seen")) {
    dtype const seen = file.at(name + ".seen").type;
    require_compute(seen, name);
    member.set_seen_type(seen);
  }
  member.set_amax(device, read_groups(file, name + ".groups", values.size()), values);
  if (!file.contains(name + ".tensor_amax")) return;
  auto const whole = file.read_as_float(name + ".tensor_amax");
  if (whole.size() != 1) refuse_tensor(file, name + ".tensor_amax", "is not one value");
  member.require_amax(whole);
  member.hold_tensor_amax(device, whole.front());
}

/// A tensor of the file in the backend's memory.
template <backend B>
held_tensor<B> read_held(safetensors_file const& file, std::string const& name, B& device, mixbit::device where) {
  auto const t = file.at(name);
  geometry g = t;
  g.where = where;
  held_tensor<B> held{device, g};
  if (t.size() != 0) device.copy_from_host(held.view().data, t.data, static_cast<std::size_t>(t.bytes()));
  return held;
}

/// The same of a tensor that has the weight's shape and type. Throws `file_content`.
template <backend B>
held_tensor<B> read_like(safetensors_file const& file, std::string const& name, B& device, geometry const& weight) {
  auto const t = file.at(name);
  if (!t.same_shape(weight) || t.type != weight.type)
    refuse_tensor(file, name, concat("is ", name_of(t.type), ' ', to_string(t), ", and the layer's weight ",
                                     name_of(weight.type), ' ', to_string(weight)));
  return read_held(file, name, device, weight.where);
}

template <backend B>
low_rank_branch<B> read_branch(safetensors_file const& file, std::string const& name, B& device,
                               geometry const& weight) {
  auto const down = file.at(name + ".down"), up = file.at(name + ".up");
  bool const fits = weight.rank == 2 && down.rank == 2 && up.rank == 2 && down.shape[1] == weight.shape[1] &&
                    up.shape[0] == weight.shape[0] && up.shape[1] == down.shape[0] && down.type == up.type;
  if (!fits)
    refuse_tensor(file, name, concat(to_string(up), " · ", to_string(down), " does not fit the layer's weight ",
                                     to_string(weight)));
  return {read_held(file, name + ".down", device, weight.where), read_held(file, name + ".up", device, weight.where),
          read_like(file, name + ".negative", device, weight)};
}

template <backend B>
std::shared_ptr<packed_weight<B> const> read_packed(safetensors_file const& file, std::string const& name,
                                                    recipe_quantizers<B>& recipe, geometry const& weight, B& device) {
  auto* const q = recipe.find(quantizer_role::weight);
  if (q == nullptr) refuse_tensor(file, name + ".codes", "is of a weight whose quantizer is off");
  auto const bytes = [&](char const* what) {
    auto const b = file.bytes(name + what);
    auto const* const first = reinterpret_cast<std::uint8_t const*>(b.data());
    return std::vector<std::uint8_t>(first, first + b.size());
  };
  auto const floats = [&](char const* what) {
    return file.contains(name + what) ? file.read_as_float(name + what) : std::vector<float>{};
  };
  packed_arrays const arrays{bytes(".codes"), bytes(".scales"), floats(".block_scales"), floats(".tensor_scale")};
  auto& first = q->members().front();
  auto made = std::make_shared<packed_weight<B>>(device, first, weight, arrays);
  first.release_amax();
  return made;
}

/// Takes up what the file holds under this prefix, for a layer with this weight in PyTorch's order. What it does not
/// hold the recipe does not have afterwards. Throws `file_content` and what is wrong with the values.
template <backend B>
void take_recipe(safetensors_file const& file, std::string const& prefix, recipe_quantizers<B>& recipe,
                 geometry const& weight, B& device) {
  for (auto& q : recipe.quantizers) {
    auto const scale = prefix + q.leaf() + ".pre_quant_scale";
    q.set_pre_quant_scale(device, file.contains(scale) ? file.read_as_float(scale) : std::vector<float>{});
    for (std::size_t i = 0; i < q.members().size(); ++i)
      take_member(file, concat(prefix, q.leaf(), ".", i), q.members()[i], device);
  }
  recipe.weight.reset();
  recipe.branch.reset();
  recipe.packed.reset();
  recipe.absorbed_scale.clear();
  if (file.contains(prefix + "rewritten_weight"))
    recipe.weight.emplace(read_like(file, prefix + "rewritten_weight", device, weight));
  if (file.contains(prefix + "absorbed_scale"))
    recipe.absorbed_scale = file.read_as_float(prefix + "absorbed_scale");
  if (file.contains(prefix + "packed.codes"))
    recipe.packed = read_packed(file, prefix + "packed", recipe, weight, device);
  if (file.contains(prefix + "branch.down"))
    recipe.branch.emplace(read_branch(file, prefix + "branch", device, weight));
}

}  // namespace mixbit::detail
