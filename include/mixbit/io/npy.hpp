// Reading and writing npy files: one array a file, as NumPy's `save` writes them
// (numpy.lib.format, versions 1.0, 2.0 and 3.0).
//
// Layout: "\x93NUMPY", two bytes of version, the length of the header (u16, from 2.0 on u32), a Python dictionary with
// 'descr', 'fortran_order' and 'shape' in any order, the elements. Contract: open() maps the file and checks the whole
// header before anything is used; every violation throws `file_format` with one line that names the file. Elements stay
// in place, but for big-endian ones, which are copied into this machine's order; an array in Fortran's order has
// strides that say so. npy has no names for bfloat16 and float8: arrays of ml_dtypes are written as raw bytes ('V2',
// 'V1') and are refused, since their type is lost.
#pragma once

#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mixbit/core/tensor_view.hpp"
#include "mixbit/io/atomic_file.hpp"
#include "mixbit/io/elements.hpp"
#include "mixbit/io/mapped_file.hpp"

namespace mixbit {

namespace detail {

struct npy_type {
  dtype type;
  std::string_view name;  // without the byte order
};

inline constexpr std::array<npy_type, 12> npy_types{
    {{dtype::boolean, "b1"}, {dtype::i8, "i1"}, {dtype::u8, "u1"}, {dtype::i16, "i2"}, {dtype::u16, "u2"},
     {dtype::f16, "f2"}, {dtype::i32, "i4"}, {dtype::u32, "u4"}, {dtype::f32, "f4"}, {dtype::i64, "i8"},
     {dtype::u64, "u8"}, {dtype::f64, "f8"}}};

/// What a header says.
struct npy_header {
  std::optional<std::string> descr;
  std::optional<bool> fortran_order;
  std::optional<std::vector<std::int64_t>> shape;
};

/// Reads the one dictionary that a header is. `refuse(parts...)` throws.
template <class Refuse>
class npy_header_parser {
 public:
  npy_header_parser(std::string_view text, Refuse const& refuse) : rest_{text}, refuse_{refuse} {}

  npy_header parse() {
    npy_header header;
    need('{');
    while (!take('}')) {
      std::string const key = quoted();
      need(':');
      if (key == "descr") set(header.descr, key, [&] { return quoted(); });
      else if (key == "fortran_order") set(header.fortran_order, key, [&] { return boolean(); });
      else if (key == "shape") set(header.shape, key, [&] { return tuple(); });
      else refuse_("the header has the unknown key ", in_quotes(key));
      if (!take(',')) {
        need('}');
        break;
      }
    }
    skip_space();
    if (!rest_.empty()) refuse_("the header goes on behind its dictionary");
    if (!header.descr || !header.fortran_order || !header.shape)
      refuse_("the header needs descr, fortran_order and shape");
    return header;
  }

 private:
  void skip_space() {
    while (!rest_.empty() && (rest_[0] == ' ' || rest_[0] == '\n' || rest_[0] == '\t')) rest_.remove_prefix(1);
  }

  bool take(char c) {
    skip_space();
    if (rest_.empty() || rest_[0] != c) return false;
    rest_.remove_prefix(1);
    return true;
  }

  void need(char c) {
    if (!take(c)) refuse_("the header is no dictionary: expected '", c, "' before ", in_quotes(rest_.substr(0, 20)));
  }

  template <class T, class Read>
  void set(std::optional<T>& member, std::string const& key, Read const& read) {
    if (member) refuse_("the header has the key ", in_quotes(key), " twice");
    member = read();
  }

  std::string quoted() {
    skip_space();
    char const quote = rest_.empty() ? '\0' : rest_[0];
    auto const end = quote == '\'' || quote == '"' ? rest_.find(quote, 1) : std::string_view::npos;
    if (end == std::string_view::npos)
      refuse_("the header has no quoted text where one is needed, before ", in_quotes(rest_.substr(0, 20)),
              rest_.starts_with('[') ? " (arrays of records are not read)" : "");
    std::string const text{rest_.substr(1, end - 1)};
    rest_.remove_prefix(end + 1);
    return text;
  }

  bool boolean() {
    skip_space();
    for (bool const value : {true, false})
      if (std::string_view const word = value ? "True" : "False"; rest_.starts_with(word)) {
        rest_.remove_prefix(word.size());
        return value;
      }
    refuse_("fortran_order is neither True nor False");
    return false;
  }

  std::vector<std::int64_t> tuple() {
    std::vector<std::int64_t> sizes;
    need('(');
    while (!take(')')) {
      skip_space();
      std::int64_t size = 0;
      auto const [end, code] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), size);
      if (code != std::errc{} || size < 0) refuse_("shape holds what is not a size: ", in_quotes(rest_.substr(0, 20)));
      rest_.remove_prefix(static_cast<std::size_t>(end - rest_.data()));
      sizes.push_back(size);
      if (!take(',')) {
        need(')');
        break;
      }
    }
    return sizes;
  }

  std::string_view rest_;
  Refuse const& refuse_;
};

}  // namespace detail

class npy_file {
 public:
  /// Maps and checks a file. Throws `file_open` or `file_format`.
  static npy_file open(std::filesystem::path const& path) {
    mapped_file map{path};
    npy_file result{map.bytes(), in_quotes(path)};
    result.map_ = std::move(map);
    return result;
  }

  /// Checks bytes that the caller keeps; `label` stands for the file in messages.
  static npy_file from_bytes(std::span<std::byte const> bytes, std::string label) {
    return npy_file{bytes, std::move(label)};
  }

  /// The array, as long as this object lives. Look at is_aligned() before reading through a typed pointer: version 1.0
  /// before NumPy 1.14 aligned the elements to 16 bytes, other writers may not at all.
  const_tensor_ref tensor() const { return tensor_; }
  /// Are the elements those of the file, and not a copy in another byte order?
  bool in_place() const noexcept { return swapped_.empty(); }
  std::string const& label() const noexcept { return label_; }

 private:
  npy_file(std::span<std::byte const> file, std::string label) : label_{std::move(label)} {
    std::string_view const text = header_of(file);
    auto const header = detail::npy_header_parser{text, [this](auto const&... why) { refuse(why...); }}.parse();
    geometry const g = geometry_of(header);
    auto const at = static_cast<std::size_t>(text.data() - reinterpret_cast<char const*>(file.data())) + text.size();
    if (static_cast<std::uint64_t>(g.bytes()) != file.size() - at)
      refuse("an array of shape ", to_string(g), " and type ", name_of(g.type), " needs ", g.bytes(),
             " bytes, and the file has ", file.size() - at);
    auto const elements = file.subspan(at);
    if (header.descr->starts_with('>') && size_of(g.type) > 1)
      swapped_ = detail::in_other_byte_order(elements, size_of(g.type));
    tensor_ = const_tensor_ref{g, in_place() ? elements.data() : swapped_.data()};
  }

  template <class... Parts>
  [[noreturn]] void refuse(Parts const&... parts) const {
    fail(error_id::file_format, label_, ": ", parts...);
  }

  std::string_view header_of(std::span<std::byte const> file) const {
    constexpr std::size_t fixed = 8;  // magic and version
    std::string_view const all{reinterpret_cast<char const*>(file.data()), file.size()};
    if (!all.starts_with("\x93NUMPY") || all.size() < fixed + 2) refuse("not an npy file");
    int const major = static_cast<unsigned char>(all[6]);
    if (major < 1 || major > 3) refuse("npy version ", major, " is unknown; 1 to 3 are read");
    std::size_t const width = major == 1 ? 2 : 4;
    if (all.size() < fixed + width) refuse("not an npy file: it ends in its header");
    std::uint32_t length = 0;  // little endian, as this machine is
    std::memcpy(&length, all.data() + fixed, width);
    if (length > all.size() - fixed - width)
      refuse("the header of ", length, " bytes goes beyond the end of the file of ", all.size(), " bytes");
    return all.substr(fixed + width, length);
  }

  dtype type_of(std::string_view descr) const {
    for (auto const& known : detail::npy_types) {
      if (descr.size() != known.name.size() + 1 || descr.substr(1) != known.name) continue;
      if (std::string_view{"<|=>"}.find(descr[0]) != std::string_view::npos) return known.type;
    }
    bool const raw = descr.find('V') != std::string_view::npos;
    refuse("type ", in_quotes(descr), " is not read",
           raw ? ": bfloat16 and float8 of ml_dtypes lose their type in npy; use safetensors for them" : "");
  }

  geometry geometry_of(detail::npy_header const& header) const {
    dtype const type = type_of(*header.descr);
    auto const& shape = *header.shape;
    if (shape.size() > static_cast<std::size_t>(max_rank))
      refuse("rank ", shape.size(), " is above the largest rank of ", max_rank);
    if (!detail::checked_bytes(type, shape)) refuse("the size of its shape overflows");
    geometry g = dense_geometry(type, shape);
    if (!*header.fortran_order) return g;
    std::int64_t step = 1;
    for (int a = 0; a < g.rank; ++a) {
      g.stride[a] = step;
      step *= g.shape[a];
    }
    return g;
  }

  mapped_file map_;
  std::string label_;
  std::vector<std::byte> swapped_;  // moving it leaves the elements where they are
  const_tensor_ref tensor_;
};

namespace detail {

/// Everything before the elements, as numpy.save writes it (version 1.0). Throws what write_npy does.
inline std::string npy_header_of(const_tensor_ref const& t, std::string_view label) {
  std::string_view type;
  for (auto const& known : npy_types)
    if (known.type == t.type) type = known.name;
  if (type.empty()) fail(error_id::file_content, "cannot write ", label, ": npy has no ", name_of(t.type));
  if (t.where != device::cpu)
    fail(error_id::tensor_layout, "cannot write ", label, ": the tensor is in device memory");
  std::string header{"\x93NUMPY\x01\x00..", 10};
  header.append("{'descr': '").append(size_of(t.type) == 1 ? "|" : "<").append(type);
  header.append("', 'fortran_order': False, 'shape': (");
  for (int a = 0; a < t.rank; ++a) header.append(a ? ", " : "").append(std::to_string(t.shape[a]));
  header.append(t.rank == 1 ? ",), }" : "), }");
  if (t.rank > 0 && t.shape[0] >= 0)  // numpy leaves room for the first size to grow to 21 digits
    header.append(21 - std::to_string(t.shape[0]).size(), ' ');
  header.append(63 - header.size() % 64, ' ').push_back('\n');
  auto const length = static_cast<std::uint16_t>(header.size() - 10);
  std::memcpy(header.data() + 8, &length, sizeof length);
  return header;
}

}  // namespace detail

/// Writes an array in row-major order, byte for byte as numpy.save does (version 1.0), whole or not at all. Throws
/// `file_content` for a type that npy has no name for, `tensor_layout` for memory that is not the CPU's.
inline void write_npy(std::filesystem::path const& path, const_tensor_ref const& t) {
  std::string const header = detail::npy_header_of(t, in_quotes(path));
  atomic_file file{path};
  file.write(header);
  detail::write_elements(file, t);
  file.commit();
}

}  // namespace mixbit
