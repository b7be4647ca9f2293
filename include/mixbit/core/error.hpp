// mixbit::error: the one exception type of the library.
//
// Contract: every public entry checks its arguments once, before it changes anything, and throws `error` with a
// stable id and one line that names the layer, the field and the value. Ids never change their meaning; new ones
// are added. Programs print what() and exit with status 2.
#pragma once

#include <array>
#include <charconv>
#include <concepts>
#include <cstddef>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace mixbit {

/// What went wrong, as a number that a program can switch on.
enum class error_id : int {
  // 1xx: the configuration
  config_value = 101,          ///< a field has a value that is out of range or of the wrong type
  config_unknown_field = 102,  ///< a field, method or preset name that does not exist
  config_conflict = 103,       ///< fields that exclude each other, or an entry without content
  config_no_match = 104,       ///< a user's rule, pattern or name that matches nothing
  config_json = 105,           ///< text that is not JSON, or JSON of the wrong shape
  // 2xx: tensors and formats
  tensor_shape = 201,   ///< rank, sizes or strides that do not fit
  tensor_dtype = 202,   ///< an element type that the operation does not take
  tensor_layout = 203,  ///< axes said by the host contradict the data, or the probe failed
  tensor_alias = 204,   ///< a result that aliases borrowed scratch memory
  format_value = 211,   ///< bits, block size or axis that the format cannot take
  format_amax = 212,    ///< an amax that is negative, NaN or infinite
  format_unsigned = 213,///< a negative value met an unsigned format
  // 3xx: the state of a model
  state_not_calibrated = 301,  ///< a static quantizer is used before it saw data
  state_folded = 302,          ///< fold_weight was called, so weights can no longer be exported or trained
  state_missing = 303,         ///< slots without a site, a model without quantizers, a pass not started, no such name
  state_busy = 304,            ///< one workspace used by two threads, or a result that would depend on their order
  state_duplicate = 305,       ///< two things with one name
  state_nested = 306,          ///< a call inside a pass that does not allow it
  // 4xx: the search
  search_infeasible = 401,  ///< no choice satisfies the budget
  search_input = 402,       ///< groups, candidates or scores that cannot be searched
  search_no_data = 403,     ///< a loop that ran no step although one is needed
  search_plan = 404,        ///< a plan that does not fit the model
  // 5xx: files
  file_open = 501,     ///< cannot be opened, read or written
  file_format = 502,   ///< content that breaks the file format's rules
  file_content = 503,  ///< well formed, but not what the caller needs (missing tensor, other shape)
  // 6xx: memory and devices
  memory_exhausted = 601,  ///< the arena's limit does not hold the request
  device_failure = 602,    ///< a device call failed, or a data-dependent check on the device did
  arithmetic_mode = 603,   ///< floating-point arithmetic is not IEEE 754's: fast math, flush-to-zero, a rounding mode
  // 7xx: programs
  usage = 701,  ///< command-line arguments that are unknown or contradict each other
};

namespace detail {

/// How many bytes of UTF-8 at the front a terminal takes for a command or a new line, or by which it turns text around:
/// control characters, U+0080 to U+009F, U+2028 to U+202E, U+2066 to U+2069. 0: it shows what is there.
constexpr std::size_t unprintable_at(std::string_view text) {
  auto const byte = [text](std::size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0; };
  if (byte(0) < 0x20 || byte(0) == 0x7f) return 1;
  if (byte(0) == 0xc2 && byte(1) >= 0x80 && byte(1) < 0xa0) return 2;
  if (byte(0) != 0xe2) return 0;
  bool const separates_or_turns = byte(1) == 0x80 && byte(2) >= 0xa8 && byte(2) <= 0xae;
  bool const isolates = byte(1) == 0x81 && byte(2) >= 0xa6 && byte(2) <= 0xa9;
  return separates_or_turns || isolates ? 3 : 0;
}

/// What is unprintable becomes \xNN.
inline std::string on_one_line(std::string_view text) {
  constexpr char digits[] = "0123456789abcdef";
  std::string result;
  while (!text.empty()) {
    std::size_t const odd = unprintable_at(text), taken = odd == 0 ? 1 : odd;
    if (odd == 0) result += text.front();
    for (char const c : text.substr(0, odd)) {
      auto const code = static_cast<unsigned char>(c);
      result += {'\\', 'x', digits[code >> 4], digits[code & 15]};
    }
    text.remove_prefix(taken);
  }
  return result;
}

}  // namespace detail

/// The one exception type. what() is "[mixbit.ID] message". The message is one line whatever the values in it are: they
/// come from files that may be hostile.
class error : public std::runtime_error {
 public:
  error(error_id id, std::string const& message)
      : std::runtime_error("[mixbit." + std::to_string(static_cast<int>(id)) + "] " + detail::on_one_line(message)),
        id_{id} {}
  error_id id() const noexcept { return id_; }
  /// The message without the bracketed id.
  std::string_view message() const noexcept {
    std::string_view const all{what()};
    return all.substr(all.find(']') + 2);
  }

 private:
  error_id id_;
};

namespace detail {

/// One piece of a message, of whatever type. Erased, because messages are hundreds and each has a list of types of its
/// own: streaming them in a template cost a tenth of a program's compile time. Holds on to texts that it is given.
class text_part {
 public:
  text_part(std::string_view text) : text_{text} {}       // NOLINT: implicit, as all of these
  text_part(std::string const& text) : text_{text} {}     // NOLINT
  text_part(char const* text) : text_{text} {}            // NOLINT
  text_part(char c) : digits_{c}, length_{1} {}           // NOLINT
  text_part(bool b) : text_part{b ? '1' : '0'} {}         // NOLINT
  text_part(std::integral auto n) {                       // NOLINT
    if constexpr (std::is_signed_v<decltype(n)>)
      write(static_cast<long long>(n));
    else
      write(static_cast<unsigned long long>(n));
  }
  text_part(std::floating_point auto x) { write(static_cast<double>(x), std::chars_format::general, 6); }  // NOLINT

  std::string_view view() const { return length_ != 0 ? std::string_view{digits_, length_} : text_; }

 private:
  /// Numbers look the same whatever locale the host has set: labels are keys.
  template <class... How>
  void write(How... how) {
    length_ = static_cast<std::size_t>(std::to_chars(digits_, digits_ + sizeof digits_, how...).ptr - digits_);
  }

  std::string_view text_;
  char digits_[24] = {};  // the longest are 20 for an integer and 13 for six digits with an exponent
  std::size_t length_ = 0;
};

inline std::string joined(std::initializer_list<text_part> parts) {
  std::string all;
  for (text_part const& p : parts) all += p.view();
  return all;
}

[[noreturn]] inline void fail_with(error_id id, std::initializer_list<text_part> parts) {
  throw error{id, joined(parts)};
}

/// The parts, texts and numbers, as one text.
template <class... Parts>
std::string concat(Parts const&... parts) {
  return joined({text_part{parts}...});
}

}  // namespace detail

/// Throws `error{id, parts...}`; parts are texts and numbers.
template <class... Parts>
[[noreturn]] void fail(error_id id, Parts const&... parts) {
  detail::fail_with(id, {detail::text_part{parts}...});
}

namespace detail {
/// f(); what it throws gets the name before it. For functions that see axes and numbers, and know of no layer.
template <class F>
decltype(auto) named(std::string_view name, F&& f) {
  try {
    return f();
  } catch (error const& e) {
    fail(e.id(), name, ": ", e.message());
  }
}
}  // namespace detail

}  // namespace mixbit
