// AWQ (Lin et al. 2024), the search for a scale of the input channels, as ModelOpt computes it.
//
// The scale for an alpha is x_mean^alpha / w_mean^(1-alpha), clamped to [1e-4, 1e4] and divided by sqrt(max · min); x
// is divided by it and W multiplied. A run of the loop yields x_mean, and the alpha with the smallest squared
// difference of the outputs, summed over batches, is taken.
//
// Where the model has a linalg that run also says what outputs make of a change of the weight (calib/output_error.hpp),
// so nothing is run again, and an alpha costs one product of the weight's change with a matrix of in_features². That
// matrix, at most 4 · in_features² bytes, is kept of each layer that the loop reaches, and so of one layer at a time
// under `layerwise`. Where there is no linalg the loop is run once more, in which each layer's op runs once as it is
// and once for each alpha; nothing is kept of a layer then but vectors. Both find the same alphas but for near ties.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "mixbit/calib/host_floats.hpp"
#include "mixbit/calib/pre_quant_scale.hpp"

namespace mixbit {

/// 0, step, 2·step, … up to 1.
inline std::vector<double> awq_alphas(double step) {
  std::vector<double> alphas;
  for (int i = 0; i * step <= 1 + step * 1e-6; ++i) alphas.push_back(std::min(1.0, i * step));
  return alphas;
}

/// The scale by which AWQ multiplies a weight's input channels.
inline std::vector<float> awq_scale(std::vector<double> const& x_mean, std::vector<double> const& w_mean,
                                    double alpha) {
  std::vector<float> scale(x_mean.size());
  float low = std::numeric_limits<float>::infinity(), high = 0;
  for (std::size_t i = 0; i < scale.size(); ++i) {
    double const s = std::pow(x_mean[i], alpha) / (std::pow(w_mean[i], 1 - alpha) + 0x1p-126);
    scale[i] = static_cast<float>(std::clamp(s, 1e-4, 1e4));
    low = std::min(low, scale[i]);
    high = std::max(high, scale[i]);
  }
  auto const middle = static_cast<float>(std::sqrt(double{low} * high));
  for (float& s : scale) s /= middle;
  return scale;
}

/// The mean over rows of |w| / the largest |w| of its block of `block` values of the row. `w` is [rows, width].
inline std::vector<double> awq_weight_mean(std::vector<float> const& w, std::int64_t width, std::int64_t block) {
  std::vector<double> mean(static_cast<std::size_t>(width));
  std::int64_t const rows = static_cast<std::int64_t>(w.size()) / width;
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t first = 0; first < width; first += block) {
      float const* const values = w.data() + r * width;
      std::int64_t const end = std::min(first + block, width);
      float top = 0;
      for (std::int64_t i = first; i < end; ++i) top = std::max(top, std::abs(values[i]));
      float const divisor = top + 0x1p-126f;
      for (std::int64_t i = first; i < end; ++i)
        mean[static_cast<std::size_t>(i)] += std::abs(values[i]) / divisor;
    }
  for (double& m : mean) m /= static_cast<double>(rows);
  return mean;
}

namespace detail {

/// Along the last axis; the whole row where the weight has no blocks. Throws `config_conflict` for blocks of other axes
/// alone.
template <backend B>
std::int64_t awq_block(sequential_quantizer<B> const& q, std::int64_t width) {
  auto const& grouping = q.members().front().numerics().grouping;
  if (grouping.what != grouping_scheme::kind::blocks) return width;
  for (auto const& b : grouping.blocks)
    if (b.axis == -1 || b.axis == 1) return std::min(b.size.value_or(width), width);
  fail(error_id::config_conflict, q.path(), ": AWQ takes blocks along axis -1, and block_sizes has none");
}

/// The search's state of one layer.
template <backend B>
struct awq_search {
  scalable_layer<B> layer;
  channel_statistics seen;
  std::vector<std::vector<float>> scale = {};                    ///< of the input, for each alpha
  std::vector<buffer<B, float>> input_scale = {}, weight_scale = {};  ///< as both operands are multiplied
  std::vector<double> loss;
  std::int64_t batches = 0;
  one_thread thread;

  awq_search(B& device, scalable_layer<B> l, channel_statistics statistics, std::vector<double> const& w_mean,
             std::vector<double> const& alphas)
      : layer{l}, seen{std::move(statistics)}, loss(alphas.size()) {
    for (double const alpha : alphas) {
      auto s = awq_scale(seen.mean, w_mean, alpha);
      for (float& v : s) v = 1.0f / v;
      auto const both = scales_of(s, l.layer.source().type);
      input_scale.push_back(buffer_of(device, both.input));
      weight_scale.push_back(buffer_of(device, both.weight));
      scale.push_back(std::move(s));
    }
  }
  /// The first of the smallest losses.
  std::size_t best() const {
    return static_cast<std::size_t>(std::min_element(loss.begin(), loss.end()) - loss.begin());
  }
};

template <backend B>
void multiply_channels(workspace<B>& ws, const_tensor_ref from, tensor_ref to, buffer<B, float> const& scale) {
  ws.device.scale_channels({from, to, from.rank - 1, static_cast<std::int64_t>(scale.size()), scale.data()});
}

/// Q(W · scale) of the alpha i, with the first of several weight quantizers alone, which is calibrated for it.
template <backend B>
void quantize_trial(workspace<B>& ws, awq_search<B> const& search, std::size_t i, numerics_options const& numerics,
                    tensor_ref wq) {
  multiply_channels(ws, search.layer.layer.source(), wq, search.weight_scale[i]);
  auto const& first = search.layer.weight->members().front();
  tensor_quantizer<B> quantizer{first.name(), first.attributes(), numerics};
  quantizer.observe(ws.device, ws.scratch, wq);
  quantizer.finish(ws.device);
  quantizer.quantize(ws.device, ws.scratch, wq, wq);
}

/// The losses of one layer's alphas from what the first run kept of its inputs, which ends here.
template <backend B>
void search_by_outputs(calibration<B>& c, awq_search<B>& search) {
  workspace_lock<B> const held{c.home};
  const_tensor_ref const source = search.layer.layer.source();
  auto const w = fetch_floats(c.home.device, source);
  std::int64_t const rows = source.shape[0], width = source.shape[1];
  for (std::size_t i = 0; i < search.loss.size(); ++i) {
    arena_scope const borrowed{c.home.scratch};
    tensor_ref const wq = allocate_like(source, c.home.scratch);
    quantize_trial(c.home, search, i, c.numerics, wq);
    auto change = fetch_floats(c.home.device, wq);
    auto const s = scales_of(search.scale[i], source.type).input;
    c.linalg.threads().parallel_for(rows, [&](std::int64_t r) {
      float* const row = change.data() + r * width;
      float const* const before = w.data() + r * width;
      for (std::int64_t k = 0; k < width; ++k) row[k] = row[k] * s[static_cast<std::size_t>(k)] - before[k];
    });
    search.loss[i] = search.seen.outputs->of(c.linalg, dense_matrix<float const>(change.data(), rows, width));
  }
  search.batches = search.seen.batches;
  search.seen.outputs.reset();
}

/// The mean squared difference of two results; infinite where one has NaN or infinities.
template <backend B>
double output_loss(workspace<B>& ws, const_tensor_ref y, const_tensor_ref expected) {
  auto const [total, finite] = reduced_difference<double>(
      ws, y, expected, [&](const_tensor_ref d, partition const& all, double* to, data_flags* f) {
        ws.device.sum({d, all, sum_of::squares, to, f});
      });
  return finite ? total / static_cast<double>(expected.size()) : std::numeric_limits<double>::infinity();
}

/// The second run where there is no linalg: the op's result is what it is unquantized, and each alpha is a trial.
template <backend B>
class awq_pass final : public apply_hook<B> {
 public:
  awq_pass(calibration<B>& c, std::vector<awq_search<B>>& searches)
      : numerics_{c.numerics}, hooked_{c.sites(), *this} {
    for (auto& search : searches) searches_[search.layer.layer.where.get()] = &search;
  }

  void on_apply(site<B>& s, workspace<B>& ws, operands o, erased_op& op, pending<B>*) override {
    tensor_ref const y = s.run_unquantized(ws, o, op);
    auto const at = searches_.find(&s);
    if (at == searches_.end() || trial_scope::is_on() || y.size() == 0) return;
    require_compute(y.type, s.name);
    std::lock_guard const adding{mutex_};
    awq_search<B>& search = *at->second;
    search.thread.claim(s.name);
    ++search.batches;
    for (std::size_t i = 0; i < search.loss.size(); ++i) {
      arena_scope const borrowed{ws.scratch};
      search.loss[i] += output_loss(ws, trial(search, i, s, ws, o, op), y);
    }
  }
  void on_tensor(site<B>& s, workspace<B>& ws, std::size_t index, tensor_ref x) override {
    if (auto const& q = s.quantizers().quantizers[index]; q.transforms()) q.transform(ws.device, x, x);
  }
  bool runs_active_recipe() const override { return false; }

 private:
  /// op(x / scale, Q(W · scale)).
  tensor_ref trial(awq_search<B>& search, std::size_t i, site<B>& s, workspace<B>& ws, operands o, erased_op& op) {
    tensor_ref const x = op.scratch(operand_role::input, ws.scratch);
    tensor_ref const w = op.scratch(operand_role::weight, ws.scratch);
    multiply_channels(ws, s.canonical(operand_role::input, o.x), s.canonical(operand_role::input, x),
                      search.input_scale[i]);
    quantize_trial(ws, search, i, numerics_, s.canonical(operand_role::weight, w));
    return s.call(ws, op, x, w, pass::trial);
  }

  numerics_options numerics_;
  std::unordered_map<site<B> const*, awq_search<B>*> searches_;
  std::mutex mutex_;
  hooked_sites<B> hooked_;
};

/// Why a layer's scale cannot be searched; empty where it can.
inline std::string awq_obstacle(channel_statistics const& seen, std::vector<double> const& w_mean) {
  if (seen.batches == 0) return "saw no data";
  if (seen.nonfinite != 0) return concat("saw ", seen.nonfinite, " NaN or infinite value(s)");
  bool const finite = std::all_of(w_mean.begin(), w_mean.end(), [](double m) { return std::isfinite(m); });
  return finite ? "" : "has NaN or infinite values in its weight";
}

/// The first run, and what the second one is to try.
template <backend B>
std::vector<awq_search<B>> awq_searches(calibration<B>& c, algorithm_step const& step,
                                        std::vector<double> const& alphas) {
  auto const layers = scalable_layers(c, step.method);
  for (auto const& l : layers) (void)awq_block(*l.weight, l.width());  // before anything runs
  remove_scales(c, layers);
  calibrate_weights(c);
  auto seen = collect_statistics(c, layers, step.method, true, c.linalg);
  if (std::none_of(seen.begin(), seen.end(), [](auto const& s) { return s.batches > 0; }))
    fail_unreached(step.method, std::ssize(layers), " layer(s) whose inputs it scales");
  std::vector<awq_search<B>> searches;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    auto const& l = layers[i];
    workspace_lock<B> const held{c.home};
    auto const w_mean =
        awq_weight_mean(fetch_floats(c.home.device, l.layer.source()), l.width(), awq_block(*l.weight, l.width()));
    if (auto const why = awq_obstacle(seen[i], w_mean); !why.empty())
      leave_at_max(c, step.method, l.name(), why);
    else
      searches.emplace_back(c.home.device, l, std::move(seen[i]), w_mean, alphas);
  }
  return searches;
}

}  // namespace detail

/// Chooses a scale for every linear layer whose weight is quantized. A layer without data, or with NaN, stays at max,
/// which a note says; with the step's `debug` notes say each layer's alpha. Runs the loop once where the model has a
/// linalg, otherwise twice. Throws `config_conflict` where there is no such layer, and `state_not_calibrated` without a
/// loop or where it reaches none.
template <backend B>
void calibrate_awq_lite(calibration<B>& c, algorithm_step const& step) {
  auto const alphas = awq_alphas(step.number("alpha_step"));
  auto searches = detail::awq_searches(c, step, alphas);
  if (searches.empty()) return;
  if (c.linalg) {
    for (auto& search : searches) detail::search_by_outputs(c, search);
  } else {
    detail::awq_pass<B> pass{c, searches};
    c.run(step.method);
  }
  if (std::none_of(searches.begin(), searches.end(), [](auto const& s) { return s.batches > 0; }))
    fail(error_id::state_not_calibrated, step.method, ": the forward_loop reached ", searches.size(), " layer(s) at ",
         "first, and none of them when it ran again; give a loop that can be run twice");
  for (auto const& found : searches) {
    std::size_t const best = found.best();
    if (found.batches == 0) {
      detail::leave_at_max(c, step.method, found.layer.name(), "saw no data when the forward_loop ran again");
    } else if (!std::isfinite(found.loss[best])) {
      detail::leave_at_max(c, step.method, found.layer.name(), "has NaN or infinite outputs");
    } else {
      scale_layer(c, found.layer, found.scale[best], found.seen);
      if (step.flag("debug"))
        c.notes.push_back(detail::concat(step.method, ": ", found.layer.name(), " alpha ", alphas[best]));
    }
  }
}

}  // namespace mixbit
