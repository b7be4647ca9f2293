// The statistics of a search and the two forms of a table of latencies, as examples/tools/allocate reads them.
#include "examples/tools/allocate/statistics.hpp"

#include "fuzz/target.hpp"

namespace {

using namespace mixbit;

fuzz::target const stats{"candidate_stats", fuzz::kind::json, [](fuzz::bytes input) {
  allocate::read_statistics(fuzz::file_with(input, "stats.json").string());
}};

/// Two groups with two formats each.
allocate::statistics two_groups() {
  allocate::statistics s;
  s.file = "stats.json";
  for (char const* const name : {"up.quant_recipe", "down.quant_recipe"})
    s.groups.push_back(
        {name, {}, 64, {{"INT8(effective-bits: 8.0)", 0.5, 512}, {"NONE(effective-bits: 16.0)", 0, 1024}}});
  return s;
}

fuzz::target const latency{"latency", fuzz::kind::json, [](fuzz::bytes input) {
  auto s = two_groups();
  allocate::read_latency(fuzz::file_with(input, "latency.json").string(), s);
}};
fuzz::target const latency_csv{"latency_csv", fuzz::kind::raw, [](fuzz::bytes input) {
  auto s = two_groups();
  allocate::read_latency(fuzz::file_with(input, "latency.csv").string(), s);
}};

}  // namespace
