// Histograms of magnitudes that stream: the range grows with the data, memory does not.
//
// Bins have one width a group, that of the group's first batch with anything but zeros: its largest magnitude over the
// number of bins. A larger value adds bins of that width (ModelOpt's rule, bin for bin), up to `most_growth` times as
// many as at first. Beyond, neighbours are made one until the range fits: the width doubles, every count stays where
// it was, and the histogram is coarse, not wrong. So counts never take more than most_growth · bins · 8 bytes a group.
// All-zero batches before the first range count in bin 0. Several groups have as many bins each, of their own width.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "mixbit/core/backend.hpp"
#include "mixbit/core/fp.hpp"
#include "mixbit/core/partition.hpp"
#include "mixbit/core/span_of.hpp"

namespace mixbit {

/// One group's counts, on the host. Bin b begins at edge(b) and ends before edge(b + 1); the last one holds `top`.
struct binned_counts {
  std::span<std::uint64_t const> counts;
  float width = 0;  ///< 0: nothing but zeros was seen, and they are in bin 0
  float top = 0;

  float edge(std::size_t bin) const {
    return bin >= counts.size() ? top : static_cast<float>(static_cast<double>(width) * static_cast<double>(bin));
  }
  float center(std::size_t bin) const { return edge(bin) * 0.5f + edge(bin + 1) * 0.5f; }  // their sum may overflow
};

/// The bins of each group of a histogram, without the counts.
class histogram_ranges {
 public:
  static constexpr std::int64_t most_growth = 16;

  struct range {
    float width = 0, top = 0;
    float first_top = 0;  ///< of the first batch with anything but zeros
    int halvings = 0;     ///< how often the last `grow` made neighbours one
    bool coarse = false;  ///< has any?
  };

  histogram_ranges() = default;
  histogram_ranges(std::size_t groups, std::int64_t bins) : first_bins_{bins}, bins_{bins}, all_(groups) {}

  std::int64_t bins() const { return bins_; }
  std::vector<range> const& all() const { return all_; }

  /// Makes room for the largest magnitudes of a batch. True where any range has changed.
  bool grow(std::span<float const> largest) {
    bool changed = false;
    std::int64_t bins = bins_;
    for (std::size_t g = 0; g < all_.size(); ++g) {
      all_[g].halvings = 0;
      if (largest[g] <= all_[g].top) continue;
      bins = std::max(bins, grow(all_[g], largest[g]));
      changed = changed || all_[g].width > 0;
    }
    if (!changed) return false;
    for (range& r : all_)
      if (bins != first_bins_ || r.halvings > 0) r.top = end_of(r, bins);
    bins_ = bins;
    return true;
  }

 private:
  /// How many bins the group needs for that magnitude, in float32 as ModelOpt counts them.
  std::int64_t grow(range& r, float largest) const {
    if (r.width == 0) {  // magnitudes too small to have a width count as zeros
      r.width = fp::div(largest, static_cast<float>(first_bins_));
      r.top = r.width > 0 ? largest : 0;
      r.first_top = r.top;
      return bins_;
    }
    auto const most = static_cast<float>(most_growth * first_bins_);
    while (std::ceil(fp::div(largest, r.width)) > most) r.width *= 2, ++r.halvings;
    r.coarse = r.coarse || r.halvings > 0;
    return static_cast<std::int64_t>(std::ceil(fp::div(largest, r.width)));
  }
  static float end_of(range const& r, std::int64_t bins) {
    double const end = static_cast<double>(r.width) * static_cast<double>(bins);
    return static_cast<float>(std::min<double>(end, std::numeric_limits<float>::max()));
  }

  std::int64_t first_bins_ = 0, bins_ = 0;
  std::vector<range> all_;
};

template <backend B>
class streaming_histogram {
 public:
  /// `bins` of the first range, 1 to formats::most_bins / most_growth.
  explicit streaming_histogram(std::int64_t bins = 2048) : first_bins_{bins} {}

  /// Counts a tensor; the number of groups is that of the first one. NaN and infinities are left out and counted in
  /// `flags`, which may be null. Waits for the device: the largest magnitudes come to the host, one float a group.
  void observe(B& device, arena& scratch, const_tensor_ref x, partition const& groups, data_flags* flags) {
    auto const count = static_cast<std::size_t>(groups.group_count());
    if (counts_.empty()) start(device, count);
    arena_scope const borrowed{scratch};
    std::size_t const bytes = count * sizeof(float);
    auto* const largest = static_cast<float*>(scratch.allocate(bytes));
    device.zero(largest, bytes);
    device.amax({x, groups, largest, flags});
    device.copy_to_host(largest_.data(), largest, bytes);
    std::int64_t const bins_before = ranges_.bins();
    if (ranges_.grow(detail::span_of(largest_))) {
      rearrange(device, bins_before);
      for (std::size_t g = 0; g < count; ++g) largest_[g] = ranges_.all()[g].top;
      device.copy_from_host(tops_.data(), largest_.data(), bytes);
    }
    device.histogram({x, groups, tops_.data(), ranges_.bins(), counts_.data(), nullptr});
  }

  bool empty() const { return counts_.empty(); }
  std::int64_t bins() const { return ranges_.bins(); }
  std::vector<histogram_ranges::range> const& ranges() const { return ranges_.all(); }
  /// Bytes held in the backend's memory.
  std::size_t bytes() const { return counts_.size() * sizeof(std::uint64_t) + tops_.size() * sizeof(float); }

  /// f(group, binned_counts) for each group; the counts are lent for the call.
  template <class F>
  void for_each(B& device, F&& f) const {
    auto const bins = static_cast<std::size_t>(ranges_.bins());
    std::vector<std::uint64_t> row(bins);
    for (std::size_t g = 0; g < ranges_.all().size(); ++g) {
      device.copy_to_host(row.data(), counts_.data() + g * bins, bins * sizeof(std::uint64_t));
      auto const& r = ranges_.all()[g];
      f(g, binned_counts{row, r.width, r.top});
    }
  }

 private:
  void start(B& device, std::size_t groups) {
    ranges_ = {groups, first_bins_};
    largest_.resize(groups);
    tops_ = buffer<B, float>{device, groups};
    counts_ = buffer<B, std::uint64_t>{device, groups * static_cast<std::size_t>(first_bins_)};
  }

  /// The counts so far in the bins of the new ranges. They go through the host, which is seldom, and a row a time.
  void rearrange(B& device, std::int64_t bins_before) {
    auto const& all = ranges_.all();
    bool const merged = std::any_of(all.begin(), all.end(), [](auto const& r) { return r.halvings > 0; });
    if (!merged && ranges_.bins() == bins_before) return;
    auto const before = static_cast<std::size_t>(bins_before), after = static_cast<std::size_t>(ranges_.bins());
    buffer<B, std::uint64_t> next{device, all.size() * after};
    std::vector<std::uint64_t> from(before), to(after);
    for (std::size_t g = 0; g < all.size(); ++g) {
      device.copy_to_host(from.data(), counts_.data() + g * before, before * sizeof(std::uint64_t));
      std::fill(to.begin(), to.end(), 0);
      for (std::size_t b = 0; b < before; ++b) to[all[g].halvings < 63 ? b >> all[g].halvings : 0] += from[b];
      device.copy_from_host(next.data() + g * after, to.data(), after * sizeof(std::uint64_t));
    }
    counts_ = std::move(next);
  }

  std::int64_t first_bins_;
  histogram_ranges ranges_;
  std::vector<float> largest_;  ///< of a batch; kept so that a call allocates nothing
  buffer<B, float> tops_;
  buffer<B, std::uint64_t> counts_;
};

}  // namespace mixbit
