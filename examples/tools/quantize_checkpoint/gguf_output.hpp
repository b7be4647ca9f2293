// One GGUF file as the output, model.gguf: the bytes that export_gguf (io/gguf_checkpoint.hpp) writes of a model with
// these weights, whose scales round_gguf_scales has rounded. Other files of the folder stay, but for a plan.json of
// another file.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "mixbit/io/gguf_outline.hpp"
#include "output_form.hpp"

namespace quantize_checkpoint {

/// Throws `file_content` for a source of which no GGUF file can be made, whatever is quantized: a model whose names in
/// GGUF are not known, a tensor without one, or of a type that is not written.
void require_gguf_source(mixbit::hf_source const& source);

class gguf_output : public output_form {
 public:
  explicit gguf_output(task const& work);

  std::vector<std::string> notes() const override { return outline_.notes(metadata_); }
  std::vector<partial_file> files() const override;
  /// The metadata, and how rows are rearranged.
  std::string depends_on() const override { return task_.source.config().dump(); }
  std::string depends_on(layer const& one_of_format) const override { return one_of_format.how->form(); }
  becoming of(std::string_view tensor) const override;
  void write(partial_output& files, std::string_view tensor, shown const& show) override;
  void write_others(mixbit::staged_output& out) const override;

 private:
  void write_blocks(partial_output& files, mixbit::gguf_item const& i, layer const& l, shown const& show) const;
  void write_values(partial_output& files, mixbit::gguf_item const& i) const;

  task const& task_;
  mixbit::gguf_outline outline_;
  mixbit::gguf_metadata metadata_;
  mixbit::gguf_layout layout_;
  std::unordered_map<std::string_view, std::int64_t> offsets_;  ///< of tensors in the file
};

}  // namespace quantize_checkpoint
