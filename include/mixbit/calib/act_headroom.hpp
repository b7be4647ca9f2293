// The calibrator "nvfp4_act_headroom": a tensor's amax for NVFP4 activations that leaves room above the data.
//
// Plain max puts the largest block seen at the top of E4M3's range, and a larger one later saturates. This looks at the
// amaxes of all blocks: `anchor`, a low percentile of them, times `rho` is the amax, so that blocks like those seen lie
// low in E4M3's range; but at least the percentile `upper` of them. Source: ModelOpt's NVFP4ActHeadroomCalibrator.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "mixbit/quantizer/calibrator.hpp"

namespace mixbit {

/// 512 bins of log2 over [-40, 40) of the amaxes of blocks of 16; what lies outside counts in the first and last. Zeros
/// are left out.
class block_amax_histogram {
 public:
  static constexpr std::size_t bins = 512;
  static constexpr double low = -40.0, high = 40.0;

  static std::size_t bin_of(double amax) {
    double const place = (std::log2(amax) - low) / (high - low) * bins;
    return static_cast<std::size_t>(std::clamp(place, 0.0, static_cast<double>(bins - 1)));
  }
  static double center_of(std::size_t bin) {
    return std::exp2(low + (static_cast<double>(bin) + 0.5) / bins * (high - low));
  }

  void add(float amax) {
    if (!(amax > 0)) return;
    ++counts_[bin_of(amax)];
    largest_ = std::max(largest_, amax);
  }
  float largest() const { return largest_; }
  std::array<std::uint64_t, bins> const& counts() const { return counts_; }

  /// The centre of the first bin at which the share of those from `least` on reaches `percentile`; 0 where there are
  /// none.
  double percentile(double percentile, double least = 0) const {
    std::size_t const first = least > 0 ? bin_of(least) : 0;
    double total = 0, reached = 0;
    for (std::size_t b = first; b < bins; ++b) total += static_cast<double>(counts_[b]);
    for (std::size_t b = first; b < bins && total > 0; ++b)
      if ((reached += static_cast<double>(counts_[b])) >= percentile / 100 * total) return center_of(b);
    return 0;
  }

 private:
  std::array<std::uint64_t, bins> counts_{};
  float largest_ = 0;
};

struct headroom_amax {
  float amax = 0;
  bool has_headroom = false;  ///< is it above the top of what was seen?
};

/// max(rho · P_anchor, P_upper), where P_anchor leaves out blocks a million times smaller than P_upper, and an `upper`
/// of 100 is the largest amax itself. 0 where no block held anything but zeros.
inline headroom_amax headroom_of(block_amax_histogram const& h, double rho, double anchor, double upper) {
  double const top = upper >= 100 ? static_cast<double>(h.largest()) : h.percentile(upper);
  double const low = h.percentile(anchor, top / 1e6);
  if (!(top > 0) || !(low > 0)) return {h.largest(), false};
  double const amax = std::max(rho * low, top);
  return {static_cast<float>(amax), rho * low > top};
}

/// Throws `format_value` naming `where` for a quantizer that is none of NVFP4 with an amax of the tensor alone.
inline void check_headroom(quantizer_numerics const& numerics, std::string const& where) {
  if (!is_two_level(numerics.how.scaling) || !numerics.groups_from_data)
    fail(error_id::format_value, where, ": calibrator: nvfp4_act_headroom is for NVFP4 blocks of type dynamic ",
         "(num_bits [2,1], scale_bits [4,3]), not for ", name_of(numerics.how));
}

template <backend B>
class headroom_calibrator final : public calibrator<B> {
 public:
  static constexpr std::int64_t block = 16;

  explicit headroom_calibrator(calibrator_config config) : config_{std::move(config)} {}

  void observe(B& device, arena& scratch, const_tensor_ref x, partition const&, data_flags* flags) override {
    arena_scope const borrowed{scratch};
    axis_block const last[] = {{-1, block}};
    partition const blocks = blocks_of(x, last);
    auto const count = static_cast<std::size_t>(blocks.group_count());
    auto* const amax = static_cast<float*>(scratch.allocate(count * sizeof(float)));
    device.zero(amax, count * sizeof(float));
    device.amax({x, blocks, amax, flags});
    part_.resize(std::min(count, most_on_host));
    for (std::size_t first = 0; first < count; first += most_on_host) {
      std::size_t const n = std::min(most_on_host, count - first);
      device.copy_to_host(part_.data(), amax + first, n * sizeof(float));
      for (std::size_t i = 0; i < n; ++i) seen_.add(part_[i]);
    }
  }

  std::vector<float> result(B&, quantizer_numerics const&) override {
    auto const found = headroom_of(seen_, config_.number("rho"), config_.number("anchor"), config_.number("upper"));
    note_ = found.has_headroom || found.amax == 0
                ? ""
                : detail::concat("the block amaxes reach so far down that its amax ", found.amax,
                                 " leaves no headroom; raise rho or the anchor");
    return {found.amax};
  }
  bool order_matters() const override { return false; }
  std::string note() const override { return note_; }

 private:
  static constexpr std::size_t most_on_host = std::size_t{1} << 16;

  calibrator_config config_;
  block_amax_histogram seen_;
  std::vector<float> part_;  ///< of the block amaxes: a sixteenth of the data, and never more than most_on_host
  std::string note_;
};

}  // namespace mixbit
