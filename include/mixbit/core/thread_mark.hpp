// Which thread calls, for those who only ask whether two calls come from one. Not std::thread::id: <thread> would cost
// every source file more to compile than all that asks here.
#pragma once

namespace mixbit::detail {

/// Differs between threads that live at one time; null is none of them. As an id, it may come again when its thread has
/// ended.
using thread_mark = char const*;

inline thread_mark this_thread() {
  static thread_local char here{};
  return &here;
}

}  // namespace mixbit::detail
