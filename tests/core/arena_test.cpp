#include "mixbit/core/arena.hpp"

#include <doctest/doctest.h>

#include <cstring>

#include "support/error_text.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

constexpr std::size_t block = std::size_t{1} << 16;  // the smallest block an arena asks for

struct source_counts {
  int allocated = 0, released = 0;
};
source_counts counted;

memory_source counting_source() {
  return {[](std::size_t n) {
            ++counted.allocated;
            return ::operator new(n, std::align_val_t{64});
          },
          [](void* p) {
            ++counted.released;
            ::operator delete(p, std::align_val_t{64});
          }};
}

bool aligned(void const* p) { return reinterpret_cast<std::uintptr_t>(p) % 64 == 0; }

}  // namespace

TEST_CASE("arena: memory is aligned to 64 bytes, apart, and counted") {
  arena a;
  std::byte* before = nullptr;
  std::size_t expected = 0;
  for (std::size_t bytes : {1u, 63u, 64u, 65u, 1000u, 70000u}) {
    auto* const p = static_cast<std::byte*>(a.allocate(bytes));
    CHECK(aligned(p));
    CHECK(p != before);
    std::memset(p, 1, bytes);
    before = p;
    expected += (bytes + 63) / 64 * 64;
    CHECK(a.used() == expected);
  }
  CHECK(a.peak() == expected);
  CHECK(a.capacity() >= expected);
  CHECK(a.allocate(0) != nullptr);
  CHECK(a.used() == expected);
}

TEST_CASE("arena: scopes nest and give back; peak remembers; a second pass asks for nothing") {
  counted = {};
  {
    arena a{0, counting_source()};
    for (int pass = 0; pass < 3; ++pass) {
      arena_scope const outer{a};
      void* const first = a.allocate(100);
      {
        arena_scope const inner{a};
        void* const big = a.allocate(3 * block);
        CHECK(a.owns(big));
        CHECK(a.used() == 128 + 3 * block);
      }
      CHECK(a.used() == 128);
      void* const again = a.allocate(64);
      CHECK(static_cast<std::byte*>(again) == static_cast<std::byte*>(first) + 128);
      if (pass > 0) CHECK(counted.allocated == 2);
    }
    CHECK(a.used() == 0);
    CHECK(a.peak() == 128 + 3 * block);
    CHECK(counted.released == 0);
  }
  CHECK(counted.released == counted.allocated);
}

TEST_CASE("arena: an exception ends its scopes") {
  arena a;
  try {
    arena_scope const scope{a};
    a.allocate(100);
    throw 1;
  } catch (int) {
  }
  CHECK(a.used() == 0);
  CHECK(a.peak() == 128);
}

TEST_CASE("arena: owns tells scratch memory from a host's") {
  arena a;
  CHECK_FALSE(a.owns(nullptr));
  auto* const p = static_cast<std::byte*>(a.allocate(block));
  auto* const q = static_cast<std::byte*>(a.allocate(2 * block));
  CHECK(a.owns(p));
  CHECK(a.owns(p + block - 1));
  CHECK(a.owns(q + 5));
  float local = 0;
  CHECK_FALSE(a.owns(&local));
}

TEST_CASE("arena: beyond the limit it refuses, and nothing is changed") {
  arena a{2 * block};
  CHECK(a.limit() == 2 * block);
  a.allocate(64);
  for (int i = 0; i < 2; ++i) {
    auto const text = error_text(error_id::memory_exhausted, [&] { a.allocate(2 * block); });
    CHECK(says(text, std::to_string(2 * block), std::to_string(block)));
    CHECK(a.used() == 64);
    CHECK(a.capacity() == block);
  }
  a.allocate(block - 64);  // the first block still has room
  CHECK(a.capacity() == block);
  a.allocate(block);  // up to the limit, to the byte
  CHECK(a.capacity() == 2 * block);
  CHECK(says(error_text(error_id::memory_exhausted, [&] { a.allocate(1); }), "limit"));
}

TEST_CASE("arena: what lies idle does not count against the limit") {
  counted = {};
  arena a{4 * block, counting_source()};
  {
    arena_scope const scope{a};
    a.allocate(block);
    a.allocate(2 * block);
  }
  arena_scope const scope{a};
  void* const p = a.allocate(4 * block);
  CHECK(a.owns(p));
  CHECK(a.capacity() == 4 * block);
  CHECK(counted.released == 2);
}

TEST_CASE("arena: reserve allocates ahead") {
  counted = {};
  arena a{0, counting_source()};
  a.reserve(5 * block + 1);
  CHECK(counted.allocated == 1);
  a.allocate(5 * block + 1);
  CHECK(counted.allocated == 1);
  a.reserve(0);
  CHECK(counted.allocated == 1);
}
