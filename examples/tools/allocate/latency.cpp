// The table of --latency, from JSON or CSV.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "mixbit/autoquant/candidate_stats.hpp"
#include "mixbit/core/error.hpp"
#include "mixbit/core/quoted.hpp"
#include "mixbit/io/json.hpp"
#include "statistics.hpp"

namespace allocate {

using namespace mixbit;

namespace {

struct entry {
  std::string group, format;  // as written
  std::optional<double> microseconds;
  std::string where;  // for messages
};

struct table {
  std::optional<double> limit;
  std::vector<entry> entries;
};

[[noreturn]] void refuse(std::string const& where, std::string const& what) {
  fail(error_id::file_content, where, ": ", what);
}

double time_of(std::string const& where, double microseconds, std::string const& text) {
  if (!(microseconds >= 0) || microseconds > 1e12) refuse(where, "must be microseconds from 0 to 1e12, got " + text);
  return microseconds;
}

table from_json(std::string const& file) {
  std::string const name = in_quotes(file);
  auto const root = read_json_file(file);
  auto const number = [&](std::string const& path, json_document const& j) {
    if (!j.is_number()) refuse(name + ": " + path, "must be a number, got " + dump_json(j, name).substr(0, 60));
    return time_of(name + ": " + path, j.get<double>(), dump_json(j, name));
  };
  table result;
  if (!root.is_object() || !root.contains("limit") || !root.contains("latency") || !root.at("latency").is_object())
    refuse(name, "needs 'limit', a number, and 'latency', an object");
  result.limit = number("limit", root.at("limit"));
  for (auto const& [group, formats] : root.at("latency").items()) {
    std::string const path = "latency." + group;
    if (!formats.is_object())
      refuse(name + ": " + path, "must be an object, got " + dump_json(formats, name).substr(0, 60));
    for (auto const& [format, time] : formats.items()) {
      entry one{group, format, {}, name + ": " + path + "." + format};
      if (!time.is_null()) one.microseconds = number(path + "." + format, time);
      result.entries.push_back(std::move(one));
    }
  }
  return result;
}

/// A line's three fields; formats' labels have no commas.
std::vector<std::string> fields_of(std::string_view line) {
  std::vector<std::string> fields(1);
  for (char const c : line) {
    if (c == ',') fields.emplace_back();
    else if (c != '\r') fields.back() += c;
  }
  return fields;
}

table from_csv(std::string const& file) {
  mapped_file const content{file};
  std::string_view rest = content.text();
  table result;
  for (int line = 1; !rest.empty(); ++line) {
    std::size_t const end = std::min(rest.find('\n'), rest.size());
    auto const fields = fields_of(rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
    std::string const where = in_quotes(file) + ": line " + std::to_string(line);
    if (fields.size() == 1 && fields[0].empty()) continue;
    if (line == 1 && fields == std::vector<std::string>{"group", "format", "microseconds"}) continue;
    if (fields.size() != 3) refuse(where, "has " + std::to_string(fields.size()) + " fields, not 3");
    std::optional<double> time;
    if (fields[2] != "-") {
      double value = 0;
      auto const [stop, code] = std::from_chars(fields[2].data(), fields[2].data() + fields[2].size(), value);
      if (code != std::errc{} || stop != fields[2].data() + fields[2].size())
        refuse(where, "'" + fields[2] + "' is not a number of microseconds");
      time = time_of(where, value, fields[2]);
    }
    if (fields[0] == "limit" && fields[1].empty()) {
      if (result.limit || !time) refuse(where, result.limit ? "a second limit" : "the limit is no number");
      result.limit = time;
      continue;
    }
    result.entries.push_back({fields[0], fields[1], time, where});
  }
  if (!result.limit) refuse(in_quotes(file), "needs a line 'limit,,MICROSECONDS'");
  return result;
}

bool names_group(entry const& e, group const& g) {
  return e.group == g.name || e.group == without_recipe_suffix(g.name);
}
bool names_format(entry const& e, candidate const& c) {
  return e.format == c.format || e.format == short_format(c.format);
}

/// The entry for a candidate: one of its group's, else one of *.
entry const* find(table const& t, group const& g, candidate const& c, std::set<entry const*>& used) {
  entry const* found = nullptr;
  bool named = false;
  for (entry const& e : t.entries) named = named || names_group(e, g);
  for (entry const& e : t.entries) {
    if (!(named ? names_group(e, g) : e.group == "*") || !names_format(e, c)) continue;
    if (found != nullptr) refuse(e.where, "is a second entry for " + c.format + " of " + g.name);
    found = &e;
    used.insert(&e);
  }
  return found;
}

}  // namespace

std::int64_t read_latency(std::string const& file, statistics& stats) {
  table const t = file.ends_with(".csv") ? from_csv(file) : from_json(file);
  std::set<entry const*> used;
  double total = 0;  // of the longest
  for (group& g : stats.groups) {
    bool any = false;
    double longest = 0;
    for (candidate& c : g.candidates) {
      entry const* const e = find(t, g, c, used);
      if (e == nullptr) refuse(in_quotes(file), "has no entry for " + c.format + " of " + g.name);
      if (e->microseconds) c.nanoseconds = static_cast<std::int64_t>(std::ceil(*e->microseconds * 1000));
      any = any || e->microseconds;
      longest = std::max(longest, e->microseconds.value_or(0));
    }
    total += longest;
    if (!any) refuse(in_quotes(file), "allows no format of " + g.name);
  }
  if (total > 0x1p52) refuse(in_quotes(file), "has microseconds that add up to more than 2^52, too many to count");
  for (entry const& e : t.entries)
    if (!used.contains(&e)) refuse(e.where, "matches no group and format of " + in_quotes(stats.file));
  return static_cast<std::int64_t>(std::floor(*t.limit * 1000));
}

}  // namespace allocate
