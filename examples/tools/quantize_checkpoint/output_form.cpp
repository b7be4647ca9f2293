#include "output_form.hpp"

#include "gguf_output.hpp"
#include "safetensors_output.hpp"

namespace quantize_checkpoint {

std::unique_ptr<output_form> output_form_of(task const& work) {
  if (work.wanted.to == "gguf") return std::make_unique<gguf_output>(work);
  return std::make_unique<safetensors_output>(work);
}

}  // namespace quantize_checkpoint
