// Prices for several budgets: multipliers that make the Lagrangian relaxation of the knapsack as tight as can be.
//
// Any multipliers give a valid bound, so all of this is in doubles; budget_search.hpp computes with what comes out as
// integers. The concave dual is maximized by the ellipsoid method (Shor 1977), which in two to four dimensions is
// short, needs no step sizes and cannot stall at a kink.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace mixbit::solver::detail {

inline constexpr std::size_t most_budgets = 4;
using cost_vector = std::array<std::int64_t, most_budgets>;
using price_vector = std::array<double, most_budgets>;

struct priced_item {
  double score;  // times 2^shift
  cost_vector cost;
  std::uint32_t index;  // the candidate's place in its group as given
};

/// Groups of undominated candidates under `count` budgets; unused dimensions are 0 throughout.
struct priced_instance {
  std::size_t count = 0;
  cost_vector budget{};
  std::vector<priced_item> items;
  std::vector<std::uint32_t> first;  // group g: items[first[g]] up to items[first[g + 1]]
  int shift = 0;

  std::size_t groups() const noexcept { return first.size() - 1; }
};

class multipliers {
 public:
  explicit multipliers(priced_instance const& input) : input_{input} {
    measure();
    price_vector center{};
    matrix shape{};
    for (std::size_t d = 0; d < input.count; ++d) {
      center[d] = radius_[d] / 2;
      shape[d][d] = radius_[d] * radius_[d] * static_cast<double>(input.count);
    }
    for (std::size_t i = 0; i < 150 * input.count * input.count; ++i) {
      price_vector const cut = step_at(center);
      if (!shrink(center, shape, cut)) break;
    }
  }

  /// Score a unit of each cost.
  price_vector best() const { return unscaled(best_); }
  /// The bound that these prices give lies above what any choice scores, by more than rounding can explain: no choice
  /// meets all budgets.
  bool prove_infeasible() const noexcept {
    // sums of n terms are off by n 2^-53 of what was added (Higham, Accuracy and Stability, 4.2), and terms by a few
    double const part = static_cast<double>(input_.groups() + 16) * 0x1p-51;
    return bound_ - part * size_ > ceiling_ + part * ceiling_size_;
  }

 private:
  using matrix = std::array<price_vector, most_budgets>;

  /// Units in which prices are of the order of one, and how large they may become.
  void measure() {
    price_vector room{};
    double scores = 0;
    for (std::size_t g = 0; g < input_.groups(); ++g) {
      auto const begin = input_.items.begin() + input_.first[g], end = input_.items.begin() + input_.first[g + 1];
      auto const by_score = [](priced_item const& a, priced_item const& b) { return a.score < b.score; };
      auto const [low, high] = std::minmax_element(begin, end, by_score);
      scores += high->score - low->score;
      ceiling_ += high->score;
      ceiling_size_ += std::abs(high->score);
      for (std::size_t d = 0; d < input_.count; ++d) {
        auto const by_cost = [d](priced_item const& a, priced_item const& b) { return a.cost[d] < b.cost[d]; };
        auto const [least, most] = std::minmax_element(begin, end, by_cost);
        scale_[d] += static_cast<double>(most->cost[d] - least->cost[d]);
        room[d] -= static_cast<double>(least->cost[d]);
      }
    }
    for (std::size_t d = 0; d < input_.count; ++d) {
      room[d] += static_cast<double>(input_.budget[d]);
      radius_[d] = 4 * std::min(1e6, scale_[d] / std::max(room[d], 1e-6 * scale_[d] + 1e-300) + 1);
      scale_[d] = scale_[d] > 0 && scores > 0 ? scores / scale_[d] : 1;
    }
  }

  price_vector unscaled(price_vector prices) const {
    for (std::size_t d = 0; d < input_.count; ++d) prices[d] *= scale_[d];
    return prices;
  }

  /// A direction into which the dual does not rise from `center`; remembers the best point seen.
  price_vector step_at(price_vector const& center) {
    price_vector cut{};
    for (std::size_t d = 0; d < input_.count; ++d) {
      if (center[d] < 0) {
        cut[d] = -1;
        return cut;
      }
    }
    price_vector const price = unscaled(center);
    double value = 0, size = 0;
    for (std::size_t d = 0; d < input_.count; ++d) {
      cut[d] = static_cast<double>(input_.budget[d]);
      value -= price[d] * cut[d];
    }
    size -= value;
    for (std::size_t g = 0; g < input_.groups(); ++g) {
      double least = std::numeric_limits<double>::infinity();
      std::uint32_t at = input_.first[g];
      for (std::uint32_t i = input_.first[g]; i < input_.first[g + 1]; ++i) {
        priced_item const& one = input_.items[i];
        double priced = one.score;
        for (std::size_t d = 0; d < input_.count; ++d) priced += price[d] * static_cast<double>(one.cost[d]);
        if (priced < least) {
          least = priced;
          at = i;
        }
      }
      value += least;
      size += std::abs(least) + 2 * std::abs(input_.items[at].score);  // at least all that was added
      for (std::size_t d = 0; d < input_.count; ++d) cut[d] -= static_cast<double>(input_.items[at].cost[d]);
    }
    if (value > bound_) {
      bound_ = value;
      size_ = size;
      best_ = center;
    }
    for (std::size_t d = 0; d < input_.count; ++d) cut[d] *= scale_[d];
    return cut;
  }

  /// Halves the ellipsoid {x: (x - center)' shape^-1 (x - center) <= 1} along `cut`. False when nothing is left.
  bool shrink(price_vector& center, matrix& shape, price_vector const& cut) const {
    std::size_t const n = input_.count;
    price_vector along{};
    double length = 0;
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = 0; j < n; ++j) along[i] += shape[i][j] * cut[j];
      length += along[i] * cut[i];
    }
    if (!(length > 0) || !std::isfinite(length)) return false;
    length = std::sqrt(length);
    auto const count = static_cast<double>(n);
    double const grow = n == 1 ? 1.0 : count * count / (count * count - 1);
    for (std::size_t i = 0; i < n; ++i) center[i] -= along[i] / length / (count + 1);
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = 0; j < n; ++j) {
        double const part = along[i] / length * (along[j] / length);
        shape[i][j] = n == 1 ? shape[i][j] / 4 : grow * (shape[i][j] - 2 / (count + 1) * part);
      }
    }
    return true;
  }

  priced_instance const& input_;
  price_vector scale_{}, radius_{}, best_{};
  double bound_ = -std::numeric_limits<double>::infinity();
  double size_ = 0;     // the sum of all magnitudes in bound_
  double ceiling_ = 0;  // no choice scores more
  double ceiling_size_ = 0;  // the sum of all magnitudes in ceiling_
};

}  // namespace mixbit::solver::detail
