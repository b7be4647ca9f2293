// A Hugging Face checkpoint as the output, in ModelOpt's form or compressed-tensors'.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fused_layers.hpp"
#include "layer_tensors.hpp"
#include "mixbit/io/ct_config.hpp"
#include "mixbit/io/hf_format.hpp"
#include "mixbit/io/safetensors_head.hpp"
#include "output_form.hpp"

namespace quantize_checkpoint {

class safetensors_output : public output_form {
 public:
  /// Throws `file_content` for a source that has a tensor of a name that the form needs.
  explicit safetensors_output(task const& work);

  std::vector<std::string> notes() const override;
  std::vector<partial_file> files() const override;
  std::string depends_on(layer const& one_of_format) const override;
  std::string depends_on() const override { return {}; }
  becoming of(std::string_view tensor) const override;
  void write(partial_output& files, std::string_view tensor, shown const& show) override;
  void write_others(mixbit::staged_output& out) const override;

 private:
  /// A tensor of the output, which a tensor of the source has become, or a part of one. There are three times as many
  /// as layers, so its name is not kept.
  struct placed {
    std::string_view base;          ///< what its name begins with: a tensor's, or a layer's
    char const* suffix = "";        ///< and ends with
    std::int64_t bytes = 0, offset = 0;
    std::uint32_t source = 0, file = 0;  ///< the place among the source's names
    mixbit::dtype type = mixbit::dtype::f32;
    std::uint8_t part = 0;          ///< of layer_tensors
    std::string name() const { return std::string{base}.append(suffix); }
  };
  /// By name, and as they lie in a file.
  static bool is_before(placed const& a, placed const& b);
  static bool lies_before(placed const& a, placed const& b);

  bool is_compressed() const { return task_.wanted.to == "compressed-tensors"; }
  void find_tensors();
  void place_tensors();
  void show_head(std::size_t file, partial_file::put_text const& put) const;
  std::span<placed const> placed_of(std::string_view tensor) const;
  mixbit::hf_layer described(layer const& l) const;
  mixbit::ct_layer compressed(layer const& l) const;
  template <class Describe>
  auto all_layers(Describe const& describe) const;
  std::vector<std::string> unquantized() const;
  std::vector<std::string> exclude() const;
  void write_layer(partial_output& files, layer const& l, std::span<placed const> to, shown const& show);
  void write_configs(mixbit::staged_output& out) const;
  void write_index(mixbit::staged_output& out) const;
  void copy_others(mixbit::staged_output& out) const;

  task const& task_;
  shared_amaxes amaxes_;
  std::vector<placed> tensors_;        ///< in the order of the source's names, then of parts
  std::vector<std::uint32_t> order_;   ///< of them in the files, one behind the other
  std::vector<std::int64_t> sizes_;    ///< of the files
};

}  // namespace quantize_checkpoint
