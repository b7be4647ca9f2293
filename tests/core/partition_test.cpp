#include "mixbit/core/partition.hpp"

#include <doctest/doctest.h>

#include "support/error_text.hpp"

using namespace mixbit;
using mixbit::test::error_text;
using mixbit::test::says;

TEST_CASE("partition: axes that a tensor does not have, and blocks of no size, are refused with axis, value and rank") {
  geometry const g = dense_geometry(dtype::f32, {6, 10});
  auto const axes = [&](std::vector<int> const& kept) {
    return error_text(error_id::format_value, [&] { (void)per_axes(g, kept); });
  };
  auto const blocks = [&](std::vector<axis_block> const& of) {
    return error_text(error_id::format_value, [&] { (void)blocks_of(g, of); });
  };
  CHECK(says(axes({2}), "axis 2", "rank 2"));
  CHECK(says(axes({0, -3}), "axis -3", "rank 2"));
  CHECK(says(axes({0, -2}), "axis -2", "given twice", "rank 2"));
  CHECK(says(blocks({{2, 4}}), "axis 2", "rank 2"));
  CHECK(says(blocks({{-3, 4}}), "axis -3", "rank 2"));
  CHECK(says(blocks({{-1, 0}}), "block size 0", "axis -1"));
  CHECK(says(blocks({{0, -5}}), "block size -5", "axis 0"));
  CHECK(says(blocks({{-1, 4}, {1, 4}}), "axis 1", "given twice", "rank 2"));
  CHECK(says(error_text(error_id::format_value,
                        [&] {
                          int const none[] = {0};
                          (void)per_axes(dense_geometry(dtype::f32, {}), none);
                        }),
             "axis 0", "rank 0"));
}

TEST_CASE("partition: a block longer than its axis is the axis; one of an empty axis has blocks of 1 and no group") {
  std::vector<axis_block> const long_block{{-1, 64}};
  partition const whole = blocks_of(dense_geometry(dtype::f32, {3, 10}), long_block);
  CHECK(whole.block[1] == 10);
  CHECK(whole.group_count() == 3);
  partition const none = blocks_of(dense_geometry(dtype::f32, {3, 0}), long_block);
  CHECK(none.block[1] == 1);
  CHECK(none.group_count() == 0);
}
