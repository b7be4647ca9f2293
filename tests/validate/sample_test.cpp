// How a sample reads the tensors it is given: any strides, on the host or in a backend's memory.
#include "mixbit/validate/sample.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "mixbit/reference/scalar.hpp"
#include "support/error_text.hpp"

using namespace mixbit;

namespace {

/// The elements of t as gather reads them, t lying in memory that says of itself that it is at `where`.
std::vector<float> gathered(const_tensor_ref t, device where) {
  reference::scalar cpu;
  t.where = where;
  auto const bytes = validate::detail::gather(cpu, t);
  return validate::detail::as_floats(bytes, t.type);
}

}  // namespace

TEST_CASE("sample: a tensor of any strides, negative ones too, is read in row-major order") {
  // just as much memory as the view spans, so that a read beyond it is one beyond an allocation
  std::vector<float> memory(12);
  std::iota(memory.begin(), memory.end(), 0.0f);
  for (bool const up : {false, true})
    for (bool const left : {false, true})
      for (bool const transposed : {false, true}) {
        geometry g = dense_geometry(dtype::f32, transposed ? std::initializer_list<std::int64_t>{4, 3}
                                                           : std::initializer_list<std::int64_t>{3, 4});
        int const rows = transposed ? 1 : 0, columns = 1 - rows;
        g.stride[rows] = up ? -4 : 4;
        g.stride[columns] = left ? -1 : 1;
        float const* const first = memory.data() + (up ? 8 : 0) + (left ? 3 : 0);
        std::vector<float> expected;
        for (std::int64_t i = 0; i < g.shape[0]; ++i)
          for (std::int64_t k = 0; k < g.shape[1]; ++k) expected.push_back(first[i * g.stride[0] + k * g.stride[1]]);
        for (device const where : {device::cpu, device::cuda}) CHECK(gathered({g, first}, where) == expected);
      }
}

TEST_CASE("sample: one value for all of an axis is read as often as it is seen") {
  float const memory[] = {1, 2, 3};
  geometry g = dense_geometry(dtype::f32, {2, 3});
  g.stride[0] = 0;
  for (device const where : {device::cpu, device::cuda})
    CHECK(gathered({g, memory}, where) == std::vector<float>{1, 2, 3, 1, 2, 3});
}

TEST_CASE("sample: a code of more than 16 bits is refused instead of cut down to one that may be right") {
  auto const read = [](auto const& codes, dtype type) {
    return validate::detail::as_codes(std::as_bytes(std::span{codes}), type, "w");
  };
  std::vector<std::int64_t> const right{3, -8, 65535}, wide{3, (std::int64_t{1} << 32) + 2};
  CHECK(read(right, dtype::i64) == std::vector<int>{3, -8, 65535});
  for (dtype const type : {dtype::i64, dtype::u64})
    CHECK(test::says(test::error_text(error_id::format_value, [&] { read(wide, type); }), "w: codes[1]", "4294967298"));
  std::vector<std::int32_t> const negative{-1};
  CHECK(read(negative, dtype::i32) == std::vector<int>{-1});
  CHECK(test::says(test::error_text(error_id::format_value, [&] { read(negative, dtype::u32); }), "w: codes[0]",
                   "4294967295"));
}
