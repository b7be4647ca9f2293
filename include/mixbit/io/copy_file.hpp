// A file as it is, from one folder to another.
#pragma once

#include <filesystem>

#include "mixbit/io/atomic_file.hpp"
#include "mixbit/io/mapped_file.hpp"

namespace mixbit {

/// Whole or not at all. Throws `file_open` naming the file that is at fault, also where `from` changes meanwhile.
inline void copy_file_atomically(std::filesystem::path const& from, std::filesystem::path const& to) {
  mapped_file const file{from};
  atomic_file copy{to};
  try {
    copy.write(file.bytes());
  } catch (...) {  // of pages that are gone the system says that they cannot be written
    file.require_unchanged();
    throw;
  }
  file.require_unchanged();
  copy.commit();
}

}  // namespace mixbit
