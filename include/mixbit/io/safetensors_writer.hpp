// Writing safetensors files, byte for byte as the reference implementation does.
//
// Contract: tensors are sorted by element type (largest alignment first, in the order of safetensors_types), then by
// name; the header is compact JSON with `__metadata__` first, padded with spaces to a multiple of 8, so the data of
// every tensor is aligned for its type. The file is written front to back straight from the tensors' memory, and it
// appears whole or not at all (atomic_file). Errors: `file_content` for names and shapes that no file can hold,
// `tensor_layout` for memory that is not the CPU's, `file_open` for what the system refuses.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "mixbit/io/atomic_file.hpp"
#include "mixbit/io/elements.hpp"
#include "mixbit/io/safetensors.hpp"

namespace mixbit {

/// A tensor to write; any strides, written in the order of its axes.
struct named_tensor {
  std::string name;
  const_tensor_ref tensor;
};

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
  std::stable_sort(tensors.begin(), tensors.end(), [](named_geometry const& a, named_geometry const& b) {
    auto const left = detail::safetensors_rank(a.shape.type), right = detail::safetensors_rank(b.shape.type);
    return left != right ? left > right : a.name < b.name;
  });
}

/// Writes a file tensor by tensor, for callers that make each one only when it is due.
class safetensors_writer {
 public:
  /// Sorts `tensors`, checks them and writes the header.
  safetensors_writer(std::filesystem::path const& path, std::vector<named_geometry> tensors,
                     safetensors_metadata const& metadata = {})
      : order_{std::move(tensors)}, file_{path} {
    sort_as_in_safetensors(order_);
    std::string header = make_header(metadata);
    header.append((8 - header.size() % 8) % 8, ' ');
    if (header.size() > max_safetensors_header)
      refuse("a header of ", header.size(), " bytes is above the limit of ", max_safetensors_header);
    std::uint64_t const length = header.size();
    file_.write(std::as_bytes(std::span{&length, 1}));
    file_.write(header);
  }

  /// The order in which write() takes the tensors.
  std::span<named_geometry const> order() const noexcept { return order_; }

  /// Appends the next tensor of order().
  void write(const_tensor_ref const& tensor) {
    if (next_ == order_.size()) refuse("more tensors were written than announced");
    named_geometry const& expected = order_[next_];
    if (tensor.where != device::cpu)
      fail(error_id::tensor_layout, "tensor ", in_quotes(expected.name),
           " is in device memory: copy it to the CPU first");
    if (tensor.type != expected.shape.type || !tensor.same_shape(expected.shape))
      refuse("tensor ", in_quotes(expected.name), " is ", name_of(tensor.type), " ", to_string(tensor),
             ", announced as ", name_of(expected.shape.type), " ", to_string(expected.shape));
    if (tensor.data == nullptr && tensor.size() > 0)
      refuse("tensor ", in_quotes(expected.name), " of shape ", to_string(tensor), " has no data: its pointer is null");
    detail::write_elements(file_, tensor);
    ++next_;
  }

  /// Makes the file appear, after the last tensor.
  void commit(durability wanted = durability::renamed) {
    if (next_ != order_.size()) refuse("tensor ", in_quotes(order_[next_].name), " was announced but not written");
    file_.commit(wanted);
  }

 private:
  template <class... Parts>
  [[noreturn]] void refuse(Parts const&... parts) const {
    fail(error_id::file_content, "cannot write ", in_quotes(file_.path()), ": ", parts...);
  }

  std::string text(std::string const& value) const { return dump_json(value, in_quotes(file_.path())); }

  std::string make_header(safetensors_metadata const& metadata) const {
    std::string header = "{", separator;
    if (!metadata.empty()) header += "\"__metadata__\":" + make_metadata(metadata), separator = ",";
    std::unordered_set<std::string_view> names;
    std::uint64_t offset = 0;
    for (named_geometry const& item : order_) {
      if (item.name == "__metadata__" || !names.insert(item.name).second)
        refuse("the name ", in_quotes(item.name), item.name == "__metadata__" ? " is reserved" : " appears twice");
      auto const bytes =
          detail::checked_bytes(item.shape.type, {item.shape.shape.data(), static_cast<std::size_t>(item.shape.rank)});
      if (!bytes) refuse("tensor ", in_quotes(item.name), " of shape ", to_string(item.shape), " is too large");
      header += separator + text(item.name) + ":{\"dtype\":\"";
      header += detail::safetensors_types[detail::safetensors_rank(item.shape.type)].name;
      header += "\",\"shape\":" + to_string(item.shape) + ",\"data_offsets\":[" + std::to_string(offset);
      header += "," + std::to_string(offset += *bytes) + "]}";
      separator = ",";
    }
    return header + "}";
  }

  std::string make_metadata(safetensors_metadata const& metadata) const {
    std::string result = "{", separator;
    std::unordered_set<std::string_view> keys;
    for (auto const& [key, value] : metadata) {
      if (!keys.insert(key).second) refuse("the metadata key ", in_quotes(key), " appears twice");
      result += separator + text(key) + ":" + text(value);
      separator = ",";
    }
    return result + "}";
  }

  std::vector<named_geometry> order_;
  std::size_t next_ = 0;
  atomic_file file_;
};

/// Writes all tensors, whole or not at all. Their order does not matter.
inline void write_safetensors(std::filesystem::path const& path, std::span<named_tensor const> tensors,
                              safetensors_metadata const& metadata = {}, durability wanted = durability::renamed) {
  std::vector<named_geometry> shapes;
  std::unordered_map<std::string_view, const_tensor_ref const*> by_name;
  shapes.reserve(tensors.size());
  for (named_tensor const& item : tensors) {
    shapes.push_back({item.name, item.tensor});
    by_name.emplace(item.name, &item.tensor);
  }
  safetensors_writer writer{path, std::move(shapes), metadata};
  for (named_geometry const& item : writer.order()) writer.write(*by_name.at(item.name));
  writer.commit(wanted);
}

}  // namespace mixbit
