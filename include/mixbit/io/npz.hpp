// Reading and writing npz files: several arrays in one ZIP file, as NumPy's savez and savez_compressed write them. Each
// array is a member `NAME.npy` (io/npy.hpp says what arrays are read).
//
//   npz_file const file = npz_file::open("calibration.npz");
//   npz_array const x = file.read("x");                // x.tensor() as long as file and x live
//   write_npz("out.npz", std::vector<named_tensor>{{"x", x.tensor()}});
//
// Contract: open() maps the file and checks its directory; read() checks a member's CRC-32 and its header before
// anything is used. Violations throw `file_format` with one line that names the file and the member. Elements are
// aligned for their type: a stored member stays in place where the file has it aligned, as ours do; others, deflated
// members and big-endian arrays are copied. Members that are no arrays are not listed.
#pragma once

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "mixbit/io/elements.hpp"
#include "mixbit/io/named_tensor.hpp"
#include "mixbit/io/npy.hpp"
#include "mixbit/io/zip_reader.hpp"
#include "mixbit/io/zip_writer.hpp"

namespace mixbit {

/// One array of an npz file; it holds a copy where the file could not be used in place.
class npz_array {
 public:
  const_tensor_ref tensor() const { return file_.tensor(); }
  bool in_place() const { return copy_.empty() && file_.in_place(); }

 private:
  friend class npz_file;
  npz_array(std::vector<std::byte> copy, npy_file file) : copy_{std::move(copy)}, file_{std::move(file)} {}

  std::vector<std::byte> copy_;  // moving it leaves the elements where they are
  npy_file file_;
};

class npz_file {
 public:
  /// Throws `file_open` or `file_format`.
  static npz_file open(std::filesystem::path const& path) {
    mapped_file map{path};
    npz_file result{map.bytes(), in_quotes(path)};
    result.map_ = std::move(map);
    return result;
  }

  /// Of bytes that the caller keeps; `label` stands for the file in messages.
  static npz_file from_bytes(std::span<std::byte const> bytes, std::string label) {
    return npz_file{bytes, std::move(label)};
  }

  /// The arrays, in the order of the file's directory.
  std::vector<std::string> const& names() const { return names_; }
  bool contains(std::string const& name) const { return places_.contains(name); }

  /// Throws `file_content` for a name that the file does not have.
  npz_array read(std::string const& name) const {
    auto const at = places_.find(name);
    if (at == places_.end()) fail(error_id::file_content, label_, ": has no array ", in_quotes(name));
    auto const& member = zip_.members()[at->second];
    std::string const label = label_ + ": member " + in_quotes(member.name);
    if (member.method == 0) {
      auto const bytes = zip_.stored(member);
      npy_file file = npy_file::from_bytes(bytes, label);
      if (is_aligned(file.tensor())) return {{}, std::move(file)};
      return copied({bytes.begin(), bytes.end()}, label);
    }
    return copied(zip_.inflated(member), label);
  }

 private:
  npz_file(std::span<std::byte const> file, std::string label) : label_{std::move(label)}, zip_{file, label_} {
    constexpr std::string_view suffix = ".npy";
    for (std::size_t i = 0; i < zip_.members().size(); ++i) {
      std::string const& member = zip_.members()[i].name;
      if (!member.ends_with(suffix)) continue;
      names_.push_back(member.substr(0, member.size() - suffix.size()));
      places_.emplace(names_.back(), i);
    }
  }

  /// Elements lie behind a header of any length: those that it leaves unaligned are moved to the front.
  static npz_array copied(std::vector<std::byte> bytes, std::string const& label) {
    npy_file file = npy_file::from_bytes(bytes, label);
    if (!file.in_place()) return {{}, std::move(file)};
    if (is_aligned(file.tensor())) return {std::move(bytes), std::move(file)};
    auto const* const data = file.tensor().as<std::byte>();
    std::size_t const before = static_cast<std::size_t>(data - bytes.data()), gap = (64 - before % 64) % 64;
    std::vector<std::byte> moved(gap);
    moved.insert(moved.end(), bytes.begin(), bytes.end());
    npy_file again = npy_file::from_bytes(std::span{moved}.subspan(gap), label);
    return {std::move(moved), std::move(again)};
  }

  mapped_file map_;
  std::string label_;
  detail::zip_reader zip_;
  std::vector<std::string> names_;
  std::unordered_map<std::string, std::size_t> places_;
};

/// Writes the arrays in this order as stored members, whole or not at all; NumPy's load reads them. The same arrays
/// give the same bytes. Throws `file_content` for names that appear twice, and what write_npy throws.
inline void write_npz(std::filesystem::path const& path, std::span<named_tensor const> arrays) {
  detail::zip_writer zip{path};
  for (auto const& array : arrays) {
    std::string const label = in_quotes(path) + ": array " + in_quotes(array.name);
    std::string const header = detail::npy_header_of(array.tensor, label);
    zip.add(array.name + ".npy", [&](auto& out) {
      out.write(std::as_bytes(std::span{header}));
      detail::write_elements(out, array.tensor);
    });
  }
  zip.commit();
}

}  // namespace mixbit
