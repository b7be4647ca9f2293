// Options of quantize_checkpoint on the source of a bench, written to "tool" beside it.
#pragma once

#include <string>

#include "examples/tools/quantize_checkpoint/options.hpp"
#include "mixbit/config/json.hpp"
#include "support/export_bench.hpp"

namespace mixbit::test {

inline quantize_checkpoint::options program_on(export_bench const& b, std::string const& to,
                                               std::string const& preset_name) {
  quantize_checkpoint::options o;
  o.model = b.source().string();
  o.out = (b.folder / "tool").string();
  o.to = to;
  o.preset = preset_name;
  o.threads = 2;
  return o;
}

inline quantize_checkpoint::options program_on(export_bench const& b, std::string const& to,
                                               quantize_config const& how) {
  auto o = program_on(b, to, std::string{});
  o.config = (b.folder / "how.json").string();
  write_text(o.config, config_to_text(how));
  return o;
}

}  // namespace mixbit::test
