// The calibrator "histogram": a streaming histogram a group, and an amax from it by entropy, mse or percentile.
//
// Whole tensors and kept axes (a weight's channels) have one; blocks of a given size do not: a block of 128 elements
// has too few values for 2048 bins, and a weight too many blocks. Entropy compares distributions over equal steps, so
// it is for integers; mse is for formats whose scale is amax over a constant.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "mixbit/calib/histogram.hpp"
#include "mixbit/calib/histogram_amax.hpp"
#include "mixbit/core/span_of.hpp"
#include "mixbit/quantizer/calibrator.hpp"

namespace mixbit {

/// Throws `format_value` naming `where` for a quantizer whose amax this method does not find.
inline void check_histogram(calibrator_config const& config, quantizer_numerics const& numerics,
                            std::string const& where) {
  auto const refuse = [&](auto const&... why) { fail(error_id::format_value, where, ": calibrator: ", why...); };
  for (auto const& block : numerics.calibrated().blocks)
    if (block.size) refuse("a histogram is of whole tensors or channels, not of blocks of ", *block.size);
  if (config.method() == "entropy" && numerics.how.element.kind != element_kind::integer)
    refuse("method entropy is for integers, not for ", name_of(numerics.how.element), "; use mse or percentile");
  if (config.method() == "mse" && (numerics.groups_from_data || numerics.how.scaling != scale_rule::ratio))
    refuse("method mse is for scales that are a ratio, not for ", name_of(numerics.how.scaling), "; use percentile");
}

/// The amax of one group by `config.method()`; 0 for a group of zeros. `quantize` is for mse alone.
inline float histogram_amax(binned_counts const& h, calibrator_config const& config, format const& how,
                            quantize_centers quantize) {
  if (h.width == 0) return 0;
  if (config.method() == "percentile") return h.edge(percentile_bin(h.counts, config.number("percentile")));
  if (config.method() == "entropy") return h.edge(entropy_bin(h.counts, how.element.bits, how.element.is_unsigned));
  std::vector<float> centers(h.counts.size());
  for (std::size_t b = 0; b < centers.size(); ++b) centers[b] = h.center(b);
  return centers[mse_bin(h.counts, detail::span_of(centers), quantize)];
}

/// Rounds centres as a format does, by the backend's own kernel.
template <backend B>
class center_kernel {
 public:
  center_kernel(B& device, format const& how) : device_{device}, how_{how} {}

  void operator()(std::span<float const> amaxes, std::span<float const> centers, std::span<float> rounded) {
    if (rounded.size() > y_.size()) x_ = {device_, rounded.size()}, y_ = {device_, rounded.size()};
    if (amaxes.size() > amax_.size()) amax_ = {device_, amaxes.size()};
    for (std::size_t row = 0; row < amaxes.size(); ++row)
      device_.copy_from_host(x_.data() + row * centers.size(), centers.data(), centers.size_bytes());
    device_.copy_from_host(amax_.data(), amaxes.data(), amaxes.size_bytes());
    geometry const shape = dense_geometry(
        dtype::f32, {static_cast<std::int64_t>(amaxes.size()), static_cast<std::int64_t>(centers.size())});
    int const rows[] = {0};
    device_.fake_quantize({const_tensor_ref{shape, x_.data()}, tensor_ref{shape, y_.data()}, per_axes(shape, rows),
                           amax_.data(), how_});
    device_.copy_to_host(rounded.data(), y_.data(), rounded.size_bytes());
  }

 private:
  B& device_;
  format how_;
  buffer<B, float> x_, y_, amax_;
};

template <backend B>
class histogram_calibrator final : public calibrator<B> {
 public:
  /// `config` is a valid one.
  explicit histogram_calibrator(calibrator_config config)
      : config_{std::move(config)}, histogram_{static_cast<std::int64_t>(config_.number("bins"))} {}

  void observe(B& device, arena& scratch, const_tensor_ref x, partition const& groups, data_flags* flags) override {
    histogram_.observe(device, scratch, x, groups, flags);
  }

  std::vector<float> result(B& device, quantizer_numerics const& of) override {
    std::vector<float> amax(histogram_.ranges().size());
    note_.clear();
    std::size_t vanished = 0;
    center_kernel<B> rounding{device, of.how};
    histogram_.for_each(device, [&](std::size_t g, binned_counts const& h) {
      amax[g] = histogram_amax(h, config_, of.how, rounding);
      if (amax[g] == 0 && h.width > 0) ++vanished;
    });
    if (vanished != 0)
      note_ = detail::concat("the amax of ", vanished, " group(s) is 0 though not all of their values are: the lowest ",
                             "bin has all that the percentile asks for");
    else say_where_coarse();
    return amax;
  }
  std::string note() const override { return note_; }

  streaming_histogram<B> const& histogram() const { return histogram_; }

 private:
  void say_where_coarse() {
    for (auto const& r : histogram_.ranges()) {
      if (!r.coarse) continue;
      note_ = detail::concat("the range of its histogram grew from ", r.first_top, " to ", r.top, ", more than ",
                             histogram_ranges::most_growth, " times, so bins were made one and are ", r.width, " wide");
      return;
    }
  }

  calibrator_config config_;
  streaming_histogram<B> histogram_;
  std::string note_;
};

}  // namespace mixbit
