#include "mixbit/core/thread_mark.hpp"

#include <doctest/doctest.h>

#include <thread>

TEST_CASE("this_thread: one mark a thread, of two that live at one time two") {
  auto const mine = mixbit::detail::this_thread();
  CHECK(mine != nullptr);
  CHECK(mixbit::detail::this_thread() == mine);
  mixbit::detail::thread_mark first = nullptr, second = nullptr;
  std::thread{[&] {
    first = mixbit::detail::this_thread();
    second = mixbit::detail::this_thread();
  }}.join();
  CHECK(first != nullptr);
  CHECK(first == second);
  CHECK(first != mine);
}
