// Kernels with one mistake each, written out as somebody would write them, and the report that names the mistake.
#include "validate/planted.hpp"

using namespace planted;

TEST_CASE("validate: a kernel without a mistake conforms") {
  auto const r = v::check_fake_quantize(cpu, int8_kernel([](float q) { return std::nearbyint(q); }), int8, rows);
  CHECK(r.conformant());
  CHECK(r.elements > 10000);
  CHECK(r.values->differing == 0);
  CHECK(!r.first);
  CHECK(v::to_text(r).find("CONFORMS: matches in every element") != std::string::npos);
}

TEST_CASE("validate: wrong roundings are named") {
  auto const check = [](auto round) { return v::check_fake_quantize(cpu, int8_kernel(round), int8, rows); };
  CHECK(names(check([](float q) { return std::round(q); }), "half away from zero"));
  CHECK(names(check([](float q) { return std::copysign(std::floor(std::fabs(q) + 0.5f), q); }),
              "truncation after adding a half, which rounds itself"));
  CHECK(names(check([](float q) { return std::trunc(q); }), "truncation toward zero"));
  CHECK(names(check([](float q) { return std::floor(q); }), "rounding down"));
  CHECK(names(check([](float q) { return static_cast<float>(std::floor(static_cast<double>(q) + 0.5)); }), "half up"));
}

TEST_CASE("validate: half away from zero is seen at ties alone") {
  auto const r = v::check_fake_quantize(cpu, int8_kernel([](float q) { return std::round(q); }), int8, rows);
  auto const& c = r.confined;
  CHECK(std::find(c.begin(), c.end(), "are ties between two values, or next to one") != c.end());
}

TEST_CASE("validate: the usual other arithmetics of a scale are named") {
  auto const check = [](auto f) { return v::check_fake_quantize(cpu, elementwise(f), int8, rows); };
  auto const q = [](float scaled) { return std::clamp(std::nearbyint(scaled), -128.0f, 127.0f); };
  auto const none = [](float x, float amax) { return amax == 0.0f || x == 0.0f || std::isnan(x); };
  CHECK(names(check([=](float x, float amax, int) {
                float const s = amax / 127.0f, inverse = 1.0f / s;
                return none(x, amax) ? 0.0f : q(fp::mul(x, inverse)) * s + 0.0f;
              }),
              "x * (1/s), a reciprocal instead of a division"));
  CHECK(names(check([=](float x, float amax, int) {
                float const s = fp::mul(amax, 1.0f / 127.0f);
                return none(x, amax) || s == 0 ? 0.0f : q(x / s) * s + 0.0f;
              }),
              "s = amax * (1/bound), a reciprocal of the bound"));
  CHECK(names(check([=](float x, float amax, int) {
                float const k = 127.0f / amax;
                return none(x, amax) ? 0.0f : q(fp::mul(x, k)) * (amax / 127.0f) + 0.0f;
              }),
              "x * (bound/amax) and q * (amax/bound)"));
}

TEST_CASE("validate: another policy is named") {
  for (policy p : {policy::modelopt, policy::modelopt_pack}) {
    auto const theirs = [p](fake_quantize_args a) {
      a.how.numerics = p;
      cpu.fake_quantize(a);
    };
    format how = int4;
    how.layout = packing::bytes;
    CHECK(names(v::check_fake_quantize(cpu, theirs, how, blocks(32)), "policy " + std::string{name_of(p)}));
  }
}

TEST_CASE("validate: a symmetric range is named") {
  format narrow = int8;
  narrow.element.narrow_range = true;
  auto const even = [](float q) { return std::nearbyint(q); };
  // amax from the outside, so that the lowest code is met
  std::vector<float> const x{-1.0f, -1.1f, 1.0f, 0.5f, 0.25f}, amax{1.0f};
  std::vector<float> y(5);
  auto const view = dense_view(x.data(), {5});
  int8_kernel(even, -127.0f)({view, dense_view(y.data(), {5}), per_tensor(view), amax.data(), int8});
  auto const found = dense_view(static_cast<float const*>(y.data()), {5});
  CHECK(names(v::compare_fake_quantize(cpu, view, found, int8, per_tensor(view), amax),
              "narrow range (codes from -bound)"));
  int8_kernel(even)({view, dense_view(y.data(), {5}), per_tensor(view), amax.data(), int8});
  CHECK(names(v::compare_fake_quantize(cpu, view, found, narrow, per_tensor(view), amax),
              "full range (codes from -bound-1)"));
}

TEST_CASE("validate: another block size is named") {
  auto const theirs = [](std::int64_t size) {
    return [size](fake_quantize_args a) {
      auto const g = blocks(size)(a.x);
      std::vector<float> x(a.x.as<float>(), a.x.as<float>() + a.x.size());
      auto const amax = v::amax_of(x, v::group_numbers(a.x, g), g.group_count(), false);
      a.groups = g;
      a.amax = amax.data();
      cpu.fake_quantize(a);
    };
  };
  format how = int4;
  CHECK(names(v::check_fake_quantize(cpu, theirs(17), how, blocks(16)), "blocks of 17"));
  CHECK(names(v::check_fake_quantize(cpu, theirs(31), how, blocks(32)), "blocks of 31"));
  CHECK(names(v::check_fake_quantize(cpu, theirs(128), how, blocks(32)), "blocks of 128"));
}

TEST_CASE("validate: the scale of another group is named") {
  auto const moved = [](auto place) {
    return [place](fake_quantize_args a) {
      std::vector<float> amax(static_cast<std::size_t>(a.groups.group_count()));
      for (std::size_t g = 0; g < amax.size(); ++g) amax[g] = a.amax[place(g, a.groups)];
      a.amax = amax.data();
      cpu.fake_quantize(a);
    };
  };
  auto const previous = [](std::size_t g, partition const&) { return g == 0 ? 0 : g - 1; };
  auto const first = [](std::size_t, partition const&) { return std::size_t{0}; };
  auto const transposed = [](std::size_t g, partition const& p) {
    auto const r = static_cast<std::size_t>(p.groups[0]), c = static_cast<std::size_t>(p.groups[1]);
    return g % c * r + g / c;  // scales that lie [columns, rows] in memory
  };
  CHECK(names(v::check_fake_quantize(cpu, moved(previous), int4, blocks(16)), "the scale of the previous group"));
  CHECK(names(v::check_fake_quantize(cpu, moved(first), int4, blocks(16)), "the first group's scale for all groups"));
  CHECK(names(v::check_fake_quantize(cpu, moved(transposed), int4, blocks(16)), "scales read transposed"));
}

TEST_CASE("validate: scales rounded to float16 or bfloat16 are named") {
  for (dtype t : {dtype::f16, dtype::bf16}) {
    auto const theirs = [t](fake_quantize_args a) {
      a.how.scale_type = t;
      cpu.fake_quantize(a);
    };
    // groups with amax of 0x1p-130 overflow nothing, but become zero
    CHECK(names(v::check_fake_quantize(cpu, theirs, int8, rows), "scales rounded to " + std::string{name_of(t)}));
  }
}

TEST_CASE("validate: what becomes of NaN is told apart") {
  auto const with = [](float for_nan) {
    return elementwise([for_nan](float x, float amax, int) {
      float const s = amax / 127.0f;
      if (std::isnan(x) && std::isnan(for_nan)) return x;
      float const q = std::isnan(x) ? for_nan : s == 0.0f ? 0.0f : std::clamp(std::nearbyint(x / s), -128.0f, 127.0f);
      return q * s + 0.0f;
    });
  };
  auto const kept = v::check_fake_quantize(cpu, with(NAN), int8, rows);
  CHECK(names(kept, "NaN kept"));
  CHECK(kept.values->nan_made > 0);
  CHECK(kept.values->nan_made == kept.values->differing);
  CHECK(names(v::check_fake_quantize(cpu, with(-128.0f), int8, rows), "NaN becomes the smallest value"));
  CHECK(names(v::check_fake_quantize(cpu, with(127.0f), int8, rows), "NaN becomes the largest value"));
  auto const lost = v::check_fake_quantize(
      cpu,
      [](fake_quantize_args const& a) {
        cpu.fake_quantize(a);
        for (std::int64_t i = 0; i < a.x.size(); ++i)
          if (std::isnan(a.x.as<float>()[i])) a.y.as<float>()[i] = 0.0f;
      },
      fp8, rows);
  CHECK(names(lost, "NaN becomes zero"));
  CHECK(lost.values->nan_lost == lost.values->differing);
}

TEST_CASE("validate: signs of zeros are told apart") {
  auto const kept = int8_kernel([](float q) { return std::nearbyint(q); });
  auto const signs = [&](fake_quantize_args const& a) {
    kept(a);
    for (std::int64_t i = 0; i < a.x.size(); ++i)
      if (a.y.as<float>()[i] == 0.0f && std::signbit(a.x.as<float>()[i])) a.y.as<float>()[i] = -0.0f;
  };
  auto const r = v::check_fake_quantize(cpu, signs, int8, rows);
  CHECK(names(r, "zeros with the sign of x"));
  CHECK(r.values->zero_signs == r.values->differing);
  auto const unsigned_codes = [](encode_args const& a) {
    cpu.encode(a);
    for (std::int64_t i = 0; i < a.x.size(); ++i) a.codes[i] = a.codes[i] == 0x80 ? 0 : a.codes[i];
  };
  auto const codes = v::check_encode(cpu, unsigned_codes, fp8, rows);
  CHECK(names(codes, "zeros without a sign"));
  CHECK(codes.codes->steps.at(0) == codes.codes->differing);
}

TEST_CASE("validate: the other scale rule of MX is named") {
  for (scale_rule claimed : {scale_rule::mx_nv, scale_rule::mx_ocp}) {
    format how = mxfp4;
    how.scaling = claimed;
    scale_rule const other = claimed == scale_rule::mx_nv ? scale_rule::mx_ocp : scale_rule::mx_nv;
    auto const theirs = [other](auto a) {
      a.how.scaling = other;
      if constexpr (requires { a.y; }) cpu.fake_quantize(a);
      else cpu.encode(a);
    };
    std::string const name = "scale rule " + std::string{name_of(other)};
    CHECK(names(v::check_fake_quantize(cpu, [&](fake_quantize_args const& a) { theirs(a); }, how, blocks(32)), name));
    CHECK(names(v::check_encode(cpu, [&](encode_args const& a) { theirs(a); }, how, blocks(32)), name));
  }
}

TEST_CASE("validate: flushed subnormals are named") {
  auto const flush = [](float x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; };
  auto const inputs = [&](fake_quantize_args a) {
    std::vector<float> x(a.x.as<float>(), a.x.as<float>() + a.x.size());
    for (float& e : x) e = flush(e);
    a.x.data = x.data();
    cpu.fake_quantize(a);
  };
  auto const results = [&](fake_quantize_args const& a) {
    cpu.fake_quantize(a);
    for (std::int64_t i = 0; i < a.x.size(); ++i) a.y.as<float>()[i] = flush(a.y.as<float>()[i]);
  };
  CHECK(names(v::check_fake_quantize(cpu, inputs, mxfp4, blocks(32)), "subnormal inputs flushed to zero"));
  CHECK(names(v::check_fake_quantize(cpu, results, mxfp4, blocks(32)), "subnormal results flushed to zero"));
}

TEST_CASE("validate: a tail that is left out is named") {
  auto const copied = [](fake_quantize_args const& a) {
    std::vector<float> const before(a.x.as<float>(), a.x.as<float>() + a.x.size());
    cpu.fake_quantize(a);
    std::int64_t const width = a.x.shape[1], done = width / 32 * 32;
    for (std::int64_t i = 0; i < a.x.size(); ++i)
      if (i % width >= done && width > 32) a.y.as<float>()[i] = before[static_cast<std::size_t>(i)];
  };
  auto const r = v::check_fake_quantize(cpu, copied, mxfp4, blocks(32));
  CHECK(names(r, "ragged last blocks left as they are"));
  CHECK(std::find(r.confined.begin(), r.confined.end(), "lie in ragged last blocks") != r.confined.end());
}

TEST_CASE("validate: nibble orders are named, when encoding and when decoding") {
  auto const swap = [](std::uint8_t b) { return static_cast<std::uint8_t>(b << 4 | b >> 4); };
  auto const encoding = [&](encode_args const& a) {
    cpu.encode(a);
    auto const bytes = storage_size_of(a.how, a.x, a.groups).payload;
    for (std::int64_t i = 0; i < bytes; ++i) a.codes[i] = swap(a.codes[i]);
  };
  CHECK(names(v::check_encode(cpu, encoding, nvfp4, blocks(16)), "nibbles high first in rows"));
  auto const decoding = [&](decode_args a) {
    std::vector<std::uint8_t> codes(a.codes, a.codes + storage_size_of(a.how, a.y, a.groups).payload);
    for (auto& b : codes) b = swap(b);
    a.codes = codes.data();
    cpu.decode(a);
  };
  CHECK(names(v::check_decode(cpu, decoding, nvfp4, blocks(16)), "nibbles high first in rows"));
  format pairs = int4;
  pairs.layout = packing::nibbles_row_pairs;
  CHECK(names(v::check_encode(cpu, encoding, pairs, rows), "rows in pairs, the even row in the high nibble"));
}

TEST_CASE("validate: an offset of the codes is named") {
  auto const theirs = [](encode_args const& a) {
    cpu.encode(a);
    auto const bytes = storage_size_of(a.how, a.x, a.groups).payload;
    for (std::int64_t i = 0; i < bytes; ++i) a.codes[i] = static_cast<std::uint8_t>(a.codes[i] ^ 0x80);
  };
  CHECK(names(v::check_encode(cpu, theirs, int8, rows), "one byte a code, codes with an offset of 128"));
}

TEST_CASE("validate: ModelOpt's packing with nibbles high first is recognised") {
  format claimed = int4;
  format theirs{integer_element(4), policy::modelopt_pack, dtype::f32, packing::nibbles_high_first};
  std::vector<float> x(8 * 32);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = std::sin(static_cast<float>(i) * 1.7f) * 3.0f;
  auto const view = dense_view(static_cast<float const*>(x.data()), {8, 32});
  auto const groups = blocks(32)(view);
  auto const amax = v::amax_of(x, v::group_numbers(view, groups), 8, false);
  std::vector<std::uint8_t> codes(128);
  std::vector<float> scales(8);
  cpu.encode({view, groups, amax.data(), theirs, codes.data(), scales.data()});
  auto const r = v::compare_codes(cpu, view, dense_view(static_cast<std::uint8_t const*>(codes.data()), {8, 16}),
                                  dense_view(static_cast<float const*>(scales.data()), {8}), std::nullopt, claimed,
                                  groups);
  CHECK(names(r, "policy modelopt_pack; nibbles high first over the flat tensor, codes with an offset of 8"));
}

TEST_CASE("validate: arrays of scales of another kind are named") {
  auto const encoded = [](auto change) {
    return [change](encode_args const& a) {
      cpu.encode(a);
      for (std::int64_t g = 0; g < a.groups.group_count(); ++g) change(a, static_cast<float*>(a.scales)[g], g);
    };
  };
  CHECK(names(v::check_encode(cpu, encoded([](auto&, float& s, auto) { s = 1.0f / s; }), int8, rows),
              "reciprocals of the scales"));
  CHECK(names(v::check_encode(cpu, encoded([](auto& a, float& s, auto g) { s = a.amax[g]; }), int8, rows),
              "amax in place of scales"));
  auto const transposed = [](encode_args const& a) {
    std::vector<float> scales(static_cast<std::size_t>(a.groups.group_count()));
    encode_args b = a;
    b.scales = scales.data();
    cpu.encode(b);
    std::int64_t const r = a.groups.groups[0], c = a.groups.groups[1];
    for (std::int64_t i = 0; i < r; ++i)
      for (std::int64_t j = 0; j < c; ++j)
        static_cast<float*>(a.scales)[j * r + i] = scales[static_cast<std::size_t>(i * c + j)];
  };
  CHECK(names(v::check_encode(cpu, transposed, int4, blocks(16)), "scales stored transposed"));
}

TEST_CASE("validate: a decoder that divides by its scales is named") {
  auto const theirs = [](decode_args a) {
    std::vector<float> scales(static_cast<std::size_t>(a.groups.group_count()));
    for (std::size_t g = 0; g < scales.size(); ++g) scales[g] = 1.0f / static_cast<float const*>(a.scales)[g];
    a.scales = scales.data();
    cpu.decode(a);
  };
  CHECK(names(v::check_decode(cpu, theirs, int8, rows), "reciprocals of the scales"));
}

TEST_CASE("validate: an NVFP4 kernel without the tensor's scale is named") {
  auto const theirs = [](fake_quantize_args a) {
    float const one = 6.0f * 448.0f;
    a.tensor_amax = &one;
    cpu.fake_quantize(a);
  };
  CHECK(names(v::check_fake_quantize(cpu, theirs, nvfp4, blocks(16)), "no tensor scale"));
}

TEST_CASE("validate: two mistakes at once are named") {
  auto const theirs = elementwise([](float x, float amax, int) {
    float const s = amax / 127.0f;
    if (s == 0.0f || std::isnan(x)) return std::isnan(x) ? x : 0.0f;
    return std::clamp(std::round(x / s), -128.0f, 127.0f) * s + 0.0f;
  });
  CHECK(names(v::check_fake_quantize(cpu, theirs, int8, rows), "half away from zero; NaN kept"));
}

TEST_CASE("validate: stochastic rounding is recognised as such") {
  unsigned state = 1;
  auto const theirs = int8_kernel([&state](float q) {
    state = state * 1664525u + 1013904223u;
    return std::floor(q) == q || state >> 31 ? std::floor(q) : std::ceil(q);
  });
  auto const r = v::check_fake_quantize(cpu, theirs, int8, whole);
  CHECK(!r.conformant());
  CHECK(!r.explained());
  CHECK(r.stochastic);
  auto const noise = elementwise([](float x, float, int) { return x * 0.5f; });
  CHECK(!v::check_fake_quantize(cpu, noise, int8, whole).stochastic);
}
