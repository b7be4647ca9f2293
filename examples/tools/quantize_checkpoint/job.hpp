// One run: what becomes of every tensor, shown or written.
#pragma once

#include "options.hpp"

namespace quantize_checkpoint {

/// Throws mixbit::error for wrong files and configs; nothing is written then.
void run(options const& o);

}  // namespace quantize_checkpoint
