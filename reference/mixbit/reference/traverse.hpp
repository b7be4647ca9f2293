// The traversal that all elementwise CPU kernels share: pieces of a loop nest (core/loop_nest.hpp) on an executor.
#pragma once

#include <cstdint>

#include "mixbit/core/executor.hpp"
#include "mixbit/core/loop_nest.hpp"

// The loops below read and write in place at most (y is x): no iteration depends on another. clang has a pragma for
// that too, but it warns wherever it then does not vectorise; it is left to its own checks.
#if defined(__GNUC__) && !defined(__clang__)
#define MIXBIT_INDEPENDENT_LOOP _Pragma("GCC ivdep")
#else
#define MIXBIT_INDEPENDENT_LOOP
#endif

namespace mixbit::reference {

inline constexpr std::int64_t piece_elements = nest_piece_elements;
inline constexpr std::int64_t tile_width = nest_tile_width;

/// Calls f(piece) for every piece, on the calling thread if there is only one.
template <class F>
void for_pieces(executor_ref const& threads, std::int64_t pieces, F&& f) {
  if (pieces == 1) return f(std::int64_t{0});
  if (pieces > 1) threads.parallel_for(pieces, f);
}

/// Applies an elementwise operation. It provides
///   Op::tile                                    arrays of tile_width, what each element needs of its group
///   load(group)                                 the same for one group, made once a run
///   load(group, tile&, i)                       made once a tile
///   run<Unit>(offset, stride, length, loaded)   and
///   each<Unit>(offset, stride, length, tile)    the loops
/// where Unit says that all strides are 1; with a member `any_stride` there is one kind of loop for both.
template <int Count, class Op>
void sweep(executor_ref const& threads, loop_nest<Count> const& nest, Op const& op) {
  auto const rows = [&]<bool Unit>(std::int64_t piece) {
    auto const& in = nest.inner();
    if (nest.one_group_an_element()) {
      typename Op::tile tile;
      std::int64_t loaded = -1;
      nest.rows_of(piece, [&](segment<Count> const& s) {
        for (std::int64_t i = 0; loaded != s.group && i < s.length; ++i)
          op.load(s.group + i * in.group_stride, tile, i);
        loaded = s.group;
        op.template each<Unit>(s.offset, in.stride, s.length, tile);
      });
    } else {
      nest.rows_of(piece, [&](segment<Count> const& s) {
        for_runs(s, in, [&](auto const& offset, std::int64_t length, std::int64_t group) {
          op.template run<Unit>(offset, in.stride, length, op.load(group));
        });
      });
    }
  };
  if constexpr (!requires { Op::any_stride; })
    if (nest.unit_stride())
      return for_pieces(threads, nest.pieces(), [&](std::int64_t piece) { rows.template operator()<true>(piece); });
  for_pieces(threads, nest.pieces(), [&](std::int64_t piece) { rows.template operator()<false>(piece); });
}

}  // namespace mixbit::reference
