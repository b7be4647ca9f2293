// What a run takes beside weights: names, shapes and formats of tensors, and the JSON that they are read from and
// written as. Known before any of it is read, from the lengths of the files' headers.
#pragma once

#include <cstdint>

#include "options.hpp"

namespace quantize_checkpoint {

/// What of --memory is left for weights. Throws `usage`, saying how much is needed, where that is too little.
std::int64_t memory_for_weights(options const& o);

}  // namespace quantize_checkpoint
