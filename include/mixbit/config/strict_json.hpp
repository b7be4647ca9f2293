// Text to JSON, for configs and for the files of io/: the one parser.
//
// It is stricter than nlohmann's default: a key that appears twice in one object is refused, as are raw NUL bytes
// (nlohmann takes one for the end of the text) and nesting deeper than 64. The order of keys is kept.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "mixbit/core/error.hpp"
#include "mixbit/core/quoted.hpp"

namespace mixbit {

/// A parsed text. Looking a key up is linear in the size of its object; large objects are iterated instead.
using json_document = nlohmann::ordered_json;

namespace detail {

/// Builds a document from the parser's events. Appending to the object's vector directly, with the keys of each open
/// object in a set, keeps a header of 100 000 tensors linear; ordered_json's own insertion would be quadratic.
class strict_json_builder final : public nlohmann::json_sax<json_document> {
 public:
  strict_json_builder(std::string_view where, error_id id) : where_{where}, id_{id} {}

  json_document take() { return std::move(root_); }

  bool null() override { return put(nullptr); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(number_integer_t value) override { return put(value); }
  bool number_unsigned(number_unsigned_t value) override { return put(value); }
  bool number_float(number_float_t value, string_t const&) override { return put(value); }
  bool string(string_t& value) override { return put(std::move(value)); }
  bool binary(binary_t&) override { return false; }  // text has none
  bool start_object(std::size_t) override { return open(json_document::object()); }
  bool start_array(std::size_t) override { return open(json_document::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(string_t& name) override {
    if (!open_.back().keys.insert(name).second) refuse("the key " + in_quotes(name) + " appears twice", false);
    open_.back().key = std::move(name);
    return true;
  }

  bool parse_error(std::size_t position, std::string const&, nlohmann::json::exception const& problem) override {
    // what() is "[json.exception.NAME.N] parse error at line L, column C: REASON"; the reason is enough
    std::string_view text = problem.what();
    if (auto const end = text.find("] "); end != text.npos) text.remove_prefix(end + 2);
    if (text.starts_with("parse error")) text.remove_prefix(std::min(text.size(), text.find(": ") + 2));
    refuse("not JSON at byte " + std::to_string(position) + ": " + one_line(text, 160), true);
  }

 private:
  static constexpr std::size_t deepest = 64;

  struct level {
    json_document* value;
    std::string key;  // the one being filled, of an object
    std::unordered_set<std::string> keys;
  };

  template <class Value>
  bool put(Value&& value) {
    store(json_document(std::forward<Value>(value)));
    return true;
  }

  /// The address stays good while the value is open: its parent grows only after it is closed.
  json_document* store(json_document&& value) {
    if (open_.empty()) return &(root_ = std::move(value));
    level& parent = open_.back();
    if (parent.value->is_array()) {
      parent.value->push_back(std::move(value));
      return &parent.value->back();
    }
    auto& members = parent.value->get_ref<json_document::object_t&>();
    members.Container::emplace_back(parent.key, std::move(value));
    return &members.back().second;
  }

  bool open(json_document&& value) {
    if (open_.size() == deepest) refuse("nested deeper than " + std::to_string(deepest), true);
    open_.push_back({store(std::move(value)), {}, {}});
    return true;
  }

  bool close() {
    open_.pop_back();
    return true;
  }

  /// Names the keys that lead to the place; `inside`: including the key whose value is being read.
  [[noreturn]] void refuse(std::string const& what, bool inside) const {
    std::string place;
    for (std::size_t i = 0; i + (inside ? 0 : 1) < open_.size(); ++i)
      if (open_[i].value->is_object() && !open_[i].keys.empty())
        place += (place.empty() ? " in " : " / ") + in_quotes(open_[i].key);
    fail(id_, where_, ": ", what, place);
  }

  std::string_view where_;
  error_id id_;
  json_document root_;
  std::vector<level> open_;
};

}  // namespace detail

/// Parses one JSON value. Throws `id` with a line that starts with `where` (a file's name, say) and tells the byte and
/// the keys that lead to it.
inline json_document parse_json_strict(std::string_view text, std::string_view where, error_id id) {
  if (auto const nul = text.find('\0'); nul != text.npos) fail(id, where, ": not JSON: a NUL at byte ", nul);
  detail::strict_json_builder builder{where, id};
  nlohmann::detail::parser<json_document, decltype(nlohmann::detail::input_adapter(text.begin(), text.end()))>{
      nlohmann::detail::input_adapter(text.begin(), text.end())}
      .sax_parse(&builder);
  return builder.take();
}

}  // namespace mixbit
