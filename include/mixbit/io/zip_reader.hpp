// The members of a ZIP file, as far as npz needs it: stored and deflated members, zip64, one disk (PKWARE's APPNOTE
// 6.3, sections 4.3 to 4.5).
//
// Contract: the directory at the file's end is checked whole before a member is used: its records, that members lie
// within the file and apart from one another, that their names differ. What a member holds is checked when it is read:
// its length and its CRC-32. Violations throw `file_format` with one line that names the file and the member.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "mixbit/core/error.hpp"
#include "mixbit/core/quoted.hpp"
#include "mixbit/io/crc32.hpp"
#include "mixbit/io/inflate.hpp"

namespace mixbit::detail {

struct zip_member {
  std::string name;
  std::uint16_t method = 0;  ///< 0: stored, 8: deflated
  std::uint32_t crc = 0;
  std::uint64_t packed = 0, size = 0;  ///< bytes in the file, and of the content
  std::uint64_t header = 0, data = 0;  ///< where its local header and its data start
};

/// Records of a ZIP file begin with "PK" and two bytes that say which they are.
enum class zip_record : std::uint32_t {
  local = 0x04034b50, central = 0x02014b50, end = 0x06054b50, end64 = 0x06064b50, locator64 = 0x07064b50
};
inline constexpr std::uint64_t zip_local_size = 30, zip_central_size = 46, zip_end_size = 22, zip_end64_size = 56,
                               zip_locator64_size = 20;
inline constexpr std::uint32_t zip_in_extra = 0xffffffffu;   ///< a 32-bit field whose value is in the zip64 extra
inline constexpr std::uint16_t zip64_extra = 1;

class zip_reader {
 public:
  zip_reader() = default;

  /// The caller keeps the bytes; `label` stands for the file in messages.
  zip_reader(std::span<std::byte const> file, std::string label) : file_{file}, label_{std::move(label)} {
    directory const found = find_directory();
    std::uint64_t at = found.start;
    if (found.count > found.size / zip_central_size) refuse("its directory is too short for ", found.count, " members");
    for (std::uint64_t i = 0; i < found.count; ++i) read_member(at, found.start + found.size);
    if (at != found.start + found.size) refuse("its directory has bytes that belong to no member");
    check_members(found.start);
  }

  std::vector<zip_member> const& members() const { return members_; }

  /// The bytes of a stored member, in place, once its CRC-32 is checked.
  std::span<std::byte const> stored(zip_member const& m) const {
    auto const bytes = file_.subspan(m.data, m.packed);
    check(m, bytes);
    return bytes;
  }

  std::vector<std::byte> inflated(zip_member const& m) const {
    auto const why = [&](std::string_view reason) { refuse_member(m, reason); };
    auto bytes = inflater{file_.subspan(m.data, m.packed), why}.inflate(m.size);
    check(m, bytes);
    return bytes;
  }

 private:
  struct directory {
    std::uint64_t start = 0, size = 0, count = 0;
  };

  template <class... Parts>
  [[noreturn]] void refuse(Parts const&... parts) const {
    fail(error_id::file_format, label_, ": ", parts...);
  }
  template <class... Parts>
  [[noreturn]] void refuse_member(zip_member const& m, Parts const&... parts) const {
    refuse("member ", in_quotes(m.name), ": ", parts...);
  }

  void check(zip_member const& m, std::span<std::byte const> bytes) const {
    crc32 sum;
    sum.write(bytes);
    if (sum.value() != m.crc) refuse_member(m, "its content does not have the CRC-32 that the file says");
  }

  /// A little-endian number, as this machine's are; the caller has checked that it is there.
  template <class T>
  T number(std::uint64_t at) const {
    T value;
    std::memcpy(&value, file_.data() + at, sizeof value);
    return value;
  }
  bool is(zip_record what, std::uint64_t at) const {
    return number<std::uint32_t>(at) == static_cast<std::uint32_t>(what);
  }
  bool within(std::uint64_t start, std::uint64_t size, std::uint64_t end) const {
    return start <= end && size <= end - start;
  }

  /// The last record; behind it there is but a comment, whose length it says.
  std::uint64_t find_end() const {
    std::uint64_t const size = file_.size();
    for (std::uint64_t comment = 0; comment <= 0xffff && zip_end_size + comment <= size; ++comment) {
      std::uint64_t const at = size - zip_end_size - comment;
      if (is(zip_record::end, at) && number<std::uint16_t>(at + 20) == comment) return at;
    }
    refuse("not a zip file, or one that is cut off: it does not end with a directory");
  }

  directory find_directory() const {
    std::uint64_t const end = find_end();
    directory d{number<std::uint32_t>(end + 16), number<std::uint32_t>(end + 12), number<std::uint16_t>(end + 10)};
    std::uint64_t limit = end;
    if (number<std::uint32_t>(end + 4) != 0) refuse("a zip file of several disks");  // both of its disk numbers
    if (end >= zip_locator64_size && is(zip_record::locator64, end - zip_locator64_size)) {
      limit = end - zip_locator64_size;
      auto const at = number<std::uint64_t>(limit + 8);
      if (!within(at, zip_end64_size, limit) || !is(zip_record::end64, at)) refuse("its zip64 directory is not there");
      d = {number<std::uint64_t>(at + 48), number<std::uint64_t>(at + 40), number<std::uint64_t>(at + 32)};
      limit = at;
    }
    if (!within(d.start, d.size, limit)) refuse("its directory does not lie within the file");
    return d;
  }

  /// The central record at `at`, which is moved behind it.
  void read_member(std::uint64_t& at, std::uint64_t end) {
    if (!within(at, zip_central_size, end) || !is(zip_record::central, at))
      refuse("its directory breaks off after ", members_.size(), " members");
    auto const half = [&](std::uint64_t field) { return number<std::uint16_t>(at + field); };
    auto const word = [&](std::uint64_t field) { return number<std::uint32_t>(at + field); };
    std::uint64_t const name = half(28), extra = half(30), comment = half(32);
    if (!within(at + zip_central_size, name + extra + comment, end))
      refuse("its directory breaks off after ", members_.size(), " members");
    zip_member m;
    m.name.assign(reinterpret_cast<char const*>(file_.data()) + at + zip_central_size, name);
    m.method = half(10);
    m.crc = word(16);
    m.packed = word(20);
    m.size = word(24);
    m.header = word(42);
    if ((half(8) & 1u) != 0) refuse_member(m, "it is encrypted");
    if (m.method != 0 && m.method != 8)
      refuse_member(m, "compression method ", m.method, " is not read; stored and deflated members are");
    read_extra(m, at + zip_central_size + name, extra);
    if (m.method == 0 && m.packed != m.size) refuse_member(m, "stored, but its two sizes differ");
    at += zip_central_size + name + extra + comment;
    members_.push_back(std::move(m));
  }

  /// zip64: the fields that did not fit 32 bits, in this order.
  void read_extra(zip_member& m, std::uint64_t at, std::uint64_t size) const {
    std::uint64_t const end = at + size;
    while (within(at, 4, end)) {
      auto const id = number<std::uint16_t>(at);
      std::uint64_t const length = number<std::uint16_t>(at + 2);
      if (!within(at + 4, length, end)) refuse_member(m, "an extra field goes beyond its record");
      std::uint64_t field = at + 4;
      for (auto* const value : {&m.size, &m.packed, &m.header}) {
        if (id != zip64_extra || *value != zip_in_extra) continue;
        if (!within(field, 8, at + 4 + length)) refuse_member(m, "its zip64 sizes are missing");
        *value = number<std::uint64_t>(field);
        field += 8;
      }
      at += 4 + length;
    }
  }

  /// Sets where the data are, and sees that each member has a place of its own.
  void check_members(std::uint64_t end) {
    std::vector<zip_member*> order;
    std::unordered_set<std::string_view> names;
    for (auto& m : members_) {
      if (!names.insert(m.name).second) refuse_member(m, "appears twice");
      order.push_back(&m);
    }
    std::sort(order.begin(), order.end(), [](auto const* a, auto const* b) { return a->header < b->header; });
    std::uint64_t free = 0;
    for (auto* const m : order) {
      if (!within(m->header, zip_local_size, end) || !is(zip_record::local, m->header))
        refuse_member(*m, "it is not where the directory says");
      if (m->header < free) refuse_member(*m, "it overlaps another member");
      m->data = m->header + zip_local_size + number<std::uint16_t>(m->header + 26) +
                number<std::uint16_t>(m->header + 28);
      if (!within(m->data, m->packed, end)) refuse_member(*m, "its data go beyond the members' part of the file");
      free = m->data + m->packed;
    }
  }

  std::span<std::byte const> file_;
  std::string label_;
  std::vector<zip_member> members_;
};

}  // namespace mixbit::detail
