// From a kernel's arguments to launches: which body walks which nest. Host code, written over a launcher so that the
// tests of the CPU take the same decisions:
//
//   on.launch(kernel, threads, shared = 0)   enqueues a kernel (kernels/context.hpp) on about so many threads, with
//                                `shared` bytes for each block
//   on.threads()                 threads of a block, a power of two and at least 32
//   on.scratch()                 memory for `scratch_sums` doubles: this launcher's alone from here to its end
//
// Nothing here allocates, waits for the device or reads its memory.
#pragma once

#include <bit>
#include <cassert>

#include "mixbit/cuda/kernels/encode.hpp"
#include "mixbit/cuda/kernels/gradient_score.hpp"
#include "mixbit/cuda/kernels/hadamard.hpp"
#include "mixbit/cuda/kernels/histogram.hpp"
#include "mixbit/cuda/kernels/lines.hpp"
#include "mixbit/cuda/kernels/sum.hpp"

namespace mixbit::cuda::plan {

inline constexpr std::int64_t scratch_sums = 16384;
static_assert(scratch_sums >= 2 * score_piece_count + 2 && scratch_sums >= formats::most_sum_chunks);

template <int Count>
nest<Count> octets_of(std::array<geometry const*, Count> const& tensors, partition const& groups) {
  return {loop_nest<Count>{tensors, groups}, octet};
}

inline const_tensor_data data_of(const_tensor_ref const& t) { return {t.data, t.type}; }
inline tensor_data data_of(tensor_ref const& t) { return {t.data, t.type}; }

/// Lanes of a line: one an octet up to a warp, else as many as there may be, where the line is contiguous. Lines that
/// are not lie side by side, a thread each.
inline int lane_shift(std::int64_t block, std::int64_t stride, int most) {
  if (stride != 1) return 0;
  auto const octets = static_cast<std::uint64_t>((block + octet - 1) / octet);
  auto const lanes = std::bit_ceil(std::max<std::uint64_t>(octets, 1));
  return std::countr_zero(lanes > 32 ? static_cast<std::uint64_t>(most) : lanes);
}

template <int Count>
lines<Count> lines_of(std::array<geometry const*, Count> const& tensors, partition const& groups, int most_lanes) {
  int const axis = std::max(line_axis(groups).value_or(-1), 0);
  std::array<geometry, Count> grids;
  std::array<geometry const*, Count> first;
  partition single = groups;
  single.block.fill(1);
  lines<Count> l;
  for (int k = 0; k < Count; ++k) {
    grids[k] = *tensors[k];
    for (int a = 0; a < groups.rank; ++a) {  // the first element of each group, as a tensor
      grids[k].stride[a] *= groups.block[a];
      if (grids[k].shape[a] != 0) grids[k].shape[a] = groups.groups[a];
    }
    first[k] = &grids[k];
    l.stride[k] = groups.rank > 0 ? tensors[k]->stride[axis] : 1;
  }
  l.starts = {loop_nest<Count>{first, single}, 1};
  if (groups.rank > 0) {
    l.size = tensors[0]->shape[axis];
    l.block = std::max<std::int64_t>(groups.block[axis], 1);
    std::int64_t below = 1;
    for (int a = axis + 1; a < groups.rank; ++a) below *= groups.groups[a];
    l.below = divider{std::max<std::int64_t>(below, 1)};
    l.along = divider{std::max<std::int64_t>(groups.groups[axis], 1)};
  }
  l.shift = lane_shift(l.block, l.stride[0], most_lanes);
  l.rounds = static_cast<int>(((l.block + octet - 1) / octet + l.width() - 1) / l.width());
  return l;
}

template <class Launcher, int Count, class Op>
void sweep_over(Launcher& on, nest<Count> const& walk, Op const& op, std::uint64_t* flag = nullptr) {
  on.launch(sweep<Count, Op>{walk, op, flag}, walk.units());
}

template <class Launcher, int Count, class Kernel>
void launch_lines(Launcher& on, lines<Count> const& walk, Kernel const& kernel) {
  on.launch(kernel, walk.starts.units() << walk.shift);
}

/// May whole groups be left to lanes? Long lines need company, or most of the device would be idle.
template <int Count>
bool suit_lanes(lines<Count> const& l) {
  constexpr std::int64_t short_line = 4096, busy_device = 65536;
  return l.stride[0] == 1 && (l.block <= short_line || (l.starts.units() << l.shift) >= busy_device);
}

/// Groups of any shape to a target's keys.
template <class Launcher, class Target>
void reduce(Launcher& on, const_tensor_ref const& x, partition const& groups, Target const& target,
            std::uint64_t* flag) {
  if (x.size() == 0) return;
  loop_nest<1> const made{{&x}, groups};
  nest<1> const walk{made, octet};
  if (made.one_group_an_element()) {
    // as many slices as keep a device busy, of rows enough that few of their results meet in a group
    std::int64_t const rows = made.outer_rows(), wanted = (std::int64_t{1} << 18) / walk.units_a_row() + 1;
    std::int64_t const slice = std::max<std::int64_t>((rows + wanted - 1) / wanted, 8);
    reduce_columns<Target> const kernel{walk, data_of(x), target, flag, rows, slice, divider{walk.units_a_row()}};
    return on.launch(kernel, (rows + slice - 1) / slice * walk.units_a_row());
  }
  bool const one = groups.group_count() == 1;
  on.launch(reduce_runs<Target>{walk, data_of(x), target, flag, one}, walk.units() / reduce_runs<Target>::stretch + 1);
}

template <class Launcher>
void amax(Launcher& on, amax_args const& a) {
  if (a.x.size() == 0) return;
  std::uint64_t* const flag = a.flags ? &a.flags->nonfinite : nullptr;
  if (line_axis(a.groups)) {
    auto const walk = lines_of<1>({&a.x}, a.groups, on.threads());
    if (suit_lanes(walk)) return launch_lines(on, walk, amax_of_lines{walk, data_of(a.x), a.amax, flag});
  }
  reduce(on, a.x, a.groups, amax_target{a.amax}, flag);
}

template <class Launcher>
void extremes(Launcher& on, extremes_args const& a) {
  reduce(on, a.x, a.groups, extremes_target{a.low, a.high}, a.flags ? &a.flags->nonfinite : nullptr);
}

/// Does a kernel have to see groups whole?
template <class Rule>
bool needs_lines(Rule const& rule, amax_use use) {
  if constexpr (formats::block_scaled<Rule>)
    if (rule.has_alternative()) return true;
  return use == amax_use::data;
}

/// Lanes that one line may have: where errors are summed they hand over within a warp.
template <class Rule>
int most_lanes(Rule const& rule, int threads) {
  if constexpr (formats::block_scaled<Rule>)
    if (rule.has_alternative()) return 32;
  return threads;
}

template <class Launcher>
void fake_quantize(Launcher& on, fake_quantize_args const& a) {
  assert(a.x.same_shape(a.y) && a.x.type == a.y.type);
  if (a.x.size() == 0) return;
  bool const cast = a.amax == nullptr && a.use == amax_use::given;
  bool const counts = a.how.element.is_unsigned && a.flags;
  std::uint64_t* const negative = counts ? &a.flags->negative_unsigned : nullptr;
  formats::visit_rule(a.how, {a.x.type, 0.0f, a.use == amax_use::data}, [&]<class Rule>(Rule const& rule) {
    if (needs_lines(rule, a.use)) {
      auto const walk = lines_of<2>({&a.x, &a.y}, a.groups, most_lanes(rule, on.threads()));
      float const* const given = a.use == amax_use::data ? nullptr : a.amax;
      return launch_lines(on, walk,
                          quantize_lines<Rule, write_fake<Rule>>{walk, data_of(a.x), given, a.tensor_amax, rule,
                                                                 {data_of(a.y)}, negative, nullptr});
    }
    // without a scale all groups are alike, and one group makes the longest runs
    auto const walk = octets_of<2>({&a.x, &a.y}, cast ? per_tensor(a.x) : a.groups);
    sweep_over(on, walk, fake_quantize_op<Rule>{{data_of(a.x)}, data_of(a.y), a.amax, a.tensor_amax, rule, counts},
               negative);
  });
}

/// Do whole octets of a line of groups lie in whole bytes of a row of codes?
inline bool lines_are_bytes(format const& how, partition const& groups) {
  if (how.layout != packing::bytes && how.layout != packing::dense_rows) return false;
  int const axis = line_axis(groups).value_or(-1);
  return axis == groups.rank - 1 && (groups.rank == 0 || groups.groups[axis] <= 1 || groups.block[axis] % octet == 0);
}

/// Scales that need the data: with the codes in one pass where the layout allows it. False: codes are still to do.
template <class Launcher, class Rule>
bool encode_lines(Launcher& on, encode_args const& a, Rule const& rule) {
  assert(a.scales != nullptr);
  auto const walk = lines_of<1>({&a.x}, a.groups, most_lanes(rule, on.threads()));
  bool const whole = lines_are_bytes(a.how, a.groups);
  code_form const form{a.how.layout, a.how.element};
  std::int64_t const columns = a.groups.rank > 0 ? a.x.shape[static_cast<std::size_t>(a.groups.rank - 1)] : 1;
  write_codes<Rule> const sink{a.scales, a.how.scale_type, a.tensor_scale, whole ? a.codes : nullptr,
                               formats::row_bytes(a.how.layout, a.how.element.bits, columns), form};
  launch_lines(on, walk,
               quantize_lines<Rule, write_codes<Rule>>{
                   walk, data_of(a.x), a.use == amax_use::data ? nullptr : a.amax, a.tensor_amax, rule, sink, nullptr,
                   a.flags ? &a.flags->nonfinite : nullptr});
  return whole;
}

template <class Launcher>
void encode(Launcher& on, encode_args const& a) {
  assert(a.amax == nullptr || a.scales != nullptr);
  bool const counts = a.how.element.is_unsigned && a.flags;
  formats::visit_rule(a.how, {a.x.type, 0.0f, a.use == amax_use::data}, [&]<class Rule>(Rule const& rule) {
    void const* file_scales = nullptr;
    bool const lines_first = formats::block_scaled<Rule> && needs_lines(rule, a.use) && a.x.size() != 0;
    if constexpr (formats::block_scaled<Rule>)
      if (lines_first) {
        if (encode_lines(on, a, rule)) return;
        file_scales = a.scales;
      }
    if (!lines_first && (a.amax || a.tensor_scale)) {
      std::int64_t const count = a.amax && a.x.size() != 0 ? a.groups.group_count() : 0;
      encode_scales<Rule> const scales{a.amax, a.tensor_amax, rule, a.how.scale_type, a.scales, count, a.tensor_scale};
      on.launch(scales, std::max<std::int64_t>(count, 1));
    }
    code_octets const octets{a.how, a.x};
    encode_codes<Rule> const codes{octets, {a.x, a.groups}, data_of(a.x), a.amax, file_scales, a.how.scale_type,
                                   a.tensor_amax, rule, {a.how.layout, a.how.element}, a.codes,
                                   a.flags ? &a.flags->nonfinite : nullptr,
                                   counts ? &a.flags->negative_unsigned : nullptr};
    if (octets.units > 0) on.launch(codes, octets.units);
  });
}

template <class Launcher>
void decode(Launcher& on, decode_args const& a) {
  code_octets const octets{a.how, a.y};
  if (octets.units == 0) return;
  formats::visit_rule(a.how, {a.y.type}, [&]<class Rule>(Rule const& rule) {
    decode_codes<Rule> const kernel{octets, {a.y, a.groups}, a.codes, a.scales, a.how.scale_type, a.tensor_scale, rule,
                                    {a.how.layout, a.how.element}, data_of(a.y)};
    on.launch(kernel, octets.units);
  });
}

template <class Launcher>
void backward_mask(Launcher& on, backward_mask_args const& a) {
  assert(a.x.same_shape(a.grad) && a.x.type == a.grad.type);
  if (a.x.size() == 0) return;
  sweep_over(on, octets_of<2>({&a.x, &a.grad}, a.groups), mask_op{{data_of(a.x)}, data_of(a.grad), a.amax});
}

template <class Launcher>
void subtract(Launcher& on, subtract_args const& a) {
  assert(a.a.same_shape(a.b) && a.a.same_shape(a.y) && a.a.type == a.b.type && a.a.type == a.y.type);
  if (a.a.size() == 0) return;
  sweep_over(on, octets_of<3>({&a.a, &a.b, &a.y}, per_tensor(a.a)),
             subtract_op{data_of(a.a), data_of(a.b), data_of(a.y)});
}

template <class Launcher>
void scale_channels(Launcher& on, scale_channels_args const& a) {
  assert(a.x.same_shape(a.y) && a.x.type == a.y.type && a.period > 0);
  if (a.x.size() == 0) return;
  auto const axis = static_cast<std::size_t>(a.axis);
  partition channels;  // one group for each index along the axis
  channels.rank = a.x.rank;
  channels.block = a.x.shape;
  channels.block[axis] = 1;
  channels.groups[axis] = a.x.shape[axis];
  sweep_over(on, octets_of<2>({&a.x, &a.y}, channels),
             scale_channels_op{{data_of(a.x)}, data_of(a.y), a.scale, divider{a.period}});
}

template <class Launcher>
void gradient_score(Launcher& on, gradient_score_args const& a) {
  assert(a.grad.same_shape(a.difference) && a.grad.type == a.difference.type);
  loop_nest<2> const made = score_nest(a);
  if (made.pieces() == 0) return;
  score_pieces const kernel{{made, made.inner_step()}, data_of(a.grad), data_of(a.difference), made.pieces(),
                            made.outer_step(), made.outer_rows(), divider{made.inner_cuts()},
                            on.scratch()};
  assert(made.pieces() <= scratch_sums);
  on.launch(kernel, made.pieces() * score_pieces::lanes);
  on.launch(score_total{on.scratch(), made.pieces(), a.sum}, 1);
}

template <class Launcher>
void histogram(Launcher& on, histogram_args const& a) {
  assert(a.bins > 0 && a.bins <= formats::most_bins);
  if (a.x.size() == 0) return;
  constexpr std::int64_t most_shared = 12288;  // bins that every device has room for, unasked
  bool const shared = a.groups.group_count() == 1 && a.bins <= most_shared;
  auto const walk = octets_of<1>({&a.x}, a.groups);
  on.launch(count_bins{walk, data_of(a.x), a.top, a.bins, a.counts, a.flags ? &a.flags->nonfinite : nullptr, shared},
            walk.units(), shared ? static_cast<std::size_t>(a.bins) * sizeof(std::uint32_t) : 0);
}

template <class Launcher>
void shift(Launcher& on, shift_args const& a) {
  assert(a.x.same_shape(a.y) && a.x.type == a.y.type);
  if (a.x.size() == 0) return;
  sweep_over(on, octets_of<2>({&a.x, &a.y}, a.groups), shift_op{{data_of(a.x)}, data_of(a.y), a.value, a.subtract});
}

template <class Launcher>
void hadamard(Launcher& on, hadamard_args const& a) {
  assert(a.x.same_shape(a.y) && a.x.type == a.y.type && a.x.rank > 0 && a.block > 0);
  assert(a.block <= formats::largest_hadamard);
  if (a.x.size() == 0) return;
  auto const last = static_cast<std::size_t>(a.x.rank - 1);
  partition blocks;
  blocks.rank = a.x.rank;
  blocks.groups = a.x.shape;
  blocks.block[last] = a.block;
  blocks.groups[last] = a.x.shape[last] / a.block;
  auto const walk = lines_of<2>({&a.x, &a.y}, blocks, 32);
  std::int64_t const tile = std::max(rotate_lines::least_tile, a.block);
  rotate_lines const kernel{walk, data_of(a.x), data_of(a.y),
                            std::countr_zero(static_cast<std::uint64_t>(a.block)), tile};
  std::int64_t const tiles = (walk.starts.units() * a.block + tile - 1) / tile;
  on.launch(kernel, tiles * on.threads(), static_cast<std::size_t>(tile) * sizeof(float));
}

template <class Launcher>
void sum(Launcher& on, sum_args const& a) {
  if (a.x.size() == 0) return;
  group_boxes const boxes{a.x, a.groups};
  std::int64_t const size = boxes.box(0).size;  // of the first group, which no other exceeds
  std::uint64_t* const flag = a.flags ? &a.flags->nonfinite : nullptr;
  if (size <= formats::sum_lanes)
    return on.launch(sum_small_groups{boxes, data_of(a.x), a.what, a.sum, flag}, boxes.count);
  std::int64_t const chunks = formats::sum_chunks_up_to(size);
  double* const partial = chunks > 1 && boxes.count * chunks <= scratch_sums ? on.scratch() : nullptr;
  on.launch(sum_chunks{boxes, data_of(a.x), a.what, a.sum, partial, chunks, divider{chunks}, flag},
            boxes.count * (partial ? chunks : 1) * formats::sum_lanes);
  if (partial) on.launch(sum_partials{boxes, partial, chunks, a.sum}, boxes.count);
}

}  // namespace mixbit::cuda::plan
