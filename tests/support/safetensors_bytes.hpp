// A safetensors file as text, made by hand, for tests of what reads one.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>

namespace mixbit::test {

/// The header's length, the header, the data: whatever they are.
inline std::string safetensors_bytes(std::string const& header, std::string const& data) {
  std::uint64_t const length = header.size();
  std::string file(sizeof length, '\0');
  std::memcpy(file.data(), &length, sizeof length);
  return file + header + data;
}

/// The header of such a file.
inline std::string safetensors_header(std::string const& file) {
  std::uint64_t length = 0;
  std::memcpy(&length, file.data(), sizeof length);
  return file.substr(sizeof length, length);
}

}  // namespace mixbit::test
