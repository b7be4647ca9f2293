// From the command line to the format that a kernel claims, and its groups.
#pragma once

#include <string>

#include "mixbit/quantizer/numerics.hpp"
#include "options.hpp"

namespace conformance {

struct claim {
  mixbit::quantizer_numerics numerics;
  bool dynamic() const { return numerics.groups_from_data; }
  mixbit::partition groups_of(mixbit::geometry const& g, std::string const& where) const {
    return numerics.groups_of(g, where);
  }
};

/// Throws config and format errors that name what the command line says.
claim claim_of(options const& o);

}  // namespace conformance
