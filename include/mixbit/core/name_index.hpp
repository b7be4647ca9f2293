// Where things stand, by their names. Each type of std::map is long to compile; a source file compiles this one for all
// that it looks up: what has a name stands in a list, and this finds its place there.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <string>
#include <string_view>

namespace mixbit::detail {

class name_index {
 public:
  static constexpr std::size_t none = static_cast<std::size_t>(-1);

  /// The name's place: `place` where the name is new, otherwise the one that it has.
  std::size_t add(std::string_view name, std::size_t place) {
    return places_.emplace(name, place).first->second;
  }
  /// `none` for a name that was not added.
  std::size_t find(std::string_view name) const {
    auto const at = places_.find(name);
    return at == places_.end() ? none : at->second;
  }

  bool contains(std::string_view name) const { return find(name) != none; }

 private:
  std::map<std::string, std::size_t, std::less<>> places_;
};

}  // namespace mixbit::detail
