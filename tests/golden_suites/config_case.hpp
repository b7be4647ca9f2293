// What the suites of the config layer share: comparing as JSON values.
#pragma once

#include <filesystem>
#include <string>

#include "golden_suites/suite.hpp"
#include "mixbit/config/json.hpp"
#include "mixbit/io/json.hpp"

namespace golden {

/// Equal as JSON values: the order of an object's keys says nothing, that of a list does.
inline bool same_json(mixbit::config_json const& a, mixbit::config_json const& b) {
  return nlohmann::json(a) == nlohmann::json(b);
}

/// Two values for a failure's message.
inline std::string both(mixbit::config_json const& expected, mixbit::config_json const& got) {
  return ": expected " + expected.dump().substr(0, 600) + ", got " + got.dump().substr(0, 600);
}

}  // namespace golden
