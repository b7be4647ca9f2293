// Groups of modules as their members alone.
#pragma once

#include <string>
#include <vector>

#include "mixbit/config/grouping_rule.hpp"

namespace mixbit::test {

using groups = std::vector<std::vector<std::size_t>>;

inline groups members(std::vector<std::string> const& names, std::vector<grouping_rule> const& rules) {
  groups all;
  for (auto const& g : group_modules(names, rules)) all.push_back(g.members);
  return all;
}

}  // namespace mixbit::test
