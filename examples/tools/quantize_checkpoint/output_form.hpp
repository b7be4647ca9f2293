// What the output is, as far as a run cares: which files there are, and what each tensor of the source puts into them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "mixbit/io/staged_output.hpp"
#include "partial_output.hpp"
#include "task.hpp"

namespace quantize_checkpoint {

/// What becomes of a tensor of the source: in words, and in bytes.
struct becoming {
  std::string what;
  std::int64_t bytes = 0;
};

/// Told of the bytes of a tensor that were read so far.
using shown = std::function<void(std::int64_t)>;

class output_form {
 public:
  virtual ~output_form() = default;

  /// What loaders make of it that a user should know, a line each.
  virtual std::vector<std::string> notes() const = 0;
  /// The files that grow until they are whole.
  virtual std::vector<partial_file> files() const = 0;
  /// What they depend on beside the source's tensors and which layers have which format: what a format is in the form,
  /// and what is the same for all.
  virtual std::string depends_on(layer const& one_of_format) const = 0;
  virtual std::string depends_on() const = 0;
  virtual becoming of(std::string_view tensor) const = 0;

  /// All that a tensor of the source puts into the files. Throws `file_content` and `format_amax` for weights that the
  /// form cannot hold, naming the tensor.
  virtual void write(partial_output& files, std::string_view tensor, shown const& show) = 0;
  /// What lies beside them.
  virtual void write_others(mixbit::staged_output& out) const = 0;
};

/// That of --to. Throws `file_content` for what the form cannot hold. `work` has to stay where it is.
std::unique_ptr<output_form> output_form_of(task const& work);

}  // namespace quantize_checkpoint
