#include "mixbit/core/backend.hpp"

#include <doctest/doctest.h>

#include <stdexcept>
#include <vector>

#include "mixbit/reference/scalar.hpp"

using namespace mixbit;

namespace {

int held = 0;  // allocations that were not released

/// A backend whose device fails.
struct failing_backend : reference::scalar {
  static memory_source memory() {
    return {[](std::size_t n) {
              ++held;
              return ::operator new(n);
            },
            [](void* p) {
              --held;
              ::operator delete(p);
            }};
  }
  void zero(void*, std::size_t) { throw std::runtime_error{"device"}; }
};
static_assert(backend<failing_backend>);

}  // namespace

TEST_CASE("buffer: memory is given back where it cannot be zeroed") {
  failing_backend device;
  CHECK_THROWS_WITH((buffer<failing_backend, float>{device, 100}), "device");
  CHECK(held == 0);
}

TEST_CASE("buffer: is zeroed, moves, and may be empty") {
  reference::scalar device;
  buffer<reference::scalar, float> a{device, 3};
  REQUIRE(a.size() == 3);
  CHECK((a.data()[0] == 0.0f && a.data()[1] == 0.0f && a.data()[2] == 0.0f));
  float const* const memory = a.data();
  buffer<reference::scalar, float> const b = std::move(a);
  CHECK(b.data() == memory);
  CHECK(buffer<reference::scalar, float>{device, 0}.empty());
}

TEST_CASE("buffer_of: holds the values given, all of them, and none for none") {
  reference::scalar device;
  std::vector<float> const values{1.5f, -2.0f, 3.0f};
  auto const all = buffer_of(device, values);
  REQUIRE(all.size() == 3);
  CHECK(std::vector<float>(all.data(), all.data() + all.size()) == values);
  auto const one = buffer_of(device, 0.25f);
  REQUIRE(one.size() == 1);
  CHECK(*one.data() == 0.25f);
  CHECK(buffer_of(device, std::vector<float>{}).empty());
}
