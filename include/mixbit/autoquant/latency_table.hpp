// How long each format takes in each group, as the user has measured it: a limit of time beside those of bits and bytes
// (search_options::latency). io/latency_file.hpp reads one from JSON or CSV.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mixbit/autoquant/candidate_stats.hpp"

namespace mixbit {

struct latency_entry {
  std::string group;   ///< a group's name, with or without recipe_suffix; "*" for those that no other entry names
  std::string format;  ///< "INT8_DEFAULT_CFG", with or without its "(effective-bits: 8.0)"; "NONE": unquantized
  std::optional<double> microseconds;  ///< empty: the format is not allowed there
  std::string where = {};  ///< for messages; empty: "latency.GROUP.FORMAT"
};

struct latency_table {
  double limit = 0;  ///< microseconds, for all groups together
  std::vector<latency_entry> entries = {};
  std::string name = "latency";  ///< for messages: the file
};

/// The longest time and limit, and how much the longest times of all groups may add up to: counted in nanoseconds.
inline constexpr double max_microseconds = 1e12, max_total_microseconds = 0x1p52;

/// Nanoseconds of microseconds; the whole number where the product is one but for its rounding.
inline double in_nanoseconds(double microseconds) {
  double const product = microseconds * 1000, whole = std::round(product);
  return std::abs(product - whole) <= product * 0x1p-52 ? whole : product;
}

/// Gives formats of groups their times, in nanoseconds, rounded up. The table must live as long as it.
class latency_lookup {
 public:
  /// Throws `config_value` for a time or a limit that is not from 0 to max_microseconds.
  explicit latency_lookup(latency_table const& table) : table_{table}, used_(table.entries.size()) {
    require_time(table.limit, table.name + ": limit");
    for (std::size_t i = 0; i < table.entries.size(); ++i) {
      auto const& e = table.entries[i];
      if (e.microseconds) require_time(*e.microseconds, where(e));
      by_group_[std::string{without_recipe_suffix(e.group)}].push_back(i);
    }
  }

  /// Rounded down.
  std::int64_t limit() const { return static_cast<std::int64_t>(std::floor(in_nanoseconds(table_.limit))); }

  /// Empty where the format is not allowed. Throws `config_no_match` where no entry is for it, and `state_duplicate`
  /// where two are.
  std::optional<std::int64_t> of(std::string_view group, std::string_view format) {
    auto at = by_group_.find(without_recipe_suffix(group));
    if (at == by_group_.end()) at = by_group_.find("*");
    latency_entry const* found = nullptr;
    for (std::size_t i = 0; at != by_group_.end() && i < at->second.size(); ++i) {
      auto const& e = table_.entries[at->second[i]];
      if (e.format != format && e.format != without_bits(format)) continue;
      if (found != nullptr)
        fail(error_id::state_duplicate, where(e), ": is a second entry for ", format, " of ", group);
      found = &e;
      used_[at->second[i]] = true;
    }
    if (found == nullptr) fail(error_id::config_no_match, table_.name, ": has no entry for ", format, " of ", group);
    if (!found->microseconds) return std::nullopt;
    longest_ = std::max(longest_, *found->microseconds);
    return static_cast<std::int64_t>(std::ceil(in_nanoseconds(*found->microseconds)));
  }

  /// Behind each group's last time. Throws `config_value` where the longest of all groups are more than can be counted.
  void group_done() {
    total_ += std::exchange(longest_, 0);
    if (total_ > max_total_microseconds)
      fail(error_id::config_value, table_.name, ": has microseconds that add up to more than 2^52, too many to count");
  }

  /// Throws `config_no_match` for an entry that was for nothing of `what`.
  void require_used(std::string_view what) const {
    for (std::size_t i = 0; i < used_.size(); ++i)
      if (!used_[i])
        fail(error_id::config_no_match, where(table_.entries[i]), ": matches no group and format of ", what);
  }

 private:
  static void require_time(double microseconds, std::string const& where) {
    if (!(microseconds >= 0) || microseconds > max_microseconds)
      fail(error_id::config_value, where, ": must be microseconds from 0 to 1e12, got ", microseconds);
  }
  std::string where(latency_entry const& e) const {
    return e.where.empty() ? table_.name + "." + e.group + "." + e.format : e.where;
  }

  latency_table const& table_;
  std::map<std::string, std::vector<std::size_t>, std::less<>> by_group_;  ///< indices of entries
  std::vector<bool> used_;
  double longest_ = 0, total_ = 0;  ///< of this group, and of those before it
};

/// Sets the time of each candidate and takes away those that the table does not allow. Throws what latency_lookup does,
/// and `config_conflict` for a group of which nothing is left.
inline void add_times(candidate_stats& stats, latency_table const& table) {
  latency_lookup times{table};
  for (auto& g : stats) {
    std::vector<candidate_stat> allowed;
    for (auto& c : g.candidates)
      if (c.nanoseconds = times.of(g.name, c.format); c.nanoseconds) allowed.push_back(c);
    times.group_done();
    if (allowed.empty()) fail(error_id::config_conflict, table.name, ": allows no format of ", g.name);
    g.candidates = std::move(allowed);
  }
  times.require_used("the search");
}

}  // namespace mixbit
