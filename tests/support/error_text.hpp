// What a failing call says, for checks of the id and the message at once.
#pragma once

#include <string>

#include "mixbit/core/error.hpp"

namespace mixbit::test {

/// The message of the mixbit::error that `call` throws, or a text that says what happened instead. `id` must match.
template <class Call>
std::string error_text(error_id id, Call&& call) {
  try {
    call();
  } catch (error const& e) {
    return e.id() == id ? e.what() : std::string{"(wrong id) "} + e.what();
  }
  return "(no error)";
}

/// Whether `text` holds every one of `parts` and is one line.
template <class... Parts>
bool says(std::string const& text, Parts const&... parts) {
  return text.find('\n') == std::string::npos && text.rfind("[mixbit.", 0) == 0 &&
         (... && (text.find(parts) != std::string::npos));
}

}  // namespace mixbit::test
