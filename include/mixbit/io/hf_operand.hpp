// What an operand of a module is quantized by, as the forms of checkpoints look at it.
#pragma once

#include "mixbit/io/hf_format.hpp"
#include "mixbit/quantizer/sequential_quantizer.hpp"

namespace mixbit::detail::hf {

/// Of a quantizer that is off, nothing.
template <backend B>
hf_operand operand_of(sequential_quantizer<B> const* q) {
  hf_operand all;
  if (q != nullptr && q->enabled())
    for (auto const& m : q->members()) all.push_back(m.numerics());
  return all;
}

}  // namespace mixbit::detail::hf
