// Which thread calls, for those who only ask whether two calls come from one. Not std::thread::id: <thread> would cost
// every source file more to compile than all that asks here.
#pragma once

#include <cerrno>

namespace mixbit::detail {

/// Differs between threads that live at one time; null is none of them. As an id, it may come again when its thread has
/// ended.
using thread_mark = void const*;

/// errno is the one thing of a thread's own that all shared objects of a program see at one address; a thread_local
/// variable here would be another in each that hides its symbols.
inline thread_mark this_thread() { return &errno; }

}  // namespace mixbit::detail
