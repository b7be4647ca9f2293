// A latency table from a file: JSON, {"limit": MICROSECONDS, "latency": {GROUP: {FORMAT: MICROSECONDS, ...}, ...}} with
// null for what is not allowed; or where its name ends in .csv, lines 'GROUP,FORMAT,MICROSECONDS', - for null, and one
// 'limit,,MICROSECONDS'.
#pragma once

#include <algorithm>
#include <charconv>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mixbit/autoquant/latency_table.hpp"
#include "mixbit/io/json.hpp"
#include "mixbit/io/mapped_file.hpp"

namespace mixbit {

namespace detail {

[[noreturn]] inline void refuse_latency(std::string const& where, std::string const& what) {
  fail(error_id::file_content, where, ": ", what);
}

inline double latency_of(std::string const& where, double microseconds, std::string const& text) {
  if (!(microseconds >= 0) || microseconds > max_microseconds)
    refuse_latency(where, "must be microseconds from 0 to 1e12, got " + text);
  return microseconds;
}

inline latency_table latency_from_json(std::string const& file) {
  latency_table table{0, {}, in_quotes(file)};
  auto const root = read_json_file(file);
  auto const number = [&](std::string const& path, json_document const& j) {
    std::string const where = table.name + ": " + path, text = dump_json(j, table.name);
    if (!j.is_number()) refuse_latency(where, "must be a number, got " + text.substr(0, 60));
    return latency_of(where, j.get<double>(), text);
  };
  if (!root.is_object() || !root.contains("limit") || !root.contains("latency") || !root.at("latency").is_object())
    refuse_latency(table.name, "needs 'limit', a number, and 'latency', an object");
  table.limit = number("limit", root.at("limit"));
  for (auto const& [group, formats] : root.at("latency").items()) {
    std::string const path = "latency." + group;
    if (!formats.is_object())
      refuse_latency(table.name + ": " + path,
                     "must be an object, got " + dump_json(formats, table.name).substr(0, 60));
    for (auto const& [format, time] : formats.items()) {
      latency_entry one{group, format, {}, table.name + ": " + path + "." + format};
      if (!time.is_null()) one.microseconds = number(path + "." + format, time);
      table.entries.push_back(std::move(one));
    }
  }
  return table;
}

/// A line's fields; formats' labels have no commas.
inline std::vector<std::string> latency_fields(std::string_view line) {
  std::vector<std::string> fields(1);
  for (char const c : line) {
    if (c == ',') fields.emplace_back();
    else if (c != '\r') fields.back() += c;
  }
  return fields;
}

/// Empty for "-".
inline std::optional<double> latency_field(std::string const& where, std::string const& text) {
  if (text == "-") return std::nullopt;
  double value = 0;
  auto const [stop, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc{} || stop != text.data() + text.size())
    refuse_latency(where, "'" + text + "' is not a number of microseconds");
  return latency_of(where, value, text);
}

inline latency_table latency_from_csv(std::string const& file) {
  mapped_file const content{file};
  std::string_view rest = content.text();
  latency_table table{0, {}, in_quotes(file)};
  bool limited = false;
  for (int line = 1; !rest.empty(); ++line) {
    std::size_t const end = std::min(rest.find('\n'), rest.size());
    auto const fields = latency_fields(rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
    std::string const where = table.name + ": line " + std::to_string(line);
    if (fields.size() == 1 && fields[0].empty()) continue;
    if (line == 1 && fields == std::vector<std::string>{"group", "format", "microseconds"}) continue;
    if (fields.size() != 3) refuse_latency(where, "has " + std::to_string(fields.size()) + " fields, not 3");
    auto const time = latency_field(where, fields[2]);
    if (fields[0] == "limit" && fields[1].empty()) {
      if (limited || !time) refuse_latency(where, limited ? "a second limit" : "the limit is no number");
      table.limit = *time;
      limited = true;
      continue;
    }
    table.entries.push_back({fields[0], fields[1], time, where});
  }
  if (!limited) refuse_latency(table.name, "needs a line 'limit,,MICROSECONDS'");
  return table;
}

}  // namespace detail

/// Throws `file_open`, `file_format` and `file_content`, naming file, place and value. What the entries name is looked
/// at by latency_lookup.
inline latency_table read_latency_table(std::string const& file) {
  return file.ends_with(".csv") ? detail::latency_from_csv(file) : detail::latency_from_json(file);
}

}  // namespace mixbit
