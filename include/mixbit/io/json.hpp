// JSON for the files of this layer, in and out: parsing is config/strict_json.hpp's, and keys keep their order both
// ways.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "mixbit/config/strict_json.hpp"
#include "mixbit/io/atomic_file.hpp"
#include "mixbit/io/mapped_file.hpp"

namespace mixbit {

/// A document as text: compact, or one member a line with `indent` spaces a level. Numbers that are not finite become
/// null, as JSON has none. Throws `file_format` for text that is not UTF-8.
inline std::string dump_json(json_document const& document, std::string_view where, int indent = -1) {
  try {
    return document.dump(indent);
  } catch (json_document::type_error const&) {
    fail(error_id::file_format, where, ": holds text that is not UTF-8, which JSON cannot carry");
  }
}

/// Reads a file with one JSON value.
inline json_document read_json_file(std::filesystem::path const& path) {
  mapped_file const file{path};
  return parse_json_strict(file.text(), in_quotes(path), error_id::file_format);
}

/// Writes a document with a line feed at its end, whole or not at all.
inline void write_json_file(std::filesystem::path const& path, json_document const& document, int indent = 2) {
  write_file_atomically(path, dump_json(document, in_quotes(path), indent) + "\n");
}

}  // namespace mixbit
