#include "mixbit/core/order.hpp"

#include <doctest/doctest.h>

#include <memory>
#include <string>

TEST_CASE("stable_order: indices by what they stand for, equal ones as they were") {
  std::vector<int> const of{3, 1, 2, 1, 3, 1};
  auto const rising = [&](std::size_t a, std::size_t b) { return of[a] < of[b]; };
  CHECK(mixbit::detail::stable_order(of.size(), rising) == std::vector<std::size_t>{1, 3, 5, 2, 0, 4});
  auto const falling = [&](std::size_t a, std::size_t b) { return of[a] > of[b]; };
  CHECK(mixbit::detail::stable_order(of.size(), falling) == std::vector<std::size_t>{0, 4, 2, 1, 3, 5});
  auto const never = [](std::size_t, std::size_t) { return false; };
  CHECK(mixbit::detail::stable_order(0, never).empty());
  auto const many = mixbit::detail::stable_order(1000, never);  // longer than what a sort inserts in place
  for (std::size_t i = 0; i < many.size(); ++i) CHECK(many[i] == i);
}

TEST_CASE("sort_stably: elements that can only be moved") {
  std::vector<std::unique_ptr<std::string>> all;
  for (char const* text : {"b1", "a1", "b2", "a2"}) all.push_back(std::make_unique<std::string>(text));
  mixbit::detail::sort_stably(all, [](auto const& a, auto const& b) { return (*a)[0] < (*b)[0]; });
  std::string order;
  for (auto const& text : all) order += *text;
  CHECK(order == "a1a2b1b2");
}
