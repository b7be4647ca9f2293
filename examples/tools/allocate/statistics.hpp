// What allocate reads: the statistics of a search, and a table of latencies.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "mixbit/config/quantize_config.hpp"

namespace allocate {

struct candidate {
  std::string format;  ///< "INT8_DEFAULT_CFG(effective-bits: 8.0)"
  double score = 0;
  std::int64_t cost = 0;                      ///< statistics::units to a bit
  std::optional<std::int64_t> nanoseconds{};  ///< empty: not allowed here, where there is a table
};

struct group {
  std::string name;                  ///< as in the file
  std::vector<std::string> modules;  ///< empty where the file has none
  double elements = 0;
  std::vector<candidate> candidates;
};

struct statistics {
  std::string file;
  std::map<std::string, mixbit::quantize_config> configs;  ///< of formats that are no presets, by label
  std::vector<group> groups;
  std::int64_t units = 1;     ///< a power of two: costs count in bits / units, so that halves of a bit stay whole
  std::int64_t elements = 0;  ///< of all groups, times units
  bool rounded = false;       ///< some cost had finer parts and was rounded up
  bool raw = false;           ///< scores are the file's raw_scores
  bool rewritten = false;     ///< are the file's scores others than its raw_scores?
  std::string weighted{};     ///< "GROUP in 'FILE' are weighted by 0.25": costs that are not what is stored
};

/// A cost of the statistics in bits, and in bits an element of all groups.
double bits_of(statistics const& stats, std::int64_t cost);
double effective(statistics const& stats, std::int64_t cost);

/// With the scores by which the search chose, or as they were measured. Throws a file error or file_content naming the
/// file, the field and the value.
statistics read_statistics(std::string const& file, bool raw_scores = false);

/// Sets every candidate's nanoseconds and returns the limit. Throws as read_statistics does.
std::int64_t read_latency(std::string const& file, statistics& stats);

}  // namespace allocate
