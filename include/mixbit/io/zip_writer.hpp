// Writing ZIP files of stored members (PKWARE's APPNOTE 6.3): what npz needs.
//
// Contract: the data of each member start at a multiple of 64 bytes of the file, so that a reader can use them in
// place; the gap is an extra field of the local header with an id that readers skip. Every date is 1980-01-01, as in
// NumPy's files, so the same content gives the same bytes. Sizes and offsets of 4 GiB and more, and directories of
// 65535 members and more, are written as zip64. The file appears whole or not at all (atomic_file).
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <limits>
#include <span>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "mixbit/io/atomic_file.hpp"
#include "mixbit/io/zip_reader.hpp"

namespace mixbit::detail {

/// Little-endian numbers of a record, one behind the other.
class zip_bytes {
 public:
  template <std::unsigned_integral T>
  zip_bytes& put(T value) {
    char bytes[sizeof value];
    std::memcpy(bytes, &value, sizeof value);
    text_.append(bytes, sizeof value);
    return *this;
  }
  zip_bytes& put(zip_record what) { return put(static_cast<std::uint32_t>(what)); }
  zip_bytes& put(std::string const& text) {
    text_ += text;
    return *this;
  }
  std::string const& text() const { return text_; }

 private:
  std::string text_;
};

/// Does a number have to be written as zip64's? The largest of 32 bits says so itself.
constexpr bool needs_zip64(std::uint64_t value) { return value >= zip_in_extra; }
constexpr std::uint32_t in_32_bits(std::uint64_t value) {
  return needs_zip64(value) ? zip_in_extra : static_cast<std::uint32_t>(value);
}

/// Both sizes, or neither: a local header's zip64 field has the two.
inline std::string zip64_sizes(zip_member const& m) {
  if (!needs_zip64(m.size)) return {};
  return zip_bytes{}.put(zip64_extra).put(std::uint16_t{16}).put(m.size).put(m.packed).text();
}

/// What local and central records share: version needed, flags, method, date, CRC and sizes. Names are UTF-8.
inline void put_zip_common(zip_bytes& out, zip_member const& m) {
  constexpr std::uint16_t zip64_version = 45, utf8_names = 0x800, january_1980 = 0x21;
  out.put(zip64_version).put(utf8_names).put(std::uint16_t{0}).put(std::uint16_t{0}).put(january_1980);
  out.put(m.crc).put(in_32_bits(m.packed)).put(in_32_bits(m.size)).put(static_cast<std::uint16_t>(m.name.size()));
}

inline std::string zip_local(zip_member const& m) {
  constexpr std::uint16_t gap_id = 0xd935;  // what Android's zipalign pads with
  std::string extra = zip64_sizes(m);
  std::uint64_t const before = m.header + zip_local_size + m.name.size() + extra.size() + 4;
  auto const gap = static_cast<std::uint16_t>((64 - before % 64) % 64);
  extra += zip_bytes{}.put(gap_id).put(gap).put(std::string(gap, '\0')).text();
  zip_bytes out;
  out.put(zip_record::local);
  put_zip_common(out, m);
  return out.put(static_cast<std::uint16_t>(extra.size())).put(m.name).put(extra).text();
}

inline std::string zip_central(zip_member const& m) {
  zip_bytes fields;
  if (needs_zip64(m.size)) fields.put(m.size).put(m.packed);
  if (needs_zip64(m.header)) fields.put(m.header);
  auto const length = static_cast<std::uint16_t>(fields.text().size());
  std::string const extra = length == 0 ? "" : zip_bytes{}.put(zip64_extra).put(length).put(fields.text()).text();
  constexpr std::uint16_t made_by_unix = 0x32d;  // version 4.5
  zip_bytes out;
  out.put(zip_record::central).put(made_by_unix);
  put_zip_common(out, m);
  out.put(static_cast<std::uint16_t>(extra.size())).put(std::uint16_t{0}).put(std::uint16_t{0}).put(std::uint16_t{0});
  out.put(std::uint32_t{0600u << 16}).put(in_32_bits(m.header));  // the file's mode: NumPy's
  return out.put(m.name).put(extra).text();
}

/// The end of a directory of `count` members that starts at `start`.
inline std::string zip_end(std::uint64_t count, std::uint64_t start, std::uint64_t size) {
  constexpr std::uint16_t many = 0xffff;
  zip_bytes out;
  if (count >= many || needs_zip64(start) || needs_zip64(size)) {
    out.put(zip_record::end64).put(zip_end64_size - 12).put(std::uint16_t{45}).put(std::uint16_t{45});
    out.put(std::uint32_t{0}).put(std::uint32_t{0}).put(count).put(count).put(size).put(start);
    out.put(zip_record::locator64).put(std::uint32_t{0}).put(start + size).put(std::uint32_t{1});
  }
  std::uint16_t const few = count >= many ? many : static_cast<std::uint16_t>(count);
  out.put(zip_record::end).put(std::uint32_t{0}).put(few).put(few);
  return out.put(in_32_bits(size)).put(in_32_bits(start)).put(std::uint16_t{0}).text();
}

class zip_writer {
 public:
  explicit zip_writer(std::filesystem::path const& path) : file_{path} {}

  /// Appends a member of what content(out) writes to out; it is called twice, since a header has the CRC-32 of what
  /// follows it. Throws `file_content` for a name that is empty, too long or taken.
  template <class Content>
  void add(std::string const& name, Content const& content) {
    if (name.empty() || name.size() > std::numeric_limits<std::uint16_t>::max() - 128u)
      refuse("a member's name has 1 to 65407 bytes, not ", name.size());
    if (!names_.insert(name).second) refuse("member ", in_quotes(name), " appears twice");
    struct {
      crc32 sum;
      std::uint64_t size = 0;
      void write(std::span<std::byte const> bytes) {
        sum.write(bytes);
        size += bytes.size();
      }
    } counted;
    content(counted);
    zip_member m{name, 0, counted.sum.value(), counted.size, counted.size, at_, 0};
    put(zip_local(m));
    content(file_);
    at_ += m.size;
    members_.push_back(std::move(m));
  }

  void commit() {
    std::uint64_t const start = at_;
    for (auto const& m : members_) put(zip_central(m));
    put(zip_end(members_.size(), start, at_ - start));
    file_.commit();
  }

 private:
  template <class... Parts>
  [[noreturn]] void refuse(Parts const&... parts) const {
    fail(error_id::file_content, "cannot write ", in_quotes(file_.path()), ": ", parts...);
  }
  void put(std::string const& bytes) {
    file_.write(bytes);
    at_ += bytes.size();
  }

  atomic_file file_;
  std::uint64_t at_ = 0;
  std::vector<zip_member> members_;
  std::unordered_set<std::string> names_;
};

}  // namespace mixbit::detail
