// Writing GGUF files, version 3 (ggml's docs/gguf.md): the format of llama.cpp. Knows types, shapes and where things
// lie; what the bytes of a quantized tensor are is io/gguf_blocks.hpp's.
//
// Layout, little endian: "GGUF", u32 version, u64 number of tensors, u64 number of metadata entries; the entries (key,
// type, value); for each tensor name, rank, sizes with the last axis first, type and offset; then, from a multiple of
// 32 on, the data of each tensor, padded to 32. Contract: names, shapes and keys are checked before the file is opened;
// it appears whole or not at all (atomic_file). Errors: `file_content`, naming the file and the tensor or key.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <variant>
#include <vector>

#include "mixbit/core/quoted.hpp"
#include "mixbit/core/tensor_view.hpp"
#include "mixbit/io/atomic_file.hpp"

namespace mixbit {

/// ggml's numbers of the types that are written.
enum class gguf_type : std::uint32_t { f32 = 0, f16 = 1, q4_0 = 2, q8_0 = 8, bf16 = 30, mxfp4 = 39, nvfp4 = 40 };

struct gguf_type_info {
  gguf_type type;
  std::string_view name;
  std::int64_t block, bytes;  ///< elements along the last axis that share `bytes` bytes
};

constexpr gguf_type_info gguf_info(gguf_type type) {
  constexpr gguf_type_info all[] = {
      {gguf_type::f32, "F32", 1, 4},         {gguf_type::f16, "F16", 1, 2},     {gguf_type::q4_0, "Q4_0", 32, 18},
      {gguf_type::q8_0, "Q8_0", 32, 34},     {gguf_type::bf16, "BF16", 1, 2},   {gguf_type::mxfp4, "MXFP4", 32, 17},
      {gguf_type::nvfp4, "NVFP4", 64, 36}};
  for (auto const& info : all)
    if (info.type == type) return info;
  return all[0];
}

using gguf_value = std::variant<bool, std::uint32_t, std::int32_t, std::uint64_t, float, std::string,
                                std::vector<std::string>, std::vector<std::int32_t>, std::vector<float>>;

/// "llama.block_count" and the like; the order is the file's.
struct gguf_entry {
  std::string key;
  gguf_value value;
};
using gguf_metadata = std::vector<gguf_entry>;

/// Of the shape only the sizes count.
struct gguf_tensor {
  std::string name;
  gguf_type type = gguf_type::f32;
  geometry shape;
  std::int64_t bytes() const { return shape.size() / gguf_info(type).block * gguf_info(type).bytes; }
};

namespace detail::gguf {

inline constexpr std::int64_t alignment = 32;  ///< GGUF's default; another would need general.alignment
inline constexpr std::size_t longest_name = 63, longest_key = 65535;
inline constexpr int most_axes = 4;  ///< ggml's

constexpr std::int64_t padding(std::int64_t bytes) { return (alignment - bytes % alignment) % alignment; }

/// The header's numbers and texts.
class header {
 public:
  template <class T>
    requires std::integral<T> || std::floating_point<T>
  void put(T value) {
    char bytes[sizeof value];
    std::memcpy(bytes, &value, sizeof value);
    text_.append(bytes, sizeof value);
  }
  void put(std::string const& text) {
    put(std::uint64_t{text.size()});
    text_ += text;
  }
  template <class T>
  void put(std::vector<T> const& values) {
    put(type_of(T{}));
    put(std::uint64_t{values.size()});
    for (auto const& v : values) put(v);
  }
  void put(gguf_entry const& e) {
    put(e.key);
    std::visit([this](auto const& v) { put(type_of(v)), put(v); }, e.value);
  }
  std::string const& text() const { return text_; }

 private:
  static std::uint32_t type_of(std::uint32_t) { return 4; }
  static std::uint32_t type_of(std::int32_t) { return 5; }
  static std::uint32_t type_of(float) { return 6; }
  static std::uint32_t type_of(bool) { return 7; }
  static std::uint32_t type_of(std::string const&) { return 8; }
  template <class T>
  static std::uint32_t type_of(std::vector<T> const&) { return 9; }
  static std::uint32_t type_of(std::uint64_t) { return 10; }

  std::string text_;
};

}  // namespace detail::gguf

/// Writes a file tensor by tensor, for callers that make each one only when it is due.
class gguf_writer {
 public:
  /// Checks everything and writes the header. The order of the tensors is the file's.
  gguf_writer(std::filesystem::path const& path, gguf_metadata const& metadata, std::vector<gguf_tensor> tensors)
      : order_{std::move(tensors)}, file_{(check(path, metadata, order_), path)} {
    detail::gguf::header h;
    h.put(std::uint32_t{0x46554747});
    h.put(std::uint32_t{3});
    h.put(std::uint64_t{order_.size()});
    h.put(std::uint64_t{metadata.size()});
    for (auto const& entry : metadata) h.put(entry);
    std::int64_t offset = 0;
    for (auto const& t : order_) {
      h.put(t.name);
      h.put(static_cast<std::uint32_t>(t.shape.rank));
      for (int a = t.shape.rank - 1; a >= 0; --a) h.put(static_cast<std::uint64_t>(t.shape.shape[a]));
      h.put(static_cast<std::uint32_t>(t.type));
      h.put(static_cast<std::uint64_t>(offset));
      offset += t.bytes() + detail::gguf::padding(t.bytes());
    }
    file_.write(h.text());
    pad(static_cast<std::int64_t>(h.text().size()));
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
  [[noreturn]] static void fail_for(std::filesystem::path const& path, Parts const&... parts) {
    fail(error_id::file_content, "cannot write ", in_quotes(path), ": ", parts...);
  }
  template <class... Parts>
  [[noreturn]] void refuse(Parts const&... parts) const {
    fail_for(file_.path(), parts...);
  }

  static void check(std::filesystem::path const& path, gguf_metadata const& metadata,
                    std::vector<gguf_tensor> const& tensors) {
    std::unordered_set<std::string_view> keys, names;
    for (auto const& [key, value] : metadata) {
      if (key.empty() || key.size() > detail::gguf::longest_key || key == "general.alignment")
        fail_for(path, "the metadata key ", in_quotes(key), key.empty() ? " is empty" : " cannot be given");
      if (!keys.insert(key).second) fail_for(path, "the metadata key ", in_quotes(key), " appears twice");
    }
    for (auto const& t : tensors) {
      if (!names.insert(t.name).second) fail_for(path, "the name ", in_quotes(t.name), " appears twice");
      check_tensor(path, t);
    }
  }

  static void check_tensor(std::filesystem::path const& path, gguf_tensor const& t) {
    auto const info = gguf_info(t.type);
    auto const refuse_it = [&](auto const&... why) { fail_for(path, "tensor ", in_quotes(t.name), ": ", why...); };
    if (t.name.empty() || t.name.size() > detail::gguf::longest_name)
      refuse_it("a name of GGUF has 1 to ", detail::gguf::longest_name, " bytes, this one ", t.name.size());
    if (t.shape.rank < 1 || t.shape.rank > detail::gguf::most_axes)
      refuse_it("GGUF holds ranks of 1 to ", detail::gguf::most_axes, ", and it is ", to_string(t.shape));
    if (t.shape.size() == 0) refuse_it("it has no elements: ", to_string(t.shape));
    if (t.shape.shape[t.shape.rank - 1] % info.block != 0)
      refuse_it(info.name, " takes rows of a multiple of ", info.block, " elements, and it is ", to_string(t.shape));
  }

  void begin() { left_ = next_ < order_.size() ? order_[next_].bytes() : 0; }

  void pad(std::int64_t bytes) {
    constexpr std::byte zeros[detail::gguf::alignment] = {};
    file_.write(std::span{zeros}.first(static_cast<std::size_t>(detail::gguf::padding(bytes))));
  }

  std::vector<gguf_tensor> order_;
  std::size_t next_ = 0;
  std::int64_t left_ = 0;
  atomic_file file_;
};

}  // namespace mixbit
