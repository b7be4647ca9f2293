// Lists of states, the tree of decisions behind them, and what the groups to come can still change.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "mixbit/autoquant/detail/core.hpp"

namespace mixbit::solver::detail {

/// What the groups taken so far change against the base; `node` is the last of these changes.
struct state {
  wide score;
  std::int64_t cost;
  std::uint32_t node;
};

/// Decisions as a tree: each node is one alternative and the node of the decision before it.
class decision_tree {
 public:
  static constexpr std::uint32_t none = std::numeric_limits<std::uint32_t>::max();

  std::uint32_t add(std::uint32_t parent, std::uint32_t alternative) {
    nodes_.push_back({parent, alternative});
    return static_cast<std::uint32_t>(nodes_.size() - 1);
  }

  std::size_t size() const noexcept { return nodes_.size(); }

  /// Calls visit(alternative) for each decision that leads to `node`.
  template <class Visit>
  void path(std::uint32_t node, Visit const& visit) const {
    for (; node != none; node = nodes_[node].parent) visit(nodes_[node].alternative);
  }

  /// Frees the nodes that neither the lists nor `best` lead to, and renumbers the others.
  template <class State>
  void collect(std::vector<State>& first, std::vector<State>& second, std::uint32_t& best) {
    std::vector<std::uint32_t> place(nodes_.size(), none);
    auto const mark = [&place](std::uint32_t node) {
      if (node != none) place[node] = 0;
    };
    for (State const& one : first) mark(one.node);
    for (State const& one : second) mark(one.node);
    mark(best);
    for (std::size_t i = nodes_.size(); i-- > 0;) {  // a parent is older than its children
      if (place[i] != none) mark(nodes_[i].parent);
    }
    std::uint32_t kept = 0;
    auto const moved = [&place](std::uint32_t node) { return node == none ? none : place[node]; };
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
      if (place[i] == none) continue;
      nodes_[kept] = {moved(nodes_[i].parent), nodes_[i].alternative};
      place[i] = kept++;
    }
    nodes_.resize(kept);
    for (State& one : first) one.node = moved(one.node);
    for (State& one : second) one.node = moved(one.node);
    best = moved(best);
  }

 private:
  struct decision {
    std::uint32_t parent;
    std::uint32_t alternative;
  };
  std::vector<decision> nodes_;
};

/// Lower bounds on what taking alternatives of the groups to come costs in reduced score.
class outlook {
 public:
  void include(alternative const& one) {
    least_ = std::min(least_, one.reduced);
    double const cost = static_cast<double>(one.cost);
    double& rate = one.cost < 0 ? down_ : up_;
    rate = std::min(rate, static_cast<double>(one.reduced) / std::abs(cost));
  }

  /// Fixes the rates per bit as integers, rounded down, none so large that its product with `reach` bits overflows.
  void settle(wide slope, double reach) {
    double const cap = 0x1p120 / std::max(reach, 1.0);
    auto const whole = [cap](double rate) { return static_cast<wide>(std::min(rate, cap) * (1 - 0x1p-50)); };
    rate_up_ = std::min(whole(up_), slope);
    rate_down_ = whole(down_);
  }

  /// The reduced score that at least one more alternative adds, where `slack` bits are to be used up (or, below 0, to
  /// be saved) or their price paid. With steps of cost P up and N down, P - N <= slack, this is at least
  /// up * P + down * N + slope * (slack - P + N); up <= slope makes P = slack + N the least, hence the two cases.
  wide least(std::int64_t slack) const noexcept {
    if (slack >= 0) return std::max(least_, rate_up_ * slack);
    return down_ == std::numeric_limits<double>::infinity() ? unlimited : std::max(least_, rate_down_ * -slack);
  }

  static constexpr wide unlimited = wide{1} << 123;  // above every total

 private:
  wide least_ = unlimited;  // of any alternative
  wide rate_up_ = 0;
  wide rate_down_ = 0;
  double up_ = std::numeric_limits<double>::infinity();    // per bit, of those that cost more than the base
  double down_ = std::numeric_limits<double>::infinity();  // and of those that cost less
};

}  // namespace mixbit::solver::detail
