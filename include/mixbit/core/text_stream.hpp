// Text that grows by <<, as a std::ostringstream of the classic locale would write it. Reports are written with it
// rather than with that: what sets a stream's locale is one of the standard library's dearest headers to compile.
#pragma once

#include <string>
#include <utility>

#include "mixbit/core/error.hpp"

namespace mixbit::detail {

class text_stream {
 public:
  text_stream& operator<<(text_part const& part) {
    text_ += part.view();
    return *this;
  }
  /// What was written. Takes it away.
  std::string take() { return std::move(text_); }

 private:
  std::string text_;
};

}  // namespace mixbit::detail
