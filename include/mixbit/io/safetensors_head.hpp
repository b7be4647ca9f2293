// The head of a safetensors file, byte for byte as the reference implementation writes it: the length of the JSON, the
// JSON with `__metadata__` first, and spaces up to a multiple of 8.
//
// Contract: tensors lie in the order given, without gaps; sort_as_in_safetensors gives the reference implementation's
// order, in which the data of every tensor is aligned for its type. Errors: `file_content` for names and shapes that no
// file can hold, naming the file.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "mixbit/core/order.hpp"
#include "mixbit/io/safetensors.hpp"

namespace mixbit {

/// What the header says of a tensor. The strides do not matter.
struct named_geometry {
  std::string name;
  geometry shape;
};

namespace detail {

/// The place of a type in the writer's order; larger comes first.
constexpr std::size_t safetensors_rank(dtype type) {
  std::size_t i = 0;
  while (safetensors_types[i].type != type) ++i;
  return i;
}

}  // namespace detail

/// Sorts as the reference implementation lays tensors out in a file: the type's alignment, largest first, then names.
inline void sort_as_in_safetensors(std::vector<named_geometry>& tensors) {
  detail::sort_stably(tensors, [](named_geometry const& a, named_geometry const& b) {
    auto const left = detail::safetensors_rank(a.shape.type), right = detail::safetensors_rank(b.shape.type);
    return left != right ? left > right : a.name < b.name;
  });
}

namespace detail {

class safetensors_head_maker {
 public:
  explicit safetensors_head_maker(std::filesystem::path const& path) : path_{path} {}

  std::string make(std::span<named_geometry const> order, safetensors_metadata const& metadata) const {
    std::unordered_set<std::string_view> names;
    std::string head;
    auto const each = [&](auto const& visit) { for (auto const& item : order) visit(item); };
    for (auto const& item : order)
      if (!names.insert(item.name).second) refuse("the name ", in_quotes(item.name), " appears twice");
    write(each, metadata, [&](std::string_view piece) { head += piece; });
    return head;
  }

  /// Piece by piece; `each(visit)` shows the tensors, twice, in order.
  template <class Each, class Put>
  std::uint64_t write(Each const& each, safetensors_metadata const& metadata, Put const& put) const {
    std::uint64_t text = 0;
    pieces(each, metadata, [&](std::string_view piece) { text += piece.size(); });
    std::uint64_t const length = (text + 7) / 8 * 8;  // little-endian, as every machine of this library is
    if (length > max_safetensors_header)
      refuse("a header of ", length, " bytes is above the limit of ", max_safetensors_header);
    put(std::string_view{reinterpret_cast<char const*>(&length), sizeof length});
    pieces(each, metadata, put);
    put(std::string_view{"       ", static_cast<std::size_t>(length - text)});
    return sizeof length + length;
  }

 private:
  template <class... Parts>
  [[noreturn]] void refuse(Parts const&... parts) const {
    fail(error_id::file_content, "cannot write ", in_quotes(path_), ": ", parts...);
  }

  std::string text(std::string const& value) const { return dump_json(value, in_quotes(path_)); }

  template <class Each, class Put>
  void pieces(Each const& each, safetensors_metadata const& metadata, Put const& put) const {
    std::string piece = "{", separator;
    if (!metadata.empty()) piece += "\"__metadata__\":" + members(metadata), separator = ",";
    std::uint64_t offset = 0;
    each([&](named_geometry const& item) {
      if (item.name == "__metadata__") refuse("the name ", in_quotes(item.name), " is reserved");
      auto const bytes =
          checked_bytes(item.shape.type, {item.shape.shape.data(), static_cast<std::size_t>(item.shape.rank)});
      if (!bytes) refuse("tensor ", in_quotes(item.name), " of shape ", to_string(item.shape), " is too large");
      piece += separator + text(item.name) + ":{\"dtype\":\"";
      piece += safetensors_types[safetensors_rank(item.shape.type)].name;
      piece += "\",\"shape\":" + to_string(item.shape) + ",\"data_offsets\":[" + std::to_string(offset);
      piece += "," + std::to_string(offset += *bytes) + "]}";
      separator = ",";
      put(std::string_view{piece});
      piece.clear();
    });
    put(piece + "}");
  }

  std::string members(safetensors_metadata const& metadata) const {
    std::string result = "{", separator;
    std::unordered_set<std::string_view> keys;
    for (auto const& [key, value] : metadata) {
      if (!keys.insert(key).second) refuse("the metadata key ", in_quotes(key), " appears twice");
      result += separator + text(key) + ":" + text(value);
      separator = ",";
    }
    return result + "}";
  }

  std::filesystem::path const& path_;
};

}  // namespace detail

/// What comes before the data in a file with these tensors; `path` is for messages.
inline std::string safetensors_head(std::filesystem::path const& path, std::span<named_geometry const> order,
                                    safetensors_metadata const& metadata) {
  return detail::safetensors_head_maker{path}.make(order, metadata);
}

/// The same for tensors that are described only when they are asked for, whose names differ: `each(visit)` calls
/// visit(named_geometry) for each, in order, every time it is called, and `put` is given the head piece by piece.
/// Returns its length.
template <class Each, class Put>
std::uint64_t write_safetensors_head(std::filesystem::path const& path, Each const& each,
                                     safetensors_metadata const& metadata, Put const& put) {
  return detail::safetensors_head_maker{path}.write(each, metadata, put);
}

}  // namespace mixbit
