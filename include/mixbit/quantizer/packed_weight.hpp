// A weight as codes and scales in a backend's memory: what a file would hold of it, and no more. model/compress.hpp
// puts it in the place of a weight that is quantized anew at each call.
//
// For a host's own kernel it is all public: `description` is the descriptor, which says of every array below where its
// entries lie and what `decode` makes of them (formats/describe_tensor.hpp), the rest is pointers into the backend's
// memory. Policy is always `stored`: an element is its code times its scale. What a layer does around its weight is
// quantizer/packed_layer.hpp's.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "mixbit/formats/describe_tensor.hpp"
#include "mixbit/quantizer/tensor_quantizer.hpp"

namespace mixbit {

/// The arrays of one, on the host: as a file has them.
struct packed_arrays {
  std::vector<std::uint8_t> codes;        ///< as how.layout packs them
  std::vector<std::uint8_t> scales;       ///< bytes of how.scale_type, one a group; int8 under double quantization
  std::vector<float> block_scales;        ///< of double quantization, one a block of groups
  std::vector<float> tensor_scale;        ///< of two levels; under double quantization the scales' mean
  friend bool operator==(packed_arrays const&, packed_arrays const&) = default;
};

template <backend B>
class packed_weight {
 public:
  /// Encodes what `q` makes of `weight`, which is in PyTorch's order. Throws what `encoding` throws, and `format_value`
  /// for a format without codes.
  packed_weight(B& device, arena& scratch, tensor_quantizer<B>& q, const_tensor_ref const& weight)
      : packed_weight{q, weight} {
    arena_scope const borrowed{scratch};
    encode_args args = q.encoding(device, scratch, weight);
    allocate(device);
    args.codes = codes_.data();
    args.scales = is_double() ? scratch.allocate(static_cast<std::size_t>(groups_.group_count()) * sizeof(float))
                              : scales_.data();
    args.tensor_scale = tensor_scale_.data();
    device.encode(args);
    if (is_double()) quantize_the_scales(device, q);
  }

  /// From what a file has. Throws `tensor_shape`, naming the quantizer, for arrays of other sizes.
  packed_weight(B& device, tensor_quantizer<B> const& q, geometry const& weight, packed_arrays const& arrays)
      : packed_weight{q, weight} {
    allocate(device);
    fill(device, codes_, arrays.codes, q.name(), "codes");
    fill(device, scales_, arrays.scales, q.name(), "scales");
    fill(device, block_scales_, arrays.block_scales, q.name(), "block_scales");
    fill(device, tensor_scale_, arrays.tensor_scale, q.name(), "tensor_scale");
  }

  /// What a code and its scale are, and how they lie in memory.
  format const& how() const { return how_; }
  /// The weight's own shape and type, in PyTorch's order (or flattened, where the site's layout says so).
  geometry const& shape() const { return shape_; }
  /// Which elements share a scale.
  partition const& groups() const { return groups_; }

  /// All of that as a kernel needs it: places, types and values, nothing implied.
  tensor_description description() const { return describe(how_, shape_, groups_); }

  std::uint8_t const* codes() const { return codes_.data(); }
  /// One a group, of type how().scale_type; under double quantization (how().scale_block) int8 codes of them.
  std::uint8_t const* scales() const { return scales_.data(); }
  /// Of double quantization, one a block of how().scale_block groups; else null.
  float const* block_scales() const { return block_scales_.data(); }
  /// Of two levels the tensor's own scale, of double quantization the scales' mean; else null.
  float const* tensor_scale() const { return tensor_scale_.data(); }

  /// What the arrays take; equal to storage_size_of(how, shape, groups).
  storage_size size() const {
    return {bytes(codes_), bytes(scales_) + bytes(block_scales_), bytes(tensor_scale_)};
  }

  /// The weight, in a tensor of its shape and type: what fake quantization makes of it, bit for bit. Memory is lent
  /// from `scratch`.
  void decode(B& device, arena& scratch, tensor_ref const& y) const {
    arena_scope const borrowed{scratch};
    bool const two_level = is_two_level(how_.scaling);
    void const* used = scales_.data();
    if (is_double()) used = expanded_scales(device, scratch);
    device.decode({codes_.data(), used, groups_, how_, y, two_level ? tensor_scale_.data() : nullptr});
  }

  /// Do both hold the same codes and scales of one format?
  bool same_as(packed_weight const& other, B& device) const {
    return how_ == other.how_ && groups_ == other.groups_ && same_view(shape_, other.shape_) &&
           arrays(device) == other.arrays(device);
  }
  packed_arrays arrays(B& device) const {
    return {fetch(device, codes_), fetch(device, scales_), fetch(device, block_scales_), fetch(device, tensor_scale_)};
  }

 private:
  packed_weight(tensor_quantizer<B> const& q, geometry const& weight)
      : how_{q.numerics().how}, shape_{dense_in_order(weight)}, groups_{q.grouping(weight)} {
    how_.numerics = policy::stored;
    check_encodable(how_, q.name());
  }
  /// The order of the axes alone: codes are numbered by it, whatever the strides were.
  static geometry dense_in_order(geometry const& g) {
    geometry dense = dense_geometry(g.type, {g.shape.data(), static_cast<std::size_t>(g.rank)});
    dense.where = g.where;
    return dense;
  }

  bool is_double() const { return how_.scale_block > 0; }

  void allocate(B& device) {
    storage_size const size = storage_size_of(how_, shape_, groups_);
    auto const count = static_cast<std::size_t>(groups_.group_count());
    codes_ = {device, static_cast<std::size_t>(size.payload)};
    scales_ = {device, is_double() ? count : static_cast<std::size_t>(size.scales)};
    if (is_double()) block_scales_ = {device, (static_cast<std::size_t>(size.scales) - count) / sizeof(float)};
    tensor_scale_ = {device, static_cast<std::size_t>(size.tensor) / sizeof(float)};
  }

  /// As the quantizer does for what it casts with.
  void quantize_the_scales(B& device, tensor_quantizer<B> const& q) {
    bool const constant = q.numerics().amax_from == amax_source::constant;
    auto const scales = constant ? q.cast_amax(device, shape_) : q.amax(device);
    double_scales const held = quantize_scales(scales, how_, dtype::f32);
    if (!held.codes.empty()) device.copy_from_host(scales_.data(), held.codes.data(), held.codes.size());
    auto const& of_blocks = held.block_scales;
    if (!of_blocks.empty())
      device.copy_from_host(block_scales_.data(), of_blocks.data(), of_blocks.size() * sizeof(float));
    device.copy_from_host(tensor_scale_.data(), &held.mean, sizeof held.mean);
  }

  /// double_scale_rule's value of each code by kernels, so that no call goes through the host: code · s as an int8 with
  /// a scale a block, plus the mean. What is below 0 would be 0, but then all codes of its group are those of 0, which
  /// decode to +0 whatever the scale.
  float const* expanded_scales(B& device, arena& scratch) const {
    std::int64_t const count = groups_.group_count();
    geometry const line = dense_geometry(dtype::f32, {&count, 1});
    axis_block const block{-1, how_.scale_block};
    tensor_ref const scales{line, scratch.allocate(static_cast<std::size_t>(line.bytes()))};
    device.decode({scales_.data(), block_scales_.data(), blocks_of(line, {&block, 1}),
                   format{integer_element(8)}, scales, nullptr});
    device.shift({scales, scales, per_tensor(line), tensor_scale_.data(), false});
    return scales.as<float>();
  }

  template <class T>
  static std::int64_t bytes(buffer<B, T> const& b) {
    return static_cast<std::int64_t>(b.size() * sizeof(T));
  }
  template <class T>
  static std::vector<T> fetch(B& device, buffer<B, T> const& from) {
    std::vector<T> values(from.size());
    if (!values.empty()) device.copy_to_host(values.data(), from.data(), values.size() * sizeof(T));
    return values;
  }
  template <class T>
  static void fill(B& device, buffer<B, T>& to, std::vector<T> const& values, std::string const& name,
                   char const* what) {
    if (values.size() != to.size())
      fail(error_id::tensor_shape, name, ": ", values.size(), " packed ", what, ", and its weight has ", to.size());
    if (!values.empty()) device.copy_from_host(to.data(), values.data(), values.size() * sizeof(T));
  }

  format how_;
  geometry shape_;
  partition groups_;
  buffer<B, std::uint8_t> codes_, scales_;
  buffer<B, float> block_scales_, tensor_scale_;
};

}  // namespace mixbit
