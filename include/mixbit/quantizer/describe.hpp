// A quantizer's numerics as people read them, in summaries and in errors.
#pragma once

#include <string>

#include "mixbit/quantizer/numerics.hpp"

namespace mixbit {

/// "per tensor", "axis 0", "axis 0,1", "blocks -2:128,-1:128", "blocks -1:all".
inline std::string describe(grouping_scheme const& g) {
  std::string text;
  if (g.what == grouping_scheme::kind::axes)
    for (int const axis : g.kept) text += (text.empty() ? "axis " : ",") + std::to_string(axis);
  if (g.what == grouping_scheme::kind::blocks)
    for (auto const& [axis, size] : g.blocks)
      text += (text.empty() ? "blocks " : ",") + std::to_string(axis) + ":" + (size ? std::to_string(*size) : "all");
  return text.empty() ? "per tensor" : text;
}

}  // namespace mixbit
