// A Hugging Face checkpoint as the output, in ModelOpt's form or compressed-tensors'.
#pragma once

#include <cstddef>
#include <unordered_map>
#include <vector>

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
  std::string depends_on() const override { return quantization().dump() + '\n'; }
  becoming of(std::string const& tensor) const override;
  void write(partial_output& files, std::string const& tensor, shown const& show) override;
  void write_others(mixbit::staged_output& out) const override;

 private:
  bool is_compressed() const { return task_.wanted.to == "compressed-tensors"; }
  std::vector<mixbit::named_geometry> tensors() const;
  std::vector<mixbit::hf_layer> described() const;
  std::vector<mixbit::ct_layer> compressed() const;
  std::vector<std::string> unquantized() const;
  std::vector<std::string> exclude() const;
  /// What the form says of the layers, inputs included: of ModelOpt's hf_quant_config.json, else in config.json.
  mixbit::json_document quantization() const;
  float shared_amax(layer const& l);
  void write_layer(partial_output& files, layer const& l, shown const& show);
  void write_configs(mixbit::staged_output& out) const;
  void copy_others(mixbit::staged_output& out) const;

  task const& task_;
  std::vector<std::vector<std::size_t>> fused_;  ///< of each of the layers
  std::unordered_map<std::size_t, float> amax_;  ///< of fused layers, by the first one's place
  std::vector<std::vector<mixbit::named_geometry>> shards_;
};

}  // namespace quantize_checkpoint
