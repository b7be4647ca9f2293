// What comes before the data of a GGUF file, version 3 (ggml's docs/gguf.md), the format of llama.cpp: types, shapes,
// and where things lie.
//
// Layout, little endian: "GGUF", u32 version, u64 number of tensors, u64 number of metadata entries; the entries (key,
// type, value); for each tensor name, rank, sizes with the last axis first, type and offset; then, from a multiple of
// 32 on, the data of each tensor, padded to 32. Contract: tensors lie in the order given. Errors: `file_content` for
// names, shapes and keys that no file can hold, naming the file and the tensor or key.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <string>
#include <string_view>
#include <unordered_set>
#include <variant>
#include <vector>

#include "mixbit/core/tensor_view.hpp"
#include "mixbit/io/path_error.hpp"

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

template <class... Parts>
[[noreturn]] void fail_writing(std::filesystem::path const& path, Parts const&... parts) {
  fail(error_id::file_content, "cannot write ", in_quotes(path), ": ", parts...);
}

inline void check_tensor(std::filesystem::path const& path, gguf_tensor const& t) {
  auto const info = gguf_info(t.type);
  auto const refuse_it = [&](auto const&... why) { fail_writing(path, "tensor ", in_quotes(t.name), ": ", why...); };
  if (t.name.empty() || t.name.size() > longest_name)
    refuse_it("a name of GGUF has 1 to ", longest_name, " bytes, this one ", t.name.size());
  if (t.shape.rank < 1 || t.shape.rank > most_axes)
    refuse_it("GGUF holds ranks of 1 to ", most_axes, ", and it is ", to_string(t.shape));
  if (t.shape.size() == 0) refuse_it("it has no elements: ", to_string(t.shape));
  if (t.shape.shape[t.shape.rank - 1] % info.block != 0)
    refuse_it(info.name, " takes rows of a multiple of ", info.block, " elements, and it is ", to_string(t.shape));
}

inline void check(std::filesystem::path const& path, gguf_metadata const& metadata,
                  std::vector<gguf_tensor> const& tensors) {
  std::unordered_set<std::string_view> keys, names;
  for (auto const& [key, value] : metadata) {
    if (key.empty() || key.size() > longest_key || key == "general.alignment")
      fail_writing(path, "the metadata key ", in_quotes(key), key.empty() ? " is empty" : " cannot be given");
    if (!keys.insert(key).second) fail_writing(path, "the metadata key ", in_quotes(key), " appears twice");
  }
  for (auto const& t : tensors) {
    if (!names.insert(t.name).second) fail_writing(path, "the name ", in_quotes(t.name), " appears twice");
    check_tensor(path, t);
  }
}

}  // namespace detail::gguf

/// A file before its data is there.
struct gguf_layout {
  std::string head;                   ///< with what pads it
  std::vector<std::int64_t> offsets;  ///< of each tensor's data in the file
  std::int64_t size = 0;              ///< of the file
};

/// `path` is for messages.
inline gguf_layout gguf_layout_of(std::filesystem::path const& path, gguf_metadata const& metadata,
                                  std::vector<gguf_tensor> const& tensors) {
  detail::gguf::check(path, metadata, tensors);
  detail::gguf::header h;
  h.put(std::uint32_t{0x46554747});
  h.put(std::uint32_t{3});
  h.put(std::uint64_t{tensors.size()});
  h.put(std::uint64_t{metadata.size()});
  for (auto const& entry : metadata) h.put(entry);
  gguf_layout layout;
  for (auto const& t : tensors) {
    h.put(t.name);
    h.put(static_cast<std::uint32_t>(t.shape.rank));
    for (int a = t.shape.rank - 1; a >= 0; --a) h.put(static_cast<std::uint64_t>(t.shape.shape[a]));
    h.put(static_cast<std::uint32_t>(t.type));
    h.put(static_cast<std::uint64_t>(layout.size));
    layout.offsets.push_back(layout.size);
    layout.size += t.bytes() + detail::gguf::padding(t.bytes());
  }
  layout.head = h.text();
  auto const length = static_cast<std::int64_t>(layout.head.size());
  layout.head.append(static_cast<std::size_t>(detail::gguf::padding(length)), '\0');
  for (auto& offset : layout.offsets) offset += static_cast<std::int64_t>(layout.head.size());
  layout.size += static_cast<std::int64_t>(layout.head.size());
  return layout;
}

}  // namespace mixbit
