#include "statistics.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <utility>

#include "mixbit/autoquant/json.hpp"
#include "mixbit/core/error.hpp"
#include "mixbit/core/quoted.hpp"
#include "mixbit/io/json.hpp"

namespace allocate {

using namespace mixbit;

namespace {

constexpr int finest_units = 16;  // bits: costs are kept to 2^-16 of a bit

/// Walks a document; errors name the file, the path and what stands there.
class reader {
 public:
  reader(std::string const& file, bool raw) : where_{in_quotes(file)}, root_(read_json_file(file)), raw_{raw} {}

  statistics read() {
    statistics result;
    result.raw = raw_;
    json_document const& all = groups();
    for (auto const& [name, j] : all.items()) {
      result.groups.push_back(group_of(name, j, result.rewritten));
      if (result.weighted.empty() && j.contains("cost_weight") && j.at("cost_weight") != 1)
        result.weighted = name + " in " + where_ + " are weighted by " + dump_json(j.at("cost_weight"), where_);
      if (j.contains("configs")) read_configs(name, j.at("configs"), result);
    }
    if (result.groups.empty()) refuse("the file", "an object with groups", all);
    require_own_modules(result);
    settle_costs(result);
    return result;
  }

 private:
  [[noreturn]] void refuse(std::string const& path, char const* wanted, json_document const& got) const {
    std::string text = dump_json(got, where_);
    if (text.size() > 60) text = text.substr(0, 57) + "...";
    fail(error_id::file_content, where_, ": ", path, " must be ", wanted, ", got ", text);
  }

  json_document const& groups() const {
    if (!root_.is_object()) refuse("the file", "an object", root_);
    json_document const* found = &root_;
    for (char const* key : {"candidate_stats", "layer_sensitivity"}) {
      if (found == &root_ && root_.contains(key)) {
        found = &root_.at(key);
        if (!found->is_object()) refuse(key, "an object", *found);
      }
    }
    return *found;
  }

  void require_own_modules(statistics const& read) const {
    std::map<std::string, std::string> owners;
    for (auto const& g : read.groups)
      for (auto const& m : g.modules)
        if (auto const [at, is_new] = owners.emplace(m, g.name); !is_new)
          fail(error_id::file_content, where_, ": ", g.name, ".module_names: ", in_quotes(m), " is in ", at->second,
               " already");
  }

  std::vector<double> numbers(std::string const& path, json_document const& j, std::size_t count) const {
    if (!j.is_array() || j.size() != count)
      refuse(path, ("a list of " + std::to_string(count) + " numbers").c_str(), j);
    std::vector<double> result;
    for (auto const& one : j) {
      std::string const at = path + "[" + std::to_string(result.size()) + "]";
      if (!one.is_number() || !std::isfinite(one.get<double>())) refuse(at, "a finite number", one);
      result.push_back(one.get<double>());
    }
    return result;
  }

  std::vector<std::string> texts(std::string const& path, json_document const& j) const {
    if (!j.is_array() || j.empty()) refuse(path, "a list of texts", j);
    std::vector<std::string> result;
    for (auto const& one : j) {
      if (!one.is_string()) refuse(path + "[" + std::to_string(result.size()) + "]", "a text", one);
      result.push_back(one.get<std::string>());
    }
    return result;
  }

  json_document const& member(std::string const& name, json_document const& j, char const* key) const {
    if (!j.is_object()) refuse(name, "an object", j);
    if (!j.contains(key)) fail(error_id::file_content, where_, ": ", name, " needs '", key, "'");
    return j.at(key);
  }

  group group_of(std::string const& name, json_document const& j, bool& rewritten) {
    group result{name, {}, 0, {}};
    auto const formats = texts(name + ".formats", member(name, j, "formats"));
    auto const listed = [&](char const* key) {
      return numbers(name + "." + key, member(name, j, key), formats.size());
    };
    auto scores = listed("scores");
    if (raw_ || j.contains("raw_scores")) {
      auto const measured = listed("raw_scores");
      rewritten = rewritten || measured != scores;
      if (raw_) scores = measured;
    }
    auto const costs = numbers(name + ".costs", member(name, j, "costs"), formats.size());
    for (std::size_t i = 0; i < formats.size(); ++i) {
      if (costs[i] < 0 || costs[i] > 0x1p56)
        refuse(name + ".costs[" + std::to_string(i) + "]", "a number from 0 to 2^56", j.at("costs")[i]);
      if (std::find(formats.begin(), formats.begin() + static_cast<std::ptrdiff_t>(i), formats[i]) !=
          formats.begin() + static_cast<std::ptrdiff_t>(i))
        refuse(name + ".formats[" + std::to_string(i) + "]", "a format that is not listed already", j.at("formats")[i]);
      result.candidates.push_back({formats[i], scores[i], 0, {}});
    }
    if (j.contains("module_names")) result.modules = texts(name + ".module_names", j.at("module_names"));
    result.elements = *std::max_element(costs.begin(), costs.end());
    if (j.contains("uncompressed_cost")) {
      json_document const& size = j.at("uncompressed_cost");
      if (!size.is_number() || !(size.get<double>() >= 0) || size.get<double>() > 0x1p56)
        refuse(name + ".uncompressed_cost", "a number from 0 to 2^56", size);
      result.elements = size.get<double>();
      if (result.elements == 0 && *std::ranges::max_element(costs) > 0)
        refuse(name + ".uncompressed_cost", "above 0, as its costs are", size);
    }
    costs_.push_back(costs);
    return result;
  }

  /// The configs of a group's formats count for all groups; a second one of a label has to be the same.
  void read_configs(std::string const& name, json_document const& j, statistics& into) const {
    if (!j.is_object()) refuse(name + ".configs", "an object", j);
    for (auto const& [label, written] : j.items()) {
      std::string const path = name + ".configs." + label;
      bool listed = false;
      for (candidate const& c : into.groups.back().candidates) listed = listed || c.format == label;
      if (!listed)
        fail(error_id::file_content, where_, ": ", path, ": the group has no such format");
      if (!written.is_object()) refuse(path, "an object", written);
      auto config = detail::named_config(written, label, where_, path);
      auto const [at, is_new] = into.configs.emplace(label, config);
      if (!is_new && !(same_content(at->second, config) && at->second.name == config.name))
        fail(error_id::file_content, where_, ": ", path, ": another group has another config of this name");
    }
  }

  /// Chooses the coarsest unit in which all costs are whole; what is finer than the finest is rounded up, and a group's
  /// elements down, so that no budget is exceeded.
  void settle_costs(statistics& into) const {
    int shift = 0;
    for (bool whole = false; !whole && shift < finest_units; shift += whole ? 0 : 1) {
      whole = true;
      for (std::size_t g = 0; g < costs_.size(); ++g) {
        whole = whole && is_whole(std::ldexp(into.groups[g].elements, shift));
        for (double const cost : costs_[g]) whole = whole && is_whole(std::ldexp(cost, 4 + shift));
      }
    }
    into.units = std::int64_t{1} << shift;
    double total = 0;
    for (std::size_t g = 0; g < costs_.size(); ++g) {
      into.elements += static_cast<std::int64_t>(std::floor(std::ldexp(into.groups[g].elements, shift)));
      for (std::size_t i = 0; i < costs_[g].size(); ++i) {
        double const cost = std::ldexp(costs_[g][i], 4 + shift);
        into.rounded = into.rounded || !is_whole(cost);
        into.groups[g].candidates[i].cost = static_cast<std::int64_t>(std::ceil(cost));
      }
      total += std::ldexp(*std::max_element(costs_[g].begin(), costs_[g].end()), 4 + shift) +
               std::ldexp(into.groups[g].elements, 4 + shift);
    }
    if (total > 0x1p61)
      fail(error_id::file_content, where_, ": costs add up to ", std::ldexp(total, -shift), " bits, too many to count");
  }

  static bool is_whole(double value) { return value == std::floor(value); }

  std::string where_;
  json_document root_;
  bool raw_;  ///< are raw_scores asked for?
  std::vector<std::vector<double>> costs_;
};

}  // namespace

statistics read_statistics(std::string const& file, bool raw_scores) {
  statistics result = reader{file, raw_scores}.read();
  result.file = file;
  return result;
}

double bits_of(statistics const& stats, std::int64_t cost) {
  return static_cast<double>(cost) / static_cast<double>(stats.units);
}

double effective(statistics const& stats, std::int64_t cost) { return bits_per_element(cost, stats.elements); }

}  // namespace allocate
