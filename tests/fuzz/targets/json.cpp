#include "mixbit/io/json.hpp"

#include "fuzz/target.hpp"

namespace {

using namespace mixbit;

/// What is read is read again from what it is written as.
fuzz::target const json{"json", fuzz::kind::raw, [](fuzz::bytes input) {
  auto const document = parse_json_strict(fuzz::text_of(input), "it", error_id::file_format);
  auto const text = dump_json(document, "it", 1);
  if (dump_json(parse_json_strict(text, "written", error_id::file_format), "it", 1) != text) std::abort();
}};

}  // namespace
