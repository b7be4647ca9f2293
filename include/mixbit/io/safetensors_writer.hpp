// Writing safetensors files, byte for byte as the reference implementation does.
//
// Contract: tensors are sorted as sort_as_in_safetensors says, behind a safetensors_head. The file is written front to
// back straight from the tensors' memory, and it appears whole or not at all (atomic_file). Errors: `file_content` for
// names and shapes that no file can hold, `tensor_layout` for memory that is not the CPU's, `file_open` for what the
// system refuses.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "mixbit/io/atomic_file.hpp"
#include "mixbit/io/elements.hpp"
#include "mixbit/io/named_tensor.hpp"
#include "mixbit/io/safetensors_head.hpp"

namespace mixbit {

/// Writes a file tensor by tensor, for callers that make each one only when it is due.
class safetensors_writer {
 public:
  /// Sorts `tensors`, checks them and writes the header.
  safetensors_writer(std::filesystem::path const& path, std::vector<named_geometry> tensors,
                     safetensors_metadata const& metadata = {})
      : order_{std::move(tensors)}, file_{path} {
    sort_as_in_safetensors(order_);
    file_.write(safetensors_head(path, order_, metadata));
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
