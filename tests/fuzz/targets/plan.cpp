#include "fuzz/target.hpp"
#include "mixbit/autoquant/json.hpp"

namespace {

using namespace mixbit;

/// A plan that is taken is taken again as it is written.
fuzz::target const plan{"plan", fuzz::kind::json, [](fuzz::bytes input) {
  auto const read = plan_from_json(parse_json_strict(fuzz::text_of(input), "it", error_id::file_format), "it");
  auto const written = to_json(read);
  if (to_json(plan_from_json(written, "written")) != written) std::abort();
}};

}  // namespace
