// Further planted mistakes: layouts of codes, what an array of scales holds, and a decoder's use of its scales.
#include "validate/planted.hpp"

using namespace planted;

namespace {

std::vector<float> waves(std::size_t columns) {
  std::vector<float> x(8 * columns);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = std::sin(static_cast<float>(i) * 1.7f) * static_cast<float>(i % 7);
  return x;
}

/// What the codes of a kernel that lays them out in its own way are taken for, in rows of odd length, which end within
/// a byte. `swaps` the nibbles of a byte.
v::report laid_out(format const& claimed, packing layout, bool swaps = false) {
  auto const x = waves(63);
  auto const view = dense_view(x.data(), {8, 63});
  auto const groups = blocks(32)(view);
  auto const amax = v::amax_of(x, v::group_numbers(view, groups), 16, false);
  format how = claimed;
  how.layout = layout;
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(storage_size_of(how, view, groups).payload));
  std::vector<float> scales(16);
  cpu.encode({view, groups, amax.data(), how, codes.data(), scales.data()});
  for (auto& b : codes)
    if (swaps) b = static_cast<std::uint8_t>(b << 4 | b >> 4);
  auto const bytes = static_cast<std::int64_t>(codes.size());
  auto const found = dense_view(static_cast<std::uint8_t const*>(codes.data()), {bytes});
  return v::compare_codes(cpu, view, found, dense_view(static_cast<float const*>(scales.data()), {16}), std::nullopt,
                          claimed, groups);
}

/// A decoder without a mistake, but that `change(scales, arguments)` is done to its scales first.
template <class Change>
auto scaled_by(Change change) {
  return [change](decode_args a) {
    auto const* const given = static_cast<float const*>(a.scales);
    std::vector<float> scales(given, given + a.groups.group_count());
    change(scales, a);
    a.scales = scales.data();
    cpu.decode(a);
  };
}

}  // namespace

TEST_CASE("validate: scales with the tensor's scale folded in are named") {
  auto const x = waves(64);
  std::vector<float> scales(32);
  auto const view = dense_view(static_cast<float const*>(x.data()), {8, 64});
  auto const groups = blocks(16)(view);
  auto const amax = v::amax_of(x, v::group_numbers(view, groups), 32, false);
  float const top = *std::max_element(amax.begin(), amax.end());
  std::vector<std::uint8_t> codes(256), file(32);
  float tensor_scale = 0;
  cpu.encode({view, groups, amax.data(), nvfp4, codes.data(), file.data(), nullptr, &top, &tensor_scale});
  formats::minifloat_codec const e4m3{e4m3_element};
  for (std::size_t g = 0; g < file.size(); ++g) scales[g] = fp::mul(e4m3.value(file[g]), tensor_scale);
  auto const found = dense_view(static_cast<std::uint8_t const*>(codes.data()), {8, 32});
  auto const folded = dense_view(static_cast<float const*>(scales.data()), {8, 4});
  auto const r = v::compare_codes(cpu, view, found, folded, std::nullopt, nvfp4, groups);
  CHECK(names(r, "scales with the tensor's scale folded in"));
  CHECK(r.codes->differing == 0);
  CHECK(r.scales->differing > 0);
}

TEST_CASE("validate: codes in another layout are named") {
  format pairs = int4, bytes = int4, flat = int4;
  pairs.layout = packing::nibbles_row_pairs;
  bytes.layout = packing::bytes;
  flat.layout = packing::nibbles_high_first;
  CHECK(names(laid_out(pairs, packing::dense_rows), "nibbles low first in rows"));
  CHECK(names(laid_out(bytes, packing::dense_rows), "nibbles low first in rows"));
  CHECK(names(laid_out(int4, packing::bytes), "one byte a code"));
  CHECK(names(laid_out(int4, packing::nibbles_row_pairs), "rows in pairs, the even row in the low nibble"));
  CHECK(names(laid_out(int4, packing::nibbles_row_pairs, true), "rows in pairs, the even row in the high nibble"));
  std::string const flat_with_offset = "nibbles high first over the flat tensor, codes with an offset of 8";
  CHECK(names(laid_out(int4, packing::nibbles_high_first), flat_with_offset));
  CHECK(names(laid_out(flat, packing::nibbles_high_first, true),
              "nibbles low first over the flat tensor, codes with an offset of 8"));
  format nf4{nf4_element, policy::stored, dtype::f32, packing::nibbles_high_first};
  CHECK(names(laid_out(nf4, packing::dense_rows), "nibbles low first in rows"));
}

TEST_CASE("validate: a decoder that takes another group's scale, or none of the tensor's, is named") {
  auto const moved = [](auto place) {
    return scaled_by([place](std::vector<float>& scales, decode_args const& a) {
      auto const own = scales;
      for (std::size_t g = 0; g < own.size(); ++g) scales[g] = own[place(g, a.groups)];
    });
  };
  auto const check = [](auto const& theirs) { return v::check_decode(cpu, theirs, int4, blocks(16)); };
  CHECK(names(check(moved([](std::size_t g, partition const&) { return g == 0 ? 0 : g - 1; })),
              "the scale of the previous group"));
  CHECK(names(check(moved([](std::size_t g, partition const& p) {
                return std::min(g + 1, static_cast<std::size_t>(p.group_count()) - 1);
              })),
              "the scale of the next group"));
  CHECK(names(check(moved([](std::size_t, partition const&) { return std::size_t{0}; })),
              "the first group's scale for all groups"));
  auto const whole_left_out = [](decode_args a) {
    float const one = 1.0f;
    a.tensor_scale = &one;
    cpu.decode(a);
  };
  CHECK(names(v::check_decode(cpu, whole_left_out, nvfp4, blocks(16)), "no tensor scale"));
}
