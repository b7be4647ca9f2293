// Protocol Buffers' wire format, as far as writing ONNX needs it (protobuf.dev, "Encoding"): fields are a number and a
// wire type, then a varint, four bytes, or a length and bytes. Nested messages are bytes.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

namespace mixbit::detail {

class protobuf_message {
 public:
  /// int32, int64 (negative ones take ten bytes), bool and enumerations.
  protobuf_message& number(int field, std::int64_t value) {
    tag(field, 0);
    varint(static_cast<std::uint64_t>(value));
    return *this;
  }
  protobuf_message& real(int field, float value) {
    tag(field, 5);
    char bytes[sizeof value];
    std::memcpy(bytes, &value, sizeof value);  // little endian, as this machine is
    bytes_.append(bytes, sizeof value);
    return *this;
  }
  protobuf_message& text(int field, std::string_view value) {
    tag(field, 2);
    varint(value.size());
    bytes_.append(value);
    return *this;
  }
  protobuf_message& message(int field, protobuf_message const& value) { return text(field, value.bytes_); }
  /// proto3 packs repeated numbers; readers take both forms.
  protobuf_message& packed(int field, std::span<std::int64_t const> values) {
    protobuf_message all;
    for (std::int64_t const v : values) all.varint(static_cast<std::uint64_t>(v));
    return message(field, all);
  }

  std::string const& bytes() const { return bytes_; }

 private:
  void tag(int field, int wire) { varint(static_cast<std::uint64_t>(field) << 3 | static_cast<std::uint64_t>(wire)); }
  void varint(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_.push_back(static_cast<char>(value | 0x80));
    bytes_.push_back(static_cast<char>(value));
  }

  std::string bytes_;
};

}  // namespace mixbit::detail
