#include "mixbit/formats/storage.hpp"

#include <doctest/doctest.h>

#include "mixbit/formats/check.hpp"
#include "mixbit/reference/scalar.hpp"
#include "support/format_data.hpp"

using namespace mixbit;
using namespace test_data;

namespace {

std::vector<packing> layouts_of(element_type const& e) {
  std::vector<packing> all{packing::bytes, packing::dense_rows};
  if (e.bits == 4) all.push_back(packing::nibbles_row_pairs);
  bool const integer = e.kind == element_kind::integer && !e.is_unsigned;
  if (e.bits == 4 && (integer || e == nf4_element)) all.push_back(packing::nibbles_high_first);
  return all;
}

std::vector<element_type> const stored_elements = [] {
  auto all = all_elements;
  all.push_back(nf4_element);
  return all;
}();

/// The number of bytes that encode writes: a byte was written where it differs from at least one of two backgrounds.
std::int64_t bytes_written(encode_args a, std::size_t room, std::size_t scale_room, std::int64_t& scale_bytes) {
  auto const last = [](std::vector<std::uint8_t> const& x, std::vector<std::uint8_t> const& y) {
    std::int64_t n = static_cast<std::int64_t>(x.size());
    while (n > 0 && x[static_cast<std::size_t>(n - 1)] == 0x00 && y[static_cast<std::size_t>(n - 1)] == 0xff) --n;
    return n;
  };
  std::vector<std::uint8_t> codes[2], scales[2];
  for (int pass = 0; pass < 2; ++pass) {
    codes[pass].assign(room, pass ? 0xff : 0x00);
    scales[pass].assign(scale_room, pass ? 0xff : 0x00);
    a.codes = codes[pass].data();
    a.scales = scales[pass].data();
    reference::scalar{}.encode(a);
  }
  scale_bytes = last(scales[0], scales[1]);
  return last(codes[0], codes[1]);
}

}  // namespace

TEST_CASE("storage size is what encode writes, in awkward shapes, for every element, layout and scale type") {
  for (auto const& shape : awkward_shapes) {
    tensor<float> x{make_geometry<float>(shape, layout::row_major)};
    fill(x, 1, false);
    for (auto const& part : partitions_of(x.g))
      for (auto const& element : stored_elements)
        for (packing const how_packed : layouts_of(element))
          for (dtype const scale_type : {dtype::f32, dtype::f16, dtype::bf16}) {
            format const how{element, policy::stored, scale_type, how_packed};
            check_encodable(how, "test");
            auto const size = storage_size_of(how, x.g, part.groups);
            auto const amax = amax_of(x, part.groups);
            std::int64_t scale_bytes = 0;
            std::int64_t const payload = bytes_written(
                {x.view(), part.groups, amax.data(), how, nullptr, nullptr, nullptr},
                static_cast<std::size_t>(size.payload) + 16, static_cast<std::size_t>(size.scales) + 16, scale_bytes);
            bool const equal = payload == size.payload && (scale_bytes == size.scales || x.g.size() == 0);
            if (!equal)
              FAIL_CHECK(to_string(x.g), " ", part.name, " ", name_of(element), ": ", payload, " and ", scale_bytes,
                         " bytes, not ", size.payload, " and ", size.scales);
          }
  }
}

TEST_CASE("storage size of block formats is what encode writes, in awkward shapes, ragged blocks too") {
  float const tensor_amax = 3.0f;
  for (auto const& shape : awkward_shapes) {
    tensor<float> x{make_geometry<float>(shape, layout::row_major)};
    fill(x, 1, false);
    for (auto const& part : partitions_of(x.g))
      for (format const& how : test_data::block_formats()) {
        CAPTURE(name_of(how));
        CAPTURE(part.name);
        CAPTURE(to_string(x.g));
        auto const size = storage_size_of(how, x.g, part.groups);
        auto const amax = amax_of(x, part.groups);
        float tensor_scale = -1;
        std::int64_t scale_bytes = 0;
        encode_args const args{x.view(), part.groups, amax.data(),  how,          nullptr,
                               nullptr,  nullptr,     &tensor_amax, &tensor_scale};
        std::int64_t const payload = bytes_written(args, static_cast<std::size_t>(size.payload) + 16,
                                                   static_cast<std::size_t>(size.scales) + 16, scale_bytes);
        CHECK(payload == size.payload);
        CHECK(size.tensor == (is_two_level(how.scaling) ? 4 : 0));
        if (x.g.size() == 0) continue;  // nothing is written
        CHECK(scale_bytes == size.scales);
        CHECK((size.tensor == 4) == (tensor_scale != -1));
      }
  }
}

TEST_CASE("storage size of double quantization is what its codes, scales and mean take, in awkward shapes") {
  for (auto const& shape : awkward_shapes) {
    tensor<float> x{make_geometry<float>(shape, layout::row_major)};
    fill(x, 1);
    for (auto const& part : partitions_of(x.g))
      for (policy const p : {policy::stored, policy::modelopt_pack})
        for (dtype const scale_type : {dtype::f32, dtype::f16, dtype::bf16})
          for (std::int32_t const scale_block : {1, 3, 64}) {
            format const how{nf4_element, p, scale_type, packing::nibbles_high_first, scale_rule::ratio, scale_block};
            check_encodable(how, "test");
            auto const size = storage_size_of(how, x.g, part.groups);
            auto const amax = amax_of(x, part.groups);
            auto const scales = quantize_scales(amax, how, dtype::f32);
            auto const as_they_are = storage_size_of({nf4_element, p, scale_type, how.layout}, x.g, part.groups);
            CHECK(size.payload == as_they_are.payload);
            CHECK(size.scales == static_cast<std::int64_t>(scales.codes.size() +
                                                           scales.block_scales.size() * size_of(scale_type)));
            CHECK(size.tensor == static_cast<std::int64_t>(size_of(scale_type)));
          }
  }
}

TEST_CASE("known sizes") {
  geometry const g = dense_geometry(dtype::f32, {64, 128});
  std::vector<axis_block> const blocks{{-1, 128}};
  format how{integer_element(4), policy::stored, dtype::f16, packing::nibbles_row_pairs};
  CHECK(storage_size_of(how, g, blocks_of(g, blocks)).bits() * 1000 == 4125 * g.size());  // 4.125 bits an element
  how.scale_type = dtype::f32;
  CHECK(storage_size_of(how, g, blocks_of(g, blocks)).bits() * 1000 == 4250 * g.size());
  CHECK(storage_size_of({e4m3_element}, g, per_tensor(g)) == storage_size{64 * 128, 4});
  CHECK(storage_size_of({integer_element(3), policy::stored, dtype::f32, packing::dense_rows},
                        dense_geometry(dtype::f32, {2, 5}), per_tensor(dense_geometry(dtype::f32, {2, 5})))
            .payload == 4);  // 15 bits a row are 2 bytes
  // QLoRA: 4 bits, a byte for 64 of them, four bytes for 256 of those, and the mean
  std::vector<axis_block> const of_64{{-1, 64}};
  geometry const large = dense_geometry(dtype::f32, {256, 1024});
  format nf4{nf4_element, policy::stored, dtype::f32, packing::nibbles_high_first};
  nf4.scale_block = 256;
  CHECK(storage_size_of(nf4, large, blocks_of(large, of_64)) == storage_size{131072, 4096 + 16 * 4, 4});
}

TEST_CASE("the shape of an amax is ModelOpt's") {
  auto const shape_of = [](geometry const& g, std::vector<axis_block> const& blocks) {
    auto const shape = amax_shape_of(g, blocks_of(g, blocks), blocks);
    return std::vector<std::int64_t>(shape.sizes().begin(), shape.sizes().end());
  };
  using list = std::vector<std::int64_t>;
  geometry const matrix = dense_geometry(dtype::f32, {24, 96}), act = dense_geometry(dtype::f32, {2, 9, 64});
  int const kept[] = {0, 1};
  auto const axes = amax_shape_of(act, per_axes(act, kept));
  CHECK(list(axes.sizes().begin(), axes.sizes().end()) == list{2, 9, 1});
  CHECK(amax_shape_of(act, per_tensor(act)).rank == 0);
  CHECK(shape_of(matrix, {{-1, 16}}) == list{144, 1});
  CHECK(shape_of(matrix, {{-1, 128}}) == list{24, 1});
  CHECK(shape_of(act, {{-1, 64}}) == list{18, 1});
  CHECK(shape_of(act, {{-1, std::nullopt}}) == list{2, 9, 1});
  CHECK(shape_of(matrix, {{-1, 16}, {-2, 4}}) == list{6, 1, 6, 1});
  CHECK(shape_of(act, {{-1, 16}, {-2, 8}}) == list{2, 2, 1, 4, 1});
}

TEST_CASE("block formats: a byte a block, and once a tensor what two levels hold") {
  geometry const g = dense_geometry(dtype::f32, {3, 40});
  std::vector<axis_block> const sixteen{{-1, 16}}, thirty_two{{-1, 32}};
  format const nvfp4{e2m1_element, policy::stored, dtype::f8_e4m3, packing::dense_rows, scale_rule::two_level};
  CHECK(storage_size_of(nvfp4, g, blocks_of(g, sixteen)) == storage_size{3 * 20, 3 * 3, 4});
  format const mxfp6{e3m2_element, policy::stored, dtype::f8_e8m0, packing::dense_rows, scale_rule::mx_nv};
  CHECK(storage_size_of(mxfp6, g, blocks_of(g, thirty_two)) == storage_size{3 * 30, 3 * 2, 0});
  geometry const whole = dense_geometry(dtype::f32, {64, 1024});
  auto const bits = [&](format const& how, std::vector<axis_block> const& b) {
    return static_cast<double>(storage_size_of(how, whole, blocks_of(whole, b)).bits()) / (64.0 * 1024.0);
  };
  CHECK(bits(nvfp4, sixteen) == 4.5 + 32.0 / (64.0 * 1024.0));
  format const mxfp4{e2m1_element, policy::stored, dtype::f8_e8m0, packing::dense_rows, scale_rule::mx_nv};
  CHECK(bits(mxfp4, thirty_two) == 4.25);
}
