// What of a model and its steps decides how recipes are calibrated, as texts by name: a checkpoint is refused where one
// differs (search_checkpoint.hpp), and a plan says them, for whoever makes its model again.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "mixbit/autoquant/search_options.hpp"
#include "mixbit/model/model.hpp"

namespace mixbit {

template <backend B>
std::vector<std::pair<std::string, std::string>> calibration_facts(model<B>& m, search_steps const& steps) {
  auto const& numerics = m.options().numerics;
  auto const& unseen = m.options().unseen;
  return {{"calibration steps", std::to_string(steps.calibration)},
          {"numerics", detail::concat(name_of(numerics.rules), ' ', name_of(numerics.mx))},
          {"unseen quantizers", detail::concat(static_cast<int>(unseen.what()), ' ', unseen.amax())},
          {"backend", std::string{B::name}}};
}

/// A line for each fact that a plan's search had otherwise. A plan without one says nothing of it.
inline std::vector<std::string> changed_facts(std::vector<std::pair<std::string, std::string>> const& then,
                                              std::vector<std::pair<std::string, std::string>> const& now) {
  std::vector<std::string> lines;
  for (auto const& [name, value] : now)
    for (auto const& [old_name, old] : then)
      if (name == old_name && value != old)
        lines.push_back("the plan's search had " + name + " '" + old + "', and this has '" + value +
                        "': bits may differ from the searched model's");
  return lines;
}

}  // namespace mixbit
