// What a pass over calibration data says of each input channel: the largest |x|, and the mean of |x| over its batches.
//
// While it is on, everything that max calibrates is calibrated too (calib/max.hpp), so that the algorithms built on it
// need no pass of their own for that. Statistics are kept per layer: vectors, whatever the data; and, where it is asked
// for, what says how outputs change with the weight (calib/output_error.hpp).
//
// Threads: a mean depends on the order of its batches, so one thread shows a layer all of its data (`state_busy`).
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <vector>

#include "mixbit/calib/host_floats.hpp"
#include "mixbit/calib/max_algorithm.hpp"
#include "mixbit/calib/one_thread.hpp"
#include "mixbit/calib/output_error.hpp"

namespace mixbit {

/// Of one layer's inputs, by channel, in the order of the last axis.
struct channel_statistics {
  std::vector<float> amax;
  std::vector<double> mean;  ///< of the batches' means of |x|, each batch counting alike
  std::int64_t batches = 0;  ///< that had rows
  std::uint64_t nonfinite = 0;
  std::optional<output_error> outputs = {};
};

namespace detail {

/// A max calibration in which watched layers are handed their operands as well. Derived classes say what they do with
/// them; `Watch` is what they keep of a layer.
template <backend B, class Watch>
class watching_pass : public apply_hook<B> {
 public:
  watching_pass(calibration<B>& c, std::vector<std::shared_ptr<site<B>>> watched, std::vector<Watch> watches)
      : max_{c.sites(), c.every_recipe, c.calibrators},
        notes_{c.notes},
        watches_{std::move(watches)},
        hooked_{std::move(watched), *this} {}
  void on_apply(site<B>& s, workspace<B>& ws, operands o, erased_op& op, pending<B>* kept) override {
    max_.on_apply(s, ws, o, op, kept);
    if (trial_scope::is_on()) return;  // inside another layer's probe: the data is not the host's
    if (o.x.size() == 0) return;       // an expert without tokens
    std::lock_guard const adding{mutex_};
    watch(watches_[hooked_.place(s)], s, ws, o, op);
  }
  void on_tensor(site<B>& s, workspace<B>& ws, std::size_t index, tensor_ref x) override {
    max_.on_tensor(s, ws, index, x);
  }
  bool runs_active_recipe() const override { return false; }

  /// Ends the max calibration.
  std::vector<Watch>& finish(workspace<B>& ws) {
    for (auto& note : max_.share(ws)) notes_.push_back(std::move(note));
    return watches_;
  }

 protected:
  ~watching_pass() = default;
  /// One call's operands; the input has elements.
  virtual void watch(Watch& kept, site<B>& s, workspace<B>& ws, operands o, erased_op& op) = 0;

 private:
  max_calibration<B> max_;
  std::vector<std::string>& notes_;
  std::vector<Watch> watches_;
  std::mutex mutex_;
  hooked_sites<B> hooked_;  ///< over the max calibration's hook
};

template <backend B>
struct channel_watch {
  buffer<B, float> amax;
  buffer<B, data_flags> flags;
  channel_statistics seen;
  one_thread thread;
};

}  // namespace detail

/// The pass itself: a hook on every site from its construction to its end.
template <backend B>
class input_statistics final : public detail::watching_pass<B, detail::channel_watch<B>> {
  using watch_type = detail::channel_watch<B>;
  using base = detail::watching_pass<B, watch_type>;

 public:
  /// Of linear layers with weights of these widths; with `means`, otherwise amaxes alone. Given products, also what
  /// outputs say.
  input_statistics(calibration<B>& c, std::vector<std::shared_ptr<site<B>>> layers,
                   std::vector<std::int64_t> const& widths, bool means, any_linalg products)
      : base{c, std::move(layers), watches(c.home.device, widths, static_cast<bool>(products))},
        means_{means},
        products_{std::move(products)} {}

  /// Ends the pass's calibrations and reads the statistics back, in the order of the layers.
  std::vector<channel_statistics> read(workspace<B>& ws) {
    std::vector<channel_statistics> all;
    for (auto& w : base::finish(ws)) {
      data_flags flags;
      ws.device.copy_to_host(w.seen.amax.data(), w.amax.data(), w.seen.amax.size() * sizeof(float));
      ws.device.copy_to_host(&flags, w.flags.data(), sizeof flags);
      w.seen.nonfinite = flags.nonfinite;
      for (double& m : w.seen.mean) m /= static_cast<double>(w.seen.batches > 0 ? w.seen.batches : 1);
      all.push_back(std::move(w.seen));
    }
    return all;
  }

 private:
  static std::vector<watch_type> watches(B& device, std::vector<std::int64_t> const& widths, bool outputs) {
    std::vector<watch_type> all;
    for (auto const width : widths) {
      auto const n = static_cast<std::size_t>(width);
      all.push_back({{device, n}, {device, 1}, {std::vector<float>(n), std::vector<double>(n), 0, 0, {}}, {}});
      if (outputs) all.back().seen.outputs.emplace(width);
    }
    return all;
  }

  void watch(watch_type& kept, site<B>& s, workspace<B>& ws, operands o, erased_op&) override {
    arena_scope const borrowed{ws.scratch};
    const_tensor_ref const x = s.canonical(operand_role::input, o.x);
    std::size_t const width = kept.seen.amax.size();
    detail::check_channels(s.name, x.shape[x.rank - 1], static_cast<std::int64_t>(width), s.layout.kind);
    int const last = x.rank - 1;
    partition const channels = per_axes(x, {&last, 1});
    ws.device.amax({x, channels, kept.amax.data(), kept.flags.data()});
    ++kept.seen.batches;
    if (!means_) return;
    kept.thread.claim(s.name);
    auto* const sums = static_cast<double*>(ws.scratch.allocate(width * sizeof(double)));
    ws.device.zero(sums, width * sizeof(double));
    ws.device.sum({x, channels, sum_of::magnitudes, sums, nullptr});
    std::vector<double> batch(width);
    ws.device.copy_to_host(batch.data(), sums, width * sizeof(double));
    auto const rows = static_cast<double>(x.size() / static_cast<std::int64_t>(width));
    for (std::size_t i = 0; i < width; ++i) kept.seen.mean[i] += batch[i] / rows;
    if (kept.seen.outputs) kept.seen.outputs->add(products_, token_rows<B>{ws.device, x}.rows());
  }

  bool means_;
  any_linalg products_;
};

}  // namespace mixbit
