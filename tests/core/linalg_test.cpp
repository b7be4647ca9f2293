#include "mixbit/core/linalg.hpp"

#include <doctest/doctest.h>

#include "mixbit/core/thread_pool.hpp"
#include "support/error_text.hpp"
#include "support/plain_linalg.hpp"

using namespace mixbit;

static_assert(linalg<test::plain_linalg>);
static_assert(linalg<any_linalg>);
static_assert(!linalg<int>);

TEST_CASE("matrix_ref: elements, rows and blocks of a matrix with a row stride") {
  float values[12] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
  matrix_ref<float> const m{values, 3, 3, 4};
  CHECK(m(2, 1) == 9);
  CHECK(m.row(1)[2] == 6);
  auto const b = m.block(1, 1, 2, 2);
  CHECK(b.rows == 2);
  CHECK(b(0, 0) == 5);
  CHECK(b(1, 1) == 10);
  matrix_ref<float const> const read = b;
  CHECK(read(1, 0) == 9);
}

TEST_CASE("any_linalg: an implementation of a host's own behind one type") {
  thread_pool pool{2};
  any_linalg const l = test::plain_linalg{pool};
  CHECK(static_cast<bool>(l));
  CHECK(l.threads().concurrency() == 2);
  float const x[] = {1, 2, 3, 4};
  float h[] = {0, 0, 0, 0}, c[] = {1, 1, 1, 1};
  l.accumulate_gram(1, dense_matrix(x, 2, 2), dense_matrix(h, 2, 2));
  CHECK(h[0] == 10);
  CHECK(h[1] == 14);
  CHECK(h[2] == 0);
  CHECK(h[3] == 20);
  l.multiply_add(2, dense_matrix(x, 2, 2), dense_matrix(x, 2, 2), factor::transposed, dense_matrix(c, 2, 2));
  CHECK(c[1] == 1 + 2 * 11);
  CHECK(l.upper_factor(dense_matrix(h, 2, 2)));
  CHECK(h[0] == doctest::Approx(std::sqrt(4 / 20.0)));  // the determinant is 4
  double const a[] = {3, 0, 0, 1};
  CHECK(std::abs(l.low_rank(dense_matrix(a, 2, 2), 1).left[0]) == doctest::Approx(3));
}

TEST_CASE("any_linalg: where there is none, an algorithm says what to set") {
  any_linalg const none;
  CHECK_FALSE(static_cast<bool>(none));
  CHECK_NOTHROW(require_linalg(test::plain_linalg{}, "gptq"));
  std::string const said = test::error_text(error_id::state_missing, [&] { require_linalg(none, "gptq"); });
  CHECK(test::says(said, "gptq", "model_options::linalg"));
}
