// Writing GGUF files tensor by tensor (io/gguf_head.hpp says what is in one). Knows types, shapes and where things lie;
// what the bytes of a quantized tensor are is io/gguf_blocks.hpp's.
//
// Contract: names, shapes and keys are checked before the file is opened; it appears whole or not at all (atomic_file).
// Errors: `file_content`, naming the file and the tensor or key.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "mixbit/io/atomic_file.hpp"
#include "mixbit/io/gguf_head.hpp"

namespace mixbit {

/// Writes a file tensor by tensor, for callers that make each one only when it is due.
class gguf_writer {
 public:
  /// Checks everything and writes the header. The order of the tensors is the file's.
  gguf_writer(std::filesystem::path const& path, gguf_metadata const& metadata, std::vector<gguf_tensor> tensors)
      : order_{std::move(tensors)}, head_{gguf_layout_of(path, metadata, order_).head}, file_{path} {
    file_.write(std::exchange(head_, {}));
    begin();
  }

  std::span<gguf_tensor const> order() const noexcept { return order_; }

  /// Appends to the tensor that is due, which is done when all its bytes are there; the next is due then.
  void write(std::span<std::byte const> bytes) {
    if (bytes.empty()) return;
    if (next_ == order_.size()) refuse("more tensors were written than announced");
    if (static_cast<std::int64_t>(bytes.size()) > left_)
      refuse("tensor ", in_quotes(order_[next_].name), " has ", order_[next_].bytes(), " bytes; more were written");
    file_.write(bytes);
    left_ -= static_cast<std::int64_t>(bytes.size());
    if (left_ > 0) return;
    pad(order_[next_].bytes());
    ++next_;
    begin();
  }

  /// Makes the file appear, after the last tensor.
  void commit() {
    if (next_ != order_.size())
      refuse("tensor ", in_quotes(order_[next_].name), " lacks ", left_, " of its ", order_[next_].bytes(), " bytes");
    file_.commit();
  }

 private:
  template <class... Parts>
  [[noreturn]] void refuse(Parts const&... parts) const {
    detail::gguf::fail_writing(file_.path(), parts...);
  }

  void begin() { left_ = next_ < order_.size() ? order_[next_].bytes() : 0; }

  void pad(std::int64_t bytes) {
    constexpr std::byte zeros[detail::gguf::alignment] = {};
    file_.write(std::span{zeros}.first(static_cast<std::size_t>(detail::gguf::padding(bytes))));
  }

  std::vector<gguf_tensor> order_;
  std::string head_;  ///< checked before the file is opened
  std::size_t next_ = 0;
  std::int64_t left_ = 0;
  atomic_file file_;
};

}  // namespace mixbit
