// Reading safetensors files: named tensors in one file, https://github.com/huggingface/safetensors.
//
// Layout: the header's length as a little-endian u64, a JSON object {name: {dtype, shape, data_offsets}}, the data.
// Contract: open() maps the file and checks the whole header before anything is used: the offsets cover the data
// without hole or overlap, sizes match shapes, no key appears twice, only known types, ranks up to max_rank. Every
// violation throws `file_format` with one line that names the file and, where there is one, the tensor. Data is not
// read before it is used, so files may be larger than memory. The values themselves are not judged: NaNs are data.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "mixbit/core/dtype.hpp"
#include "mixbit/core/order.hpp"
#include "mixbit/core/tensor_view.hpp"
#include "mixbit/io/elements.hpp"
#include "mixbit/io/json.hpp"
#include "mixbit/io/mapped_file.hpp"
#include "mixbit/io/path_error.hpp"

namespace mixbit {

static_assert(std::endian::native == std::endian::little, "safetensors data is used in place: little endian only");

/// The longest header that the reference implementation takes.
inline constexpr std::uint64_t max_safetensors_header = 100'000'000;

/// What a file's `__metadata__` holds, in the file's order.
using safetensors_metadata = std::vector<std::pair<std::string, std::string>>;

namespace detail {

struct safetensors_type {
  dtype type;
  std::string_view name;
};

/// In the order of the reference implementation, by which its writer sorts (descending): alignment grows.
inline constexpr std::array<safetensors_type, dtype_count> safetensors_types{{
    {dtype::boolean, "BOOL"}, {dtype::u8, "U8"}, {dtype::i8, "I8"}, {dtype::f8_e5m2, "F8_E5M2"},
    {dtype::f8_e4m3, "F8_E4M3"}, {dtype::f8_e8m0, "F8_E8M0"}, {dtype::i16, "I16"}, {dtype::u16, "U16"},
    {dtype::f16, "F16"}, {dtype::bf16, "BF16"}, {dtype::i32, "I32"}, {dtype::u32, "U32"},
    {dtype::f32, "F32"}, {dtype::f64, "F64"}, {dtype::i64, "I64"}, {dtype::u64, "U64"}}};

}  // namespace detail

class safetensors_file {
 public:
  /// Maps and checks a file. Throws `file_open` or `file_format`.
  static safetensors_file open(std::filesystem::path const& path) {
    mapped_file map{path};
    safetensors_file result{map.bytes(), in_quotes(path)};
    result.map_ = std::move(map);
    return result;
  }

  /// Checks bytes that the caller keeps; `label` stands for the file in messages.
  static safetensors_file from_bytes(std::span<std::byte const> bytes, std::string label) {
    return safetensors_file{bytes, std::move(label)};
  }

  safetensors_file(safetensors_file&&) noexcept = default;
  safetensors_file& operator=(safetensors_file&&) noexcept = default;

  /// Names in the order of the data.
  std::vector<std::string> const& names() const noexcept { return names_; }

  bool contains(std::string_view name) const { return index_.contains(name); }

  /// The tensor, in place. The data is aligned for its type in files of the usual writers, but the format does not ask
  /// for it: look at is_aligned() before reading through a typed pointer, or use read_as_float().
  /// Throws `file_content` if there is none of this name.
  const_tensor_ref at(std::string_view name) const {
    auto const found = index_.find(name);
    if (found == index_.end()) fail(error_id::file_content, label_, ": has no tensor ", in_quotes(name));
    return tensors_[found->second];
  }

  /// The tensor's bytes.
  std::span<std::byte const> bytes(std::string_view name) const {
    auto const tensor = at(name);
    return {tensor.as<std::byte>(), static_cast<std::size_t>(tensor.bytes())};
  }

  /// The elements in row-major order, converted exactly from float32, float16 or bfloat16; any alignment.
  /// Throws `file_content` for other types.
  std::vector<float> read_as_float(std::string_view name) const {
    auto const tensor = at(name);
    if (!is_compute(tensor.type))
      fail(error_id::file_content, label_, ": tensor ", in_quotes(name), " is ", name_of(tensor.type),
           ", not float32, float16 or bfloat16");
    std::vector<float> result(static_cast<std::size_t>(tensor.size()));
    auto const* from = tensor.as<std::byte>();
    visit_compute(tensor.type, [&](auto element) {
      for (float& to : result) {
        std::memcpy(&element, from, sizeof element);
        to = to_float(element);
        from += sizeof element;
      }
    });
    return result;
  }

  safetensors_metadata const& metadata() const noexcept { return metadata_; }

  /// As mapped_file::require_unchanged.
  void require_unchanged() const { map_.require_unchanged(); }
  /// As mapped_file's.
  std::size_t size() const noexcept { return map_.size(); }
  std::int64_t written_at() const noexcept { return map_.written_at(); }

  /// How messages name the file.
  std::string const& label() const noexcept { return label_; }

 private:
  struct entry {
    std::string name;
    geometry shape;
    std::uint64_t begin, end;  // bytes, from the start of the data
  };

  safetensors_file(std::span<std::byte const> file, std::string label) : label_{std::move(label)} {
    auto const header = header_of(file);
    auto const data = file.subspan(sizeof(std::uint64_t) + header.size());
    auto entries = parse(header);
    detail::sort_stably(entries, [](entry const& a, entry const& b) {
      return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
    });
    check_cover(entries, data.size());
    names_.reserve(entries.size());  // the index points into the names: they must not move
    for (entry& e : entries) {
      tensors_.emplace_back(e.shape, data.data() + e.begin);
      names_.push_back(std::move(e.name));
      index_.emplace(names_.back(), names_.size() - 1);
    }
  }

  template <class... Parts>
  [[noreturn]] void refuse(Parts const&... parts) const {
    fail(error_id::file_format, label_, ": ", parts...);
  }

  std::string_view header_of(std::span<std::byte const> file) const {
    std::uint64_t length = 0;
    if (file.size() < sizeof length) refuse("not a safetensors file: only ", file.size(), " bytes long");
    std::memcpy(&length, file.data(), sizeof length);
    if (length > max_safetensors_header)
      refuse("not a safetensors file: a header of ", length, " bytes is above the limit of ", max_safetensors_header);
    if (length > file.size() - sizeof length)
      refuse("the header of ", length, " bytes goes beyond the end of the file of ", file.size(), " bytes");
    std::string_view const text{reinterpret_cast<char const*>(file.data()) + sizeof length,
                                static_cast<std::size_t>(length)};
    if (!text.starts_with('{')) refuse("the header is not a JSON object");
    return text;
  }

  std::vector<entry> parse(std::string_view header) {
    auto const document = parse_json_strict(header, label_ + ": header", error_id::file_format);
    std::vector<entry> entries;
    for (auto const& [name, value] : document.items()) {
      if (name == "__metadata__") read_metadata(value);
      else entries.push_back(read_entry(name, value));
    }
    return entries;
  }

  void read_metadata(json_document const& value) {
    if (!value.is_object()) refuse("__metadata__ is not an object");
    for (auto const& [key, text] : value.items()) {
      if (!text.is_string()) refuse("__metadata__ ", in_quotes(key), " is not a string");
      metadata_.emplace_back(key, text.get<std::string>());
    }
  }

  entry read_entry(std::string const& name, json_document const& value) const {
    json_document const *type = nullptr, *shape = nullptr, *offsets = nullptr;
    if (!value.is_object()) refuse_tensor(name, "is not an object");
    for (auto const& [key, member] : value.items()) {
      if (key == "dtype") type = &member;
      else if (key == "shape") shape = &member;
      else if (key == "data_offsets") offsets = &member;
      else refuse_tensor(name, "has the unknown field ", in_quotes(key));
    }
    if (type == nullptr || shape == nullptr || offsets == nullptr)
      refuse_tensor(name, "needs dtype, shape and data_offsets");
    auto const sizes = unsigned_list(name, "shape", *shape);
    auto const range = unsigned_list(name, "data_offsets", *offsets);
    if (range.size() != 2) refuse_tensor(name, "data_offsets has ", range.size(), " numbers, not 2");
    auto const begin = static_cast<std::uint64_t>(range[0]), end = static_cast<std::uint64_t>(range[1]);
    if (begin > end) refuse_tensor(name, "data_offsets go from ", begin, " back to ", end);
    geometry const g = geometry_of(name, *type, sizes);
    if (static_cast<std::uint64_t>(g.bytes()) != end - begin)
      refuse_tensor(name, "of shape ", to_string(g), " and type ", name_of(g.type), " needs ", g.bytes(),
                    " bytes, data_offsets give ", end - begin);
    return {name, g, begin, end};
  }

  template <class... Parts>
  [[noreturn]] void refuse_tensor(std::string const& name, Parts const&... parts) const {
    refuse("tensor ", in_quotes(name), ": ", parts...);
  }

  /// Numbers that fit 63 bits, as sizes and offsets in memory do.
  std::vector<std::int64_t> unsigned_list(std::string const& name, char const* field, json_document const& list) const {
    if (!list.is_array()) refuse_tensor(name, field, " is not an array");
    std::vector<std::int64_t> result;
    for (json_document const& item : list) {
      // the parser calls only what has neither sign, point nor exponent, and fits 64 bits, an unsigned number
      if (!item.is_number_unsigned()) refuse_tensor(name, field, " holds what is not an unsigned integer");
      auto const number = item.get<std::uint64_t>();
      if (number > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
        refuse_tensor(name, field, " holds ", number, ", which is too large");
      result.push_back(static_cast<std::int64_t>(number));
    }
    return result;
  }

  geometry geometry_of(std::string const& name, json_document const& type,
                       std::span<std::int64_t const> shape) const {
    if (!type.is_string()) refuse_tensor(name, "dtype is not a string");
    auto const& spelling = type.get_ref<std::string const&>();
    auto const known = std::find_if(detail::safetensors_types.begin(), detail::safetensors_types.end(),
                                    [&](auto const& candidate) { return candidate.name == spelling; });
    if (known == detail::safetensors_types.end()) refuse_tensor(name, "unknown dtype ", in_quotes(spelling));
    if (shape.size() > static_cast<std::size_t>(max_rank))
      refuse_tensor(name, "rank ", shape.size(), " is above the largest rank of ", max_rank);
    if (!detail::checked_bytes(known->type, shape)) refuse_tensor(name, "the size of its shape overflows");
    return dense_geometry(known->type, shape);
  }

  /// Sorted entries must follow each other from 0 to the end of the file.
  void check_cover(std::span<entry const> entries, std::uint64_t size) const {
    std::uint64_t covered = 0;
    for (entry const& e : entries) {
      if (e.begin > covered) refuse_tensor(e.name, "starts at byte ", e.begin, " after a hole from byte ", covered);
      if (e.begin < covered) refuse_tensor(e.name, "starts at byte ", e.begin, ", inside the tensor before it");
      if (e.end > size) refuse_tensor(e.name, "ends at byte ", e.end, " of the data, but the file has only ", size);
      covered = e.end;
    }
    if (covered != size)
      refuse("the last tensor", entries.empty() ? std::string{} : " " + in_quotes(entries.back().name),
             " ends at byte ", covered, " of the data, but the file has ", size);
  }

  mapped_file map_;
  std::string label_;
  std::vector<std::string> names_;
  std::vector<const_tensor_ref> tensors_;
  std::unordered_map<std::string_view, std::size_t> index_;
  safetensors_metadata metadata_;
};

}  // namespace mixbit
