// A matrix of a checkpoint, quantized some rows at a time, so that memory does not grow with it. What comes out is bit
// for bit what quantizing it whole gives.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "mixbit/io/ct_form.hpp"
#include "mixbit/io/gguf_format.hpp"
#include "mixbit/io/hf_encoding.hpp"
#include "mixbit/io/hf_format.hpp"
#include "mixbit/quantizer/tensor_quantizer.hpp"
#include "mixbit/reference/simd.hpp"

namespace quantize_checkpoint {

using device = mixbit::reference::simd;

/// How a layer is quantized, and what that is in the form that is written.
struct layer_format {
  std::optional<mixbit::hf_format> modelopt;         ///< in ModelOpt's form,
  mixbit::quantizer_attribute_config attributes;     ///< of the weight quantizer
  std::string label;                                 ///< what the user calls it
  std::optional<mixbit::ct_scheme> compressed = {};  ///< in compressed-tensors',
  std::optional<mixbit::gguf_type> gguf = {};        ///< or in GGUF

  /// What the form calls it.
  std::string form() const;
  bool is_nvfp4() const {
    return gguf ? *gguf == mixbit::gguf_type::nvfp4 : compressed ? compressed->is_nvfp4() : modelopt->is_nvfp4();
  }
  /// One for all of the weight, alone or above its blocks': fused layers share it.
  bool has_tensor_scale() const {
    return is_nvfp4() || (compressed && compressed->weight.strategy == mixbit::ct_strategy::tensor);
  }
  bool is_written_like(layer_format const& other) const {
    return modelopt == other.modelopt && compressed == other.compressed;
  }
  friend bool operator==(layer_format const&, layer_format const&) = default;
};

/// A layer that is quantized: its matrix, and how. Of tens of thousands few differ in that, so that they share it.
struct layer {
  std::string name;
  mixbit::const_tensor_ref weight;
  std::shared_ptr<layer_format const> how;

  layer(std::string of, mixbit::const_tensor_ref const& w, layer_format f)
      : name{std::move(of)}, weight{w}, how{std::make_shared<layer_format const>(std::move(f))} {}

  mixbit::partition groups() const;
  mixbit::element_type element() const;
};

/// Codes of some rows, and their scales; one for all of the weight comes with the first rows.
struct encoded_rows {
  std::int64_t first = 0;
  std::vector<std::uint8_t> codes, block_scales;
  std::vector<float> scales;
  std::int64_t rows = 0;
};

/// Throws `format_value` for a weight that is calibrated by more than the running max of some rows.
template <mixbit::backend B>
void require_running_max(mixbit::tensor_quantizer<B> const& weight) {
  if (weight.needs_calibrator())
    mixbit::fail(mixbit::error_id::format_value, weight.name(), ": is calibrated by '",
                 weight.attributes().calibrator.name(), "'; take a format that calibrates by max");
}

class weight_rows {
 public:
  /// `file` is for messages. At most about `memory` bytes are taken. Throws `file_content` where one block of rows
  /// needs more, naming the tensor.
  weight_rows(device const& on, layer const& of, std::string file, std::int64_t memory);

  /// The largest |w|. Reads all of the weight. Throws `file_content` for NaN and infinite weights, naming the tensor.
  float tensor_amax();
  /// From now on the tensor's own scale comes from this: fused layers share it.
  void share_tensor_amax(float amax) { tensor_amax_ = amax; }
  /// That scale, of formats with two levels.
  float tensor_scale();

  /// Front to back; what is taken may be moved from. Throws as tensor_amax() does.
  void encode(std::function<void(encoded_rows&)> const& take);

  /// Σ importance[column] · (w - Q(w))², over all rows; importance 1 where it is empty. Throws as tensor_amax() does.
  double error(std::vector<float> const& importance);

 private:
  mixbit::const_tensor_ref rows(std::int64_t first, std::int64_t end);
  mixbit::tensor_quantizer<device> quantizer(mixbit::const_tensor_ref const& x);
  void round_scales(mixbit::tensor_quantizer<device>& q, mixbit::const_tensor_ref const& x);
  float largest(mixbit::const_tensor_ref const& x);
  bool is_one_group() const;
  void each_chunk(std::function<void(std::int64_t first, mixbit::const_tensor_ref)> const& visit);

  device device_;
  layer const& layer_;
  std::string file_;
  std::int64_t chunk_ = 1;  ///< rows
  float tensor_amax_ = -1;  ///< below 0: not known yet
  mixbit::arena scratch_;
  std::vector<std::byte> aligned_, quantized_, difference_;
};

}  // namespace quantize_checkpoint
