// The traversal that encode and decode share: rows of codes in stretches of a few thousand columns.
// needs: <hwy/highway.h>
#include "mixbit/reference/simd/blocks-inl.hpp"
#include "mixbit/reference/simd/packing-inl.hpp"

#if defined(MIXBIT_REFERENCE_SIMD_CODE_ROWS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef MIXBIT_REFERENCE_SIMD_CODE_ROWS_INL
#undef MIXBIT_REFERENCE_SIMD_CODE_ROWS_INL
#else
#define MIXBIT_REFERENCE_SIMD_CODE_ROWS_INL
#endif

#if MIXBIT_SIMD_VECTORS

HWY_BEFORE_NAMESPACE();
namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::simd_kernels::HWY_NAMESPACE {

/// Columns of a stretch at most: their codes, one a byte, stay in the first-level cache.
inline constexpr std::int64_t stretch_columns = 4096;

/// A stretch of one row: its elements from `offset` on in the tensor, of which the first lies `phase` elements into
/// its block, which has number `group`. The groups of a row are consecutive.
struct code_stretch {
  std::int64_t row = 0, column = 0, length = 0;
  std::int64_t offset = 0, group = 0, phase = 0;
};

class code_rows {
 public:
  code_rows(packing layout, geometry const& g, partition const& groups)
      : g_{g},
        groups_{groups},
        matrix_{formats::code_matrix_of(layout, g)},
        block_{std::max<std::int64_t>(groups.block[g.rank - 1], 1)},
        width_{block_ <= stretch_columns ? stretch_columns / block_ * block_ : stretch_columns},
        together_{layout == packing::nibbles_row_pairs ? 2 : 1} {}

  formats::code_matrix const& matrix() const { return matrix_; }
  std::int64_t block() const { return block_; }

  /// Elements are consecutive along a row, and every stretch starts at a byte.
  bool usable() const {
    bool const consecutive = g_.stride[g_.rank - 1] == 1 || g_.shape[g_.rank - 1] <= 1;
    return consecutive && (width_ % 8 == 0 || matrix_.columns <= width_);
  }

  /// No group is in two stretches.
  bool whole_groups() const {
    for (int a = 0; a + 1 < g_.rank; ++a)
      if (groups_.block[a] != 1) return false;
    return block_ <= stretch_columns;
  }

  /// Calls f(upper, lower) for all stretches; lower is the second of a pair of rows, or has no length. Calls end() when
  /// a thread has done a piece.
  template <class F, class G>
  void visit(executor_ref const& threads, F&& f, G&& end) const {
    if (matrix_.rows == 0 || matrix_.columns == 0) return;
    std::int64_t const across = (matrix_.columns + width_ - 1) / width_;
    std::int64_t const all = across * ((matrix_.rows + together_ - 1) / together_);
    std::int64_t const elements = std::min(width_, matrix_.columns) * together_;
    std::int64_t const per_piece = std::max<std::int64_t>(1, piece_elements / elements);
    for_pieces(threads, (all + per_piece - 1) / per_piece, [&](std::int64_t piece) {
      for (std::int64_t i = piece * per_piece; i < std::min(all, (piece + 1) * per_piece); ++i) {
        std::int64_t const row = i / across * together_, column = i % across * width_;
        bool const pair = together_ == 2 && row + 1 < matrix_.rows;
        f(stretch_at(row, column), pair ? stretch_at(row + 1, column) : code_stretch{});
      }
      end();
    });
  }

 private:
  code_stretch stretch_at(std::int64_t row, std::int64_t column) const {
    code_stretch s{row, column, std::min(width_, matrix_.columns - column), column, column / block_, column % block_};
    std::int64_t step = groups_.groups[g_.rank - 1];
    for (int a = g_.rank - 2; a >= 0; --a) {
      std::int64_t const i = row % g_.shape[a];
      row /= g_.shape[a];
      s.offset += i * g_.stride[a];
      s.group += i / groups_.block[a] * step;
      step *= groups_.groups[a];
    }
    return s;
  }

  geometry const& g_;
  partition const& groups_;
  formats::code_matrix matrix_;
  std::int64_t block_, width_, together_;
};

}  // namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::simd_kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
#endif
