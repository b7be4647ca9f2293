#include "mixbit/core/backend.hpp"

#include <doctest/doctest.h>

#include <stdexcept>

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
