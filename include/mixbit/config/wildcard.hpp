// Wildcards over layer and quantizer names, and the `pattern` that every rule of a config takes: a wildcard or a
// callable. The language is that of Python's fnmatch.fnmatchcase:
//   *       any run, also empty        ?       any one character
//   [abc]   one of these, a-z ranges   [!abc]  none of these
// A `]` right after `[` or `[!` is a member, a `[` that is never closed is itself. A character is a byte.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "mixbit/core/error.hpp"

namespace mixbit {

namespace detail {

/// The position of the `]` that closes the class opened at `open`, or npos.
constexpr std::size_t class_end(std::string_view wildcard, std::size_t open) {
  std::size_t i = open + 1;
  if (i < wildcard.size() && wildcard[i] == '!') ++i;
  if (i < wildcard.size() && wildcard[i] == ']') ++i;
  return wildcard.find(']', i);
}

/// Is `c` in the class written between the brackets, with its leading `!` if any? An upside-down range is empty.
constexpr bool in_class(std::string_view members, char c) {
  bool const negated = !members.empty() && members[0] == '!';
  if (negated) members.remove_prefix(1);
  auto const code = [](char x) { return static_cast<unsigned char>(x); };
  bool found = false;
  for (std::size_t i = 0; i < members.size();) {
    bool const range = i + 2 < members.size() && members[i + 1] == '-';
    char const high = range ? members[i + 2] : members[i];
    found = found || (code(members[i]) <= code(c) && code(c) <= code(high));
    i += range ? 3 : 1;
  }
  return found != negated;
}

/// Does the one-character element of `wildcard` at `at` take `c`? `next` becomes the position after the element.
constexpr bool takes(std::string_view wildcard, std::size_t at, char c, std::size_t& next) {
  next = at + 1;
  if (wildcard[at] == '?') return true;
  if (wildcard[at] == '[') {
    if (std::size_t const end = class_end(wildcard, at); end != std::string_view::npos) {
      next = end + 1;
      return in_class(wildcard.substr(at + 1, end - at - 1), c);
    }
  }
  return wildcard[at] == c;
}

}  // namespace detail

/// Does the whole of `text` match `wildcard`? Time is at most the product of the two lengths: on a mismatch only the
/// last star is tried again, which is enough, since an earlier star gains nothing by taking more.
constexpr bool wildcard_match(std::string_view wildcard, std::string_view text) {
  constexpr std::size_t none = std::string_view::npos;
  std::size_t w = 0, t = 0, star = none, star_text = 0;
  while (t < text.size()) {
    std::size_t next = 0;
    if (w < wildcard.size() && wildcard[w] == '*') {
      star = w++;
      star_text = t;
    } else if (w < wildcard.size() && detail::takes(wildcard, w, text[t], next)) {
      w = next;
      ++t;
    } else if (star != none) {
      w = star + 1;
      t = ++star_text;
    } else {
      return false;
    }
  }
  while (w < wildcard.size() && wildcard[w] == '*') ++w;
  return w == wildcard.size();
}

/// The wildcard that matches this text and no other: *, ? and [ are written as classes of one member.
inline std::string exact_wildcard(std::string_view text) {
  std::string wildcard;
  for (char const c : text) {
    bool const special = c == '*' || c == '?' || c == '[';
    wildcard += special ? std::string{'[', c, ']'} : std::string{c};
  }
  return wildcard;
}

/// Selects names: a wildcard, or a callable `bool(std::string_view)` wherever a wildcard may stand.
class pattern {
 public:
  pattern(std::string wildcard) : text_{std::move(wildcard)} {}            // NOLINT: "*weight_quantizer"
  pattern(std::string_view wildcard) : text_{wildcard} {}                  // NOLINT
  pattern(char const* wildcard) : text_{wildcard} {}                       // NOLINT
  template <class F>
    requires(std::is_invocable_r_v<bool, F const&, std::string_view>)
  pattern(F selects) : pattern{std::move(selects), "<callable>"} {}        // NOLINT: a lambda
  /// A callable with the label that messages and plans show for it.
  pattern(std::function<bool(std::string_view)> selects, std::string label)
      : text_{std::move(label)}, selects_{std::move(selects)} {
    if (!selects_) fail(error_id::config_value, "pattern \"", text_, "\": the callable is empty");
  }

  bool matches(std::string_view name) const { return selects_ ? selects_(name) : wildcard_match(text_, name); }
  bool is_wildcard() const { return !selects_; }
  /// The wildcard, or the callable's label.
  std::string const& label() const { return text_; }
  /// Two callables are never equal: what they select is unknown.
  friend bool operator==(pattern const& a, pattern const& b) {
    return a.is_wildcard() && b.is_wildcard() && a.text_ == b.text_;
  }

 private:
  std::string text_;
  std::function<bool(std::string_view)> selects_;
};

}  // namespace mixbit
