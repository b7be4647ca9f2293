// The table of --latency, from JSON or CSV: mixbit/io/latency_file.hpp.
#include "mixbit/io/latency_file.hpp"

#include "mixbit/core/error.hpp"
#include "mixbit/core/quoted.hpp"
#include "statistics.hpp"

namespace allocate {

using namespace mixbit;

std::int64_t read_latency(std::string const& file, statistics& stats) {
  auto const table = read_latency_table(file);
  latency_lookup times{table};
  for (group& g : stats.groups) {
    bool any = false;
    for (candidate& c : g.candidates) {
      c.nanoseconds = times.of(g.name, c.format);
      any = any || c.nanoseconds;
    }
    if (!any) fail(error_id::file_content, table.name, ": allows no format of ", g.name);
    times.group_done();
  }
  times.require_used(in_quotes(stats.file));
  return times.limit();
}

}  // namespace allocate
