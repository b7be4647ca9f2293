// Inflating deflated data: RFC 1951, decoding one bit a step by counts of code lengths as in Mark Adler's puff. Made
// for members of npz files; zlib is several times faster.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace mixbit::detail {

/// `refuse(reason)` throws.
template <class Refuse>
class inflater {
 public:
  inflater(std::span<std::byte const> in, Refuse const& refuse) : in_{in}, refuse_{refuse} {}

  /// The data, which must be exactly `size` bytes and use up the input.
  std::vector<std::byte> inflate(std::size_t size) {
    size_ = size;
    out_.reserve(std::min(size, in_.size() * 1032));  // more is beyond deflate: a claim takes no memory
    for (bool last = false; !last;) {
      last = bits(1) != 0;
      switch (bits(2)) {
        case 0: stored(); break;
        case 1: compressed(fixed_lengths(), std::vector<std::uint8_t>(32, 5)); break;
        case 2: dynamic(); break;
        default: refuse_("a block of no known kind");
      }
    }
    if (out_.size() != size_) refuse_("its data are shorter than it says");
    if (at_ != in_.size()) refuse_("more compressed data than it needs");
    return std::move(out_);
  }

 private:
  /// A canonical Huffman code: how many codes there are of each length, and their symbols in order.
  struct code {
    std::array<std::uint16_t, 16> count{};
    std::vector<std::uint16_t> symbols;
  };

  std::uint32_t bits(int count) {
    while (held_ < count) {
      if (at_ == in_.size()) refuse_("its compressed data end early");
      hold_ |= std::to_integer<std::uint32_t>(in_[at_++]) << held_;
      held_ += 8;
    }
    std::uint32_t const value = hold_ & ((1u << count) - 1u);
    hold_ >>= count;
    held_ -= count;
    return value;
  }

  /// A code may be incomplete only where it has a single symbol.
  code code_of(std::span<std::uint8_t const> lengths) {
    code c;
    for (auto const length : lengths) ++c.count[length];
    int left = 1;
    for (std::size_t length = 1; length < 16; ++length) {
      left = 2 * left - c.count[length];
      if (left < 0) refuse_("a Huffman code with too many symbols");
    }
    std::size_t const used = lengths.size() - c.count[0];
    if (left > 0 && !(used == 0 || (used == 1 && c.count[1] == 1))) refuse_("an incomplete Huffman code");
    std::array<std::uint16_t, 16> first{};
    for (std::size_t length = 1; length < 15; ++length)
      first[length + 1] = static_cast<std::uint16_t>(first[length] + c.count[length]);
    c.symbols.resize(used);
    for (std::size_t s = 0; s < lengths.size(); ++s)
      if (lengths[s] != 0) c.symbols[first[lengths[s]]++] = static_cast<std::uint16_t>(s);
    return c;
  }

  std::size_t symbol(code const& c) {
    int value = 0, first = 0, index = 0;
    for (std::size_t length = 1; length < 16; ++length) {
      value |= static_cast<int>(bits(1));
      int const count = c.count[length];
      if (value - count < first) return c.symbols[static_cast<std::size_t>(index + value - first)];
      index += count;
      first = (first + count) << 1;
      value <<= 1;
    }
    refuse_("a Huffman code that stands for nothing");
    return 0;
  }

  void put(std::byte b) {
    if (out_.size() == size_) refuse_("its data are longer than it says");
    out_.push_back(b);
  }

  void stored() {
    hold_ = 0;
    held_ = 0;
    std::uint32_t const length = bits(16);
    if (bits(16) != (length ^ 0xffffu)) refuse_("a stored block whose length contradicts its check");
    if (length > in_.size() - at_) refuse_("its compressed data end early");
    for (std::uint32_t i = 0; i < length; ++i) put(in_[at_++]);
  }

  static std::vector<std::uint8_t> fixed_lengths() {
    std::vector<std::uint8_t> lengths(288, 8);
    std::fill(lengths.begin() + 144, lengths.begin() + 256, std::uint8_t{9});
    std::fill(lengths.begin() + 256, lengths.begin() + 280, std::uint8_t{7});
    return lengths;
  }

  void dynamic() {
    std::size_t const literals = bits(5) + 257, distances = bits(5) + 1, count = bits(4) + 4;
    if (literals > 286 || distances > 30) refuse_("a block with more symbols than there are");
    constexpr std::array<std::uint8_t, 19> order{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
    std::array<std::uint8_t, 19> of_lengths{};
    for (std::size_t i = 0; i < count; ++i) of_lengths[order[i]] = static_cast<std::uint8_t>(bits(3));
    code const c = code_of(of_lengths);
    std::vector<std::uint8_t> lengths;
    while (lengths.size() < literals + distances) {
      std::size_t const s = symbol(c);
      if (s < 16) {
        lengths.push_back(static_cast<std::uint8_t>(s));
        continue;
      }
      if (s == 16 && lengths.empty()) refuse_("a repeated code length without one to repeat");
      std::uint8_t const repeated = s == 16 ? lengths.back() : std::uint8_t{0};
      std::size_t const times = s == 16 ? 3 + bits(2) : s == 17 ? 3 + bits(3) : 11 + bits(7);
      lengths.insert(lengths.end(), times, repeated);
    }
    if (lengths.size() != literals + distances) refuse_("code lengths that go beyond their number");
    if (lengths[256] == 0) refuse_("a block without an end");
    auto const split = lengths.begin() + static_cast<std::ptrdiff_t>(literals);
    compressed({lengths.begin(), split}, {split, lengths.end()});
  }

  void compressed(std::vector<std::uint8_t> const& literals, std::vector<std::uint8_t> const& distances) {
    constexpr std::array<std::uint16_t, 29> base{3,  4,  5,  6,  7,  8,  9,  10, 11,  13,  15,  17,  19,  23, 27,
                                                 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258};
    constexpr std::array<std::uint8_t, 29> more{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2,
                                                2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
    code const literal = code_of(literals), distance = code_of(distances);
    for (;;) {
      std::size_t const s = symbol(literal);
      if (s == 256) return;
      if (s < 256) {
        put(static_cast<std::byte>(s));
        continue;
      }
      if (s - 257 >= base.size()) refuse_("a length that does not exist");
      std::size_t const length = base[s - 257] + bits(more[s - 257]), d = symbol(distance);
      if (d >= 30) refuse_("a distance that does not exist");
      int const extra = d < 2 ? 0 : static_cast<int>(d / 2) - 1;
      std::size_t const back = 1 + (d < 2 ? d : ((2 + d % 2) << extra) + bits(extra));
      if (back > out_.size()) refuse_("a distance to before the data");
      for (std::size_t i = 0; i < length; ++i) put(out_[out_.size() - back]);
    }
  }

  std::span<std::byte const> in_;
  Refuse const& refuse_;
  std::size_t at_ = 0, size_ = 0;
  std::uint32_t hold_ = 0;
  int held_ = 0;
  std::vector<std::byte> out_;
};

}  // namespace mixbit::detail
