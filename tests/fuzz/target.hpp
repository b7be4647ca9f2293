// What the fuzz targets share. Each is one file of targets/ and names itself; scripts/fuzz makes a program of all of
// them and calls it by the target's name.
//
//   fuzz::target const npy{"npy", fuzz::kind::raw, [](fuzz::bytes input) { npy_file::from_bytes(input, "it"); }};
//
// Reading an input may end in a mixbit::error of one line, and in nothing else.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string_view>

#include "mixbit/core/error.hpp"
#include "support/temporary_folder.hpp"

namespace mixbit::fuzz {

using bytes = std::span<std::byte const>;

/// How inputs are changed: byte by byte; or mostly as the values of a JSON text, or of a safetensors file's header,
/// which stays one.
enum class kind { raw, json, safetensors };

struct target {
  std::string_view name;
  kind inputs;
  void (*read)(bytes);
  target const* next;

  target(std::string_view name_, kind inputs_, void (*read_)(bytes))
      : name{name_}, inputs{inputs_}, read{read_}, next{first()} {
    first() = this;
  }
  target(target const&) = delete;
  target& operator=(target const&) = delete;

  static target const*& first() {
    static target const* all = nullptr;
    return all;
  }
};

inline std::string_view text_of(bytes input) { return {reinterpret_cast<char const*>(input.data()), input.size()}; }

/// Does the target that was called take the input? Where not, by an error as it should be.
bool takes(bytes input);

/// For readers that take files alone; TMPDIR should be in memory.
inline test::temporary_folder const& folder() {
  static test::temporary_folder const made;
  return made;
}
inline std::filesystem::path file_with(bytes input, std::string_view name) {
  test::write_text(folder() / name, text_of(input));
  return folder() / name;
}

}  // namespace mixbit::fuzz
