// What is timed of each kernel, on any backend: an overload of `time_kernel` for every kernel of kernels.inc, so that
// none is left out, and the formats.
//
// A Bench has `data()`, the tensors (kernel_tensors.hpp), `width`, the bytes of an element, `formats()`, those that it
// times, and `report(kernel, format, bytes, f)`, which times f(backend), a call that moves `bytes` an element.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "mixbit/core/kernel_args.hpp"
#include "mixbit/formats/check.hpp"

namespace bench {

using namespace mixbit;

/// A kernel by name; one overload of `time_kernel` for each, so that none is left out.
#define MIXBIT_KERNEL(name) struct kernel_##name { static constexpr char const* text = #name; };
#include "mixbit/core/kernels.inc"
#undef MIXBIT_KERNEL

struct named_format {
  char const* name;
  format how;
  std::vector<axis_block> blocks;
  amax_use use = amax_use::given;
};

inline std::vector<named_format> const all_formats{
    {"int8", {integer_element(8), policy::stored, dtype::f32, packing::bytes}, {}},
    {"int8_channel", {integer_element(8), policy::stored, dtype::f32, packing::bytes}, {{-1, std::nullopt}}},
    {"int4_b32", {integer_element(4), policy::stored, dtype::f32, packing::nibbles_row_pairs}, {{-1, 32}}},
    {"int4_b128", {integer_element(4), policy::stored, dtype::f32, packing::nibbles_row_pairs}, {{-1, 128}}},
    {"fp8", {e4m3_element}, {}},
    {"fp8_2d", {e4m3_element}, {{-1, 128}, {-2, 128}}},
    {"mxfp8", {e4m3_element, policy::stored, dtype::f8_e8m0, packing::bytes, scale_rule::mx_nv}, {{-1, 32}},
     amax_use::data},
    {"mxfp6", {e3m2_element, policy::stored, dtype::f8_e8m0, packing::dense_rows, scale_rule::mx_nv}, {{-1, 32}},
     amax_use::data},
    {"mxfp4", {e2m1_element, policy::stored, dtype::f8_e8m0, packing::dense_rows, scale_rule::mx_nv}, {{-1, 32}},
     amax_use::data},
    {"nvfp4", {e2m1_element, policy::stored, dtype::f8_e4m3, packing::dense_rows, scale_rule::two_level}, {{-1, 16}},
     amax_use::data},
    {"nvfp4_4o6", {e2m1_element, policy::stored, dtype::f8_e4m3, packing::dense_rows, scale_rule::four_over_six},
     {{-1, 16}}, amax_use::data},
    {"mxint8", {integer_element(8), policy::stored, dtype::f8_e8m0, packing::bytes, scale_rule::mx_nv}, {{-1, 32}},
     amax_use::data},
    {"nf4", {nf4_element, policy::stored, dtype::f32, packing::nibbles_high_first}, {{-1, 64}}},
    {"int8_modelopt", {integer_element(8), policy::modelopt}, {}},
    {"fp8_modelopt", {e4m3_element, policy::modelopt}, {}}};

template <class Bench>
void time_kernel(kernel_amax k, Bench& b) {
  auto& t = b.data();
  for (auto const& f : b.formats())
    b.report(k.text, f.name, b.width, [&, g = t.groups(f)](auto const& on) { on.amax({t.x(), g, t.amax(), nullptr}); });
}
template <class Bench>
void time_kernel(kernel_fake_quantize k, Bench& b) {
  auto& t = b.data();
  for (auto const& f : b.formats())
    b.report(k.text, f.name, 2 * b.width, [&, g = t.groups(f)](auto const& on) {
      on.fake_quantize({t.x(), t.y(), g, t.given(f), f.how, nullptr, t.tensor_amax(), f.use});
    });
}
template <class Bench>
void time_kernel(kernel_encode k, Bench& b) {
  auto& t = b.data();
  for (auto const& f : b.formats())
    b.report(k.text, f.name, b.width + t.payload(f), [&, g = t.groups(f)](auto const& on) {
      on.encode({t.x(), g, t.given(f), f.how, t.codes(), t.scales(), nullptr, t.tensor_amax(), nullptr, f.use});
    });
}
template <class Bench>
void time_kernel(kernel_decode k, Bench& b) {
  auto& t = b.data();
  for (auto const& f : b.formats())
    b.report(k.text, f.name, b.width + t.payload(f), [&, g = t.groups(f)](auto const& on) {
      on.decode({t.codes(), t.scales(), g, f.how, t.y()});
    });
}
template <class Bench>
void time_kernel(kernel_backward_mask k, Bench& b) {
  auto& t = b.data();
  b.report(k.text, "tensor", 3 * b.width, [&, g = per_tensor(t.x())](auto const& on) {
    on.backward_mask({t.x(), t.y(), g, t.amax()});
  });
}
template <class Bench>
void time_kernel(kernel_subtract k, Bench& b) {
  auto& t = b.data();
  b.report(k.text, "", 3 * b.width, [&](auto const& on) { on.subtract({t.x(), t.z(), t.y()}); });
}
template <class Bench>
void time_kernel(kernel_gradient_score k, Bench& b) {
  auto& t = b.data();
  b.report(k.text, "", 2 * b.width, [&](auto const& on) { on.gradient_score({t.x(), t.z(), t.sums()}); });
}
template <class Bench>
void time_kernel(kernel_scale_channels k, Bench& b) {
  auto& t = b.data();
  b.report(k.text, "axis -1", 2 * b.width, [&](auto const& on) {
    on.scale_channels({t.x(), t.y(), 1, t.columns, t.scale()});
  });
}

template <class Bench>
void time_kernel(kernel_histogram k, Bench& b) {
  auto& t = b.data();
  b.report(k.text, "2048 bins", b.width, [&, g = per_tensor(t.x())](auto const& on) {
    on.histogram({t.x(), g, t.amax(), t.bins, t.counts(), nullptr});
  });
}
template <class Bench>
void time_kernel(kernel_sum k, Bench& b) {
  auto& t = b.data();
  int const last = -1;
  b.report(k.text, "tensor", b.width, [&, g = per_tensor(t.x())](auto const& on) {
    on.sum({t.x(), g, sum_of::squares, t.sums(), nullptr});
  });
  b.report(k.text, "axis -1", b.width, [&, g = per_axes(t.x(), std::span{&last, 1})](auto const& on) {
    on.sum({t.x(), g, sum_of::magnitudes, t.sums(), nullptr});
  });
}
template <class Bench>
void time_kernel(kernel_extremes k, Bench& b) {
  auto& t = b.data();
  b.report(k.text, "tensor", b.width, [&, g = per_tensor(t.x())](auto const& on) {
    on.extremes({t.x(), g, t.ends(), t.ends() + 1, nullptr});
  });
}
template <class Bench>
void time_kernel(kernel_shift k, Bench& b) {
  auto& t = b.data();
  named_format const tokens{"token", {}, {{-1, std::nullopt}}};
  b.report(k.text, tokens.name, 2 * b.width, [&, g = t.groups(tokens)](auto const& on) {
    on.shift({t.x(), t.y(), g, t.amax(), true});
  });
}
template <class Bench>
void time_kernel(kernel_hadamard k, Bench& b) {
  auto& t = b.data();
  for (auto const& [name, block] : {std::pair{"block 128", 128}, std::pair{"block 4096", 4096}})
    b.report(k.text, name, 2 * b.width, [&, n = block](auto const& on) { on.hadamard({t.x(), t.y(), n}); });
}

}  // namespace bench
