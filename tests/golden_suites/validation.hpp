// Suite validation: attribute configs, forms of quant_cfg and algorithms that ModelOpt accepts, with the normalised
// form, or refuses.
#pragma once

#include <algorithm>
#include <filesystem>
#include <functional>
#include <string>

#include "golden_suites/config_case.hpp"
#include "golden_suites/suite.hpp"
#include "mixbit/config/json.hpp"

namespace golden {

/// What ModelOpt lets pass and mixbit refuses on purpose: no block can have such a size, type or axis.
inline bool refused_on_purpose(mixbit::config_json const& input) {
  static char const* const texts[] = {R"({"block_sizes":{"-1":16,"type":"sometimes"}})", R"({"block_sizes":{"-1":0}})",
                                      R"({"block_sizes":{"-1":-4}})", R"({"axis":"0"})"};
  return std::any_of(std::begin(texts), std::end(texts), [&](char const* text) { return input.dump() == text; });
}

/// Runs `read`, which returns the normalised form, on every case of one kind; errors must be mixbit's own.
inline void check_verdicts(suite_result& result, mixbit::config_json const& cases, std::string const& kind,
                           std::function<mixbit::config_json(mixbit::config_json const&)> const& read) {
  if (cases.empty()) result.check(false, "validation.json holds no " + kind);
  for (mixbit::config_json const& c : cases) {
    std::string const what = kind + ' ' + c.at("input").dump();
    bool const expected = c.at("accepted").get<bool>() && !refused_on_purpose(c.at("input"));
    try {
      mixbit::config_json const normal = read(c.at("input"));
      result.check(expected && same_json(normal, c.at("normal")),
                   what + (expected ? both(c.at("normal"), normal) : ": accepted, but to be refused"));
    } catch (mixbit::error const& e) {
      result.check(!expected, what + ": refused, but to be accepted: " + e.what());
    }
  }
}

}  // namespace golden

inline suite_result run_validation(std::filesystem::path const& dir) {
  suite_result result{.name = "validation"};
  auto const file = mixbit::read_json_file(dir / "validation.json");
  using json = mixbit::config_json;
  golden::check_verdicts(result, file.at("attributes"), "attributes", [](json const& input) {
    return mixbit::attributes_to_json(mixbit::attributes_from_json(input), mixbit::json_form::normal);
  });
  golden::check_verdicts(result, file.at("quant_cfg"), "quant_cfg", [](json const& input) {
    return mixbit::quant_cfg_to_json(mixbit::quant_cfg_from_json(input), mixbit::json_form::normal);
  });
  golden::check_verdicts(result, file.at("algorithm"), "algorithm", [](json const& input) {
    mixbit::algorithm_from_json(input);
    return json();  // the file holds the verdict alone
  });
  return result;
}
