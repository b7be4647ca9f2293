// AWQ's search for a clipped amax of each block of a weight, as ModelOpt computes it.
//
// For each ratio the amax of max calibration is multiplied by it, and the ratio with the smallest error wins, the first
// of several. Weights in calibrated blocks: the error of each block's partial dot products on up to
// max_tokens_per_batch rows or so of each batch (calib/clip_loss.hpp). NVFP4, whose blocks take their scales from the
// data: its one amax, by the error of the layer's output; like awq_lite from what the run keeps of its inputs where the
// model has a linalg, and by its op otherwise. Weights of other formats stay at max.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "mixbit/calib/awq_lite.hpp"
#include "mixbit/calib/clip_loss.hpp"

namespace mixbit {

namespace detail {

/// What the clipping of one layer sees.
template <backend B>
struct clip_watch {
  calibrated_layer<B> layer;
  sequential_quantizer<B>* weight;
  std::optional<clip_grams> blocks;        ///< none: the one amax of the tensor, by the layer's output
  std::vector<double> loss = {};            ///< then
  std::optional<output_error> outputs = {};  ///< then, with a linalg
  std::int64_t batches = 0;
  one_thread thread = {};
};

/// The block along the last axis where each row of a weight has calibrated blocks of its own, 0 elsewhere.
template <backend B>
std::int64_t clip_block(tensor_quantizer<B> const& q, const_tensor_ref w) {
  bool const blocks = q.numerics().grouping.what == grouping_scheme::kind::blocks && !q.numerics().groups_from_data;
  partition const groups = q.grouping(w);
  return blocks && groups.block[0] == 1 ? groups.block[1] : 0;
}

/// Why a layer's weight cannot be clipped; empty where it can. A block's error is that of its own channels, and a
/// rotation mixes them.
template <backend B>
std::string clip_obstacle(calibrated_layer<B> const& layer, sequential_quantizer<B> const& weight) {
  const_tensor_ref const w = layer.source();
  if (layer.where->layout.kind != site_kind::linear || w.rank != 2) return "is no linear layer";
  for (auto const& q : layer.quantizers().quantizers)
    if (q.role() == quantizer_role::input && q.leaves_rotated())
      return concat("rotates its input (", q.leaf(), ".rotate)");
  auto const& member = weight.members().front();
  if (member.numerics().rotate) return concat("rotates its weight (", weight.leaf(), ".rotate)");
  bool const clips = member.needs_calibration() && (member.numerics().groups_from_data || clip_block(member, w) > 0);
  return clips ? "" : "has no weight in calibrated blocks";
}

/// The layers that can be clipped. Throws `config_conflict` where there is none.
template <backend B>
std::vector<clip_watch<B>> clipped_layers(calibration<B>& c, algorithm_step const& step) {
  std::vector<clip_watch<B>> all;
  std::string first;
  auto const ratios = clip_ratios(step.number("min_clip_ratio"), step.number("shrink_step")).size();
  for (auto const& layer : c.layers) {
    auto& s = *layer.where;
    if (s.recipes.empty() || layer.weight.data == nullptr || s.folded) continue;
    auto* const weight = layer.quantizers().find(quantizer_role::weight);
    if (weight == nullptr) continue;
    auto const& member = weight->members().front();
    const_tensor_ref const w = layer.source();
    auto const why = clip_obstacle(layer, *weight);
    if (!why.empty()) {
      leave_at_max(c, step.method, layer.name(), why);
      if (first.empty()) first = concat("; ", layer.name(), " ", why);
    } else if (std::int64_t const block = clip_block(member, w); block > 0) {
      all.push_back({layer, weight, clip_grams{w.shape[1], block}});
    } else {
      all.push_back({layer, weight, std::nullopt, std::vector<double>(ratios)});
      if (c.linalg) all.back().outputs.emplace(w.shape[1]);
    }
  }
  if (all.empty())
    fail(error_id::config_conflict, step.method, ": there is no linear layer whose weight is quantized in blocks",
         first);
  return all;
}

/// Every so-manieth row of x, [rows, width], as the layer's input quantizer scales it.
template <backend B>
std::vector<float> sampled_rows(site<B>& s, workspace<B>& ws, const_tensor_ref x, std::int64_t most) {
  std::int64_t const width = x.shape[x.rank - 1], all = x.size() / width, step = std::max<std::int64_t>(1, all / most);
  std::int64_t const rows = (all + step - 1) / step;
  geometry dense = dense_geometry(x.type, {rows, width});
  dense.where = x.where;
  tensor_ref const sample{dense, ws.scratch.allocate(static_cast<std::size_t>(dense.bytes()))};
  auto const size = static_cast<std::int64_t>(size_of(x.type));
  for (std::int64_t r = 0; r < rows; ++r) {
    std::int64_t left = r * step, offset = 0;
    for (int axis = x.rank - 2; axis >= 0; left /= x.shape[axis--]) offset += left % x.shape[axis] * x.stride[axis];
    geometry row = dense_geometry(x.type, {width});
    row.where = x.where;
    tensor_ref const to{row, static_cast<std::byte*>(sample.data) + r * width * size};
    row.stride[0] = x.stride[x.rank - 1];
    copy_elements(ws.device, ws.scratch, {row, static_cast<std::byte const*>(x.data) + offset * size}, to);
  }
  auto* const q = s.quantizers().acting(quantizer_role::input);
  return fetch_floats(ws.device, q ? q->scaled(ws.device, ws.scratch, sample) : const_tensor_ref{sample});
}

/// Both operands scaled, none quantized.
template <backend B>
void scale_into(workspace<B>& ws, sequential_quantizer<B> const* q, const_tensor_ref from, tensor_ref to) {
  arena_scope const borrowed{ws.scratch};
  copy_elements(ws.device, ws.scratch, q ? q->scaled(ws.device, ws.scratch, from) : from, to);
}

template <backend B>
class clip_pass final : public watching_pass<B, clip_watch<B>> {
  using base = watching_pass<B, clip_watch<B>>;

 public:
  clip_pass(calibration<B>& c, std::vector<clip_watch<B>> layers, std::int64_t tokens, std::vector<double> ratios)
      : base{c, sites_in(layers), std::move(layers)},
        numerics_{c.numerics},
        linalg_{c.linalg},
        tokens_{tokens},
        ratios_{std::move(ratios)} {}

 private:
  static std::vector<std::shared_ptr<site<B>>> sites_in(std::vector<clip_watch<B>> const& layers) {
    std::vector<std::shared_ptr<site<B>>> sites;
    for (auto const& l : layers) sites.push_back(l.layer.where);
    return sites;
  }

  void watch(clip_watch<B>& kept, site<B>& s, workspace<B>& ws, operands o, erased_op& op) override {
    arena_scope const borrowed{ws.scratch};
    kept.thread.claim(s.name);
    const_tensor_ref const x = s.canonical(operand_role::input, o.x);
    check_channels(s.name, x.shape[x.rank - 1], kept.layer.source().shape[1], s.layout.kind);
    if (kept.blocks) {
      kept.blocks->add(sampled_rows(s, ws, x, tokens_));
    } else if (kept.outputs) {
      auto* const q = s.quantizers().acting(quantizer_role::input);
      token_rows<B> const rows{ws.device, q ? q->scaled(ws.device, ws.scratch, x) : x};
      kept.outputs->add(linalg_, rows.rows());
    } else {
      add_output_losses(kept, s, ws, x, op);
    }
    ++kept.batches;
  }

  void add_output_losses(clip_watch<B>& kept, site<B>& s, workspace<B>& ws, const_tensor_ref x, erased_op& op) {
    tensor_ref const xs = op.scratch(operand_role::input, ws.scratch);
    tensor_ref const w = op.scratch(operand_role::weight, ws.scratch), ws_view = s.canonical(operand_role::weight, w);
    scale_into(ws, s.quantizers().acting(quantizer_role::input), x, s.canonical(operand_role::input, xs));
    scale_into(ws, kept.weight, kept.layer.source(), ws_view);
    auto const source = kept_copy(ws, ws_view);
    auto const y = kept_copy(ws, s.call(ws, op, xs, w, pass::trial));
    auto const& first = kept.weight->members().front();
    float const amax = first.amax(ws.device).front();
    tensor_quantizer<B> q{first.name(), first.attributes(), numerics_};
    for (std::size_t i = 0; i < ratios_.size(); ++i) {
      arena_scope const trial{ws.scratch};
      q.set_amax(ws.device, first.groups(), {amax * static_cast<float>(ratios_[i])});
      q.quantize(ws.device, ws.scratch, source, ws_view);
      kept.loss[i] += output_loss(ws, s.call(ws, op, xs, w, pass::trial), y);
    }
  }

  numerics_options numerics_;
  any_linalg linalg_;
  std::int64_t tokens_;
  std::vector<double> ratios_;
};

/// Each block's amax by the smallest loss.
template <backend B>
void clip_blocks(calibration<B>& c, clip_watch<B> const& l, std::vector<double> const& ratios) {
  workspace_lock<B> const held{c.home};
  B& device = c.home.device;
  auto& member = l.weight->members().front();
  const_tensor_ref const w = l.weight->scaled(device, c.home.scratch, l.layer.source());
  tensor_ref const changed = allocate_like(w, c.home.scratch);
  auto const amax = member.amax(device);
  auto const groups = member.groups();
  auto best = amax, tried = amax;
  std::vector<double> least(amax.size(), std::numeric_limits<double>::infinity()), loss(amax.size());
  for (double const ratio : ratios) {
    for (std::size_t i = 0; i < amax.size(); ++i) tried[i] = amax[i] * static_cast<float>(ratio);
    member.set_amax(device, groups, tried);
    arena_scope const borrowed{c.home.scratch};
    member.quantize(device, c.home.scratch, w, changed);
    device.subtract({changed, w, changed});
    l.blocks->losses(fetch_floats(device, changed), loss);
    for (std::size_t i = 0; i < loss.size(); ++i)
      if (loss[i] < least[i]) least[i] = loss[i], best[i] = tried[i];
  }
  member.set_amax(device, groups, best);
  if (auto const blind = std::count(least.begin(), least.end(), std::numeric_limits<double>::infinity()); blind > 0)
    c.notes.push_back(concat(l.layer.name(), ": awq_clip: ", blind, " of ", least.size(),
                             " blocks saw NaN or infinities, so they stay at max"));
}

/// The losses of the ratios of one amax, from what the run kept of the layer's inputs.
template <backend B>
void add_kept_losses(calibration<B>& c, clip_watch<B>& l, std::vector<double> const& ratios) {
  workspace_lock<B> const held{c.home};
  B& device = c.home.device;
  auto const& first = l.weight->members().front();
  const_tensor_ref const w = l.weight->scaled(device, c.home.scratch, l.layer.source());
  tensor_ref const changed = allocate_like(w, c.home.scratch);
  float const amax = first.amax(device).front();
  tensor_quantizer<B> q{first.name(), first.attributes(), c.numerics};
  for (std::size_t i = 0; i < ratios.size(); ++i) {
    arena_scope const borrowed{c.home.scratch};
    q.set_amax(device, first.groups(), {amax * static_cast<float>(ratios[i])});
    q.quantize(device, c.home.scratch, w, changed);
    device.subtract({changed, w, changed});
    auto const change = fetch_floats(device, changed);
    l.loss[i] = l.outputs->of(c.linalg, dense_matrix(change.data(), w.shape[0], w.shape[1]));
  }
}

template <backend B>
void clip_tensor(calibration<B>& c, clip_watch<B>& l, std::vector<double> const& ratios) {
  if (l.outputs) add_kept_losses(c, l, ratios);
  auto& member = l.weight->members().front();
  auto const least = std::min_element(l.loss.begin(), l.loss.end()) - l.loss.begin();
  if (!std::isfinite(l.loss[static_cast<std::size_t>(least)])) {
    c.notes.push_back(l.layer.name() + ": awq_clip: its outputs are not finite, so its weight stays at max");
    return;
  }
  float const ratio = static_cast<float>(ratios[static_cast<std::size_t>(least)]);
  float const amax = member.amax(c.home.device).front();
  member.set_amax(c.home.device, member.groups(), {amax * ratio});
}

}  // namespace detail

/// Clips the weight of every linear layer that has it in blocks, or in NVFP4. Of a sequence the first member is
/// clipped; a layer without data stays at max, and so do blocks whose data has NaN or infinities: notes say so. Runs
/// the loop once. Throws `config_conflict` where there is no such layer, and `state_not_calibrated` without a loop or
/// where it reaches none.
template <backend B>
void calibrate_awq_clip(calibration<B>& c, algorithm_step const& step) {
  auto layers = detail::clipped_layers(c, step);
  calibrate_weights(c);
  auto const ratios = clip_ratios(step.number("min_clip_ratio"), step.number("shrink_step"));
  auto seen = [&] {
    detail::clip_pass<B> pass{c, std::move(layers), step.integer("max_tokens_per_batch"), ratios};
    c.run(step.method);
    return std::move(pass.finish(c.home));
  }();
  if (std::none_of(seen.begin(), seen.end(), [](auto const& l) { return l.batches > 0; }))
    detail::fail_unreached(step.method, std::ssize(seen), " layer(s) whose weight it clips");
  for (auto& l : seen)
    if (l.batches == 0)
      detail::leave_at_max(c, step.method, l.layer.name(), "saw no data");
    else if (l.blocks)
      detail::clip_blocks(c, l, ratios);
    else
      detail::clip_tensor(c, l, ratios);
}

/// awq_lite, and then awq_clip on what it has scaled.
template <backend B>
void calibrate_awq_full(calibration<B>& c, algorithm_step const& step) {
  calibrate_awq_lite(c, step);
  calibrate_awq_clip(c, step);
}

}  // namespace mixbit
