// Making the layers of a group share state, as a kernel that runs them as one needs it. They read one input, so they
// get one amax for it and one pre_quant_scale; their weights become one, so these get one tensor-level amax.
//
// An amax becomes the largest of the group's. A pre_quant_scale becomes the mean, and each weight is scaled by its
// inverse and calibrated by max anew: ModelOpt's preprocess_linear_fusion. The largest input amax still covers the
// input: max(|x| · mean(s)) <= mean(max(|x| · s)). An algorithm whose amaxes a new scale undoes (awq_clip), or that
// rewrites weights under their scales (gptq), is better run between:
//
//   "algorithm": ["awq_lite", "share_state", "awq_clip", "share_state"]
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "mixbit/calib/shared_groups.hpp"
#include "mixbit/quantizer/largest_amax.hpp"

namespace mixbit {

namespace detail {

/// Quantizers as they are to become, beside those that they replace.
template <backend B>
class quantizer_changes {
 public:
  explicit quantizer_changes(calibration<B>& c) : c_{c} {}

  /// What takes the place of q: a copy of it at first.
  sequential_quantizer<B>& of(sharing_layer<B> const& l, sequential_quantizer<B>& q) {
    for (auto& each : changes_)
      if (each.place == &q) return *each.next;
    auto next = std::make_unique<sequential_quantizer<B>>(q.copy(c_.home.device, c_.numerics));
    changes_.push_back({l.layer.where, &q, std::move(next)});
    return *changes_.back().next;
  }
  /// The same without a copy where there is no change.
  sequential_quantizer<B> const& now(sequential_quantizer<B> const& q) const {
    for (auto const& each : changes_)
      if (each.place == &q) return *each.next;
    return q;
  }
  void commit() {
    for (auto& each : changes_) {  // nothing throws
      *each.place = std::move(*each.next);
      each.where->cache.valid = false;
      each.where->refresh();
    }
  }

 private:
  struct change {
    std::shared_ptr<site<B>> where;
    sequential_quantizer<B>* place;
    std::unique_ptr<sequential_quantizer<B>> next;
  };
  calibration<B>& c_;
  std::vector<change> changes_;
};

template <backend B>
bool saw_data(sharing_layer<B> const& l) {
  return l.input == nullptr || l.input->ready();
}

template <backend B>
void require_ready(sharing_layer<B> const& l, bool input_may_wait) {
  for (auto const* q : {l.input, l.weight})
    if (q && !q->ready() && !(q == l.input && input_may_wait))
      fail(error_id::state_not_calibrated, q->path(), ": saw no data and has no state to share; calibrate it before");
}

/// Can the layers of a group share state at all? `input_may_wait`: an input that saw no data becomes something later.
template <backend B>
void require_alike(sharing_group<B> const& group, bool input_may_wait) {
  for (auto const& l : group) {
    if (!l.is_quantized() && !group.front().is_quantized())
      fail(error_id::config_conflict, "share_state: ", l.name(), " is not quantized: it has no state to share");
    if (auto const d = format_difference(group.front(), l))
      fail(error_id::config_conflict, "share_state: ", d->text(), "; layers of one kernel have one format");
    if (l.layer.where->folded)
      fail(error_id::state_folded, l.name(), ": fold_weight has replaced this weight by its quantized values, so its ",
           "scales cannot be shared any more");
    l.layer.where->refuse_packed("so its scales cannot be shared any more");
    require_ready(l, input_may_wait);
    if (l.input == nullptr || !l.input->enabled()) continue;
    for (auto const& m : l.input->members())
      if (m.bias() && m.bias()->is_static())
        fail(error_id::config_conflict, m.name(), ": has a calibrated bias, which is each layer's own; its amax is of ",
             "what is left beside it and cannot be shared");
  }
}

template <backend B>
std::vector<float> mean_scale(B& device, sharing_group<B> const& group) {
  std::vector<double> sum;
  for (auto const& l : group) {
    auto const s = l.scale(device);
    sum.resize(s.size());
    for (std::size_t i = 0; i < s.size(); ++i) sum[i] += s[i];
  }
  std::vector<float> mean;
  for (double const s : sum) mean.push_back(static_cast<float>(s / static_cast<double>(group.size())));
  return mean;
}

/// Have they different scales? Throws `config_conflict` where they cannot become one: of different widths, of inputs
/// alone, and of weights that were rewritten under their own.
template <backend B>
bool scales_differ(B& device, sharing_group<B> const& group) {
  auto const& leader = group.front();
  auto const first = leader.scale(device);
  bool differ = false;
  for (auto const& l : group) {
    auto const s = l.scale(device);
    if (s.size() != first.size())
      fail(error_id::config_conflict, "share_state: the pre_quant_scale of ", leader.name(), " has ", first.size(),
           " values and that of ", l.name(), ' ', s.size(), "; layers of one input have one width, and all of them a ",
           "scale or none");
    differ = differ || s != first;
  }
  for (auto const& l : group) {
    if (!differ) break;
    if (l.layer.quantizers().weight || l.layer.quantizers().branch)
      fail(error_id::config_conflict, "share_state: ", l.name(), " has a weight that gptq or svdquant rewrote under ",
           "a pre_quant_scale that is not its group's; share the scales before that step");
    if (l.weight == nullptr || !l.weight->has_pre_quant_scale())
      fail(error_id::config_conflict, "share_state: ", l.name(), " has a pre_quant_scale on its input and none on its ",
           "weight, so another would change what the layer computes");
  }
  return differ;
}

/// Shows the weight to a quantizer that was made anew.
template <backend B>
void calibrate_by_max(calibration<B>& c, sequential_quantizer<B>& q, const_tensor_ref w) {
  for (auto& member : q.members()) {
    if (!member.needs_calibration()) continue;
    member.forget();
    observer_group<B> g{&q, {&member}};
    if (member.needs_calibrator())
      g.by = c.calibrators.make({member.numerics().calibrator, member.numerics(), member.name()});
    observe_first<B>(g, c.home, w);
    finish_group(g, c.home.device, c.notes);
  }
}

/// "a.{b,c} d.{e,f}"
inline std::vector<grouping_rule> rules_of(std::string const& text) {
  std::vector<grouping_rule> rules;
  for (auto const word : split(text, ' '))
    if (!word.empty()) rules.push_back(std::string{word});
  return rules;
}

/// One pre_quant_scale for the inputs, its inverse for the weights.
template <backend B>
void share_scale(calibration<B>& c, sharing_group<B> const& group, quantizer_changes<B>& changes) {
  B& device = c.home.device;
  if (!scales_differ(device, group)) return;
  auto const mean = mean_scale(device, group);
  auto const scales = scales_of(mean, group.front().layer.source().type);
  for (auto const& l : group) {
    if (l.scale(device) == scales.input) continue;
    changes.of(l, *l.input).set_pre_quant_scale(device, scales.input);
    auto& weight = changes.of(l, *l.weight);
    weight.set_pre_quant_scale(device, scales.weight);
    if (!weight.enabled()) continue;
    calibrate_by_max(c, weight, l.layer.source());
    c.notes.push_back("share_state: " + l.name() +
                      " takes the mean pre_quant_scale of its group; its weight is calibrated by max under it");
  }
}

template <backend B>
void share_input_amax(calibration<B>& c, sharing_group<B> const& group, quantizer_changes<B>& changes) {
  B& device = c.home.device;
  auto const& first = *group.front().input;
  for (std::size_t m = 0; m < first.members().size(); ++m) {
    std::vector<tensor_quantizer<B> const*> all;
    for (auto const& l : group) all.push_back(&l.input->members()[m]);
    auto const top = named("share_state", [&] { return largest_amax<B>(device, all, error_id::config_conflict); });
    if (std::all_of(all.begin(), all.end(), [&](auto const* q) { return q->amax(device) == top; })) continue;
    partition const groups = first.members()[m].groups();
    for (auto const& l : group) changes.of(l, *l.input).members()[m].set_amax(device, groups, top);
  }
}

/// The member's amax of the whole weight becomes `value`; those of blocks stay.
template <backend B>
void set_whole_amax(B& device, tensor_quantizer<B>& member, float value) {
  if (is_two_level(member.numerics().how.scaling) && !member.numerics().groups_from_data)
    member.hold_tensor_amax(device, value);
  else
    member.set_amax(device, member.groups(), {value});
}

template <backend B>
void share_weight_amax(calibration<B>& c, sharing_group<B> const& group, quantizer_changes<B>& changes) {
  B& device = c.home.device;
  for (std::size_t m = 0; m < group.front().weight->members().size(); ++m) {
    std::vector<float> values;
    for (auto const& l : group) {
      auto const& member = changes.now(*l.weight).members()[m];
      if (has_whole_amax(member)) values.push_back(member.tensor_amax(device, l.layer.source()));
    }
    if (values.size() < group.size()) continue;  // each channel or block has its own
    float const top = *std::max_element(values.begin(), values.end());
    for (std::size_t i = 0; i < group.size(); ++i) {
      if (values[i] == top) continue;
      auto const& l = group[i];
      set_whole_amax(device, changes.of(l, *l.weight).members()[m], top);
      if (l.layer.quantizers().weight)
        c.notes.push_back("share_state: " + l.name() +
                          " has a rewritten weight, which is now rounded to the grid of its group's weight amax");
    }
  }
}

/// Those of a group whose inputs have something to share.
template <backend B>
sharing_group<B> those_with_data(sharing_group<B> const& group) {
  sharing_group<B> some;
  for (auto const& l : group)
    if (saw_data(l)) some.push_back(l);
  return some;
}

/// An input without data takes no part; all weights do, which need none.
template <backend B>
void share_within(calibration<B>& c, std::vector<sharing_group<B>> const& found, shared_fields const& what) {
  auto const notes = c.notes.size();
  try {
    quantizer_changes<B> changes{c};
    for (auto const& group : found) {
      auto const seen = those_with_data(group);
      if (what.pre_quant_scale && seen.size() > 1) share_scale(c, seen, changes);
      if (what.input_amax && seen.size() > 1 && seen.front().input && seen.front().input->enabled())
        share_input_amax(c, seen, changes);
      auto const* const weight = group.front().weight;
      if (what.weight_amax && weight && weight->enabled()) share_weight_amax(c, group, changes);
    }
    changes.commit();
  } catch (...) {
    c.notes.resize(notes);
    throw;
  }
}

/// Of groups some of whose inputs saw no data: whether they share when the calibration ends.
template <backend B>
void note_unshared_at_end(calibration<B>& c, std::vector<layer_group> waiting, shared_fields const& what) {
  if (waiting.empty()) return;
  c.at_end.push_back([waiting = std::move(waiting), what](calibration<B>& at_end) {
    for (auto const& group : unshared_groups(at_end, waiting, what))
      for (auto const& d : group.differences)
        at_end.notes.push_back("share_state: " + d.text() + "; not all of their group saw data to share");
  });
}

}  // namespace detail

/// Makes the layers of each group share what `what` says. Notes name layers whose weight was calibrated by max under a
/// new scale. Throws, before anything is changed: `config_no_match` and `config_conflict` for groups that name no
/// layer, one twice or fewer than two; `config_conflict` for layers of different formats or widths, for one that is not
/// quantized, and for one whose weight was rewritten under a scale of its own; `state_not_calibrated`; `state_folded`.
template <backend B>
void share_state(calibration<B>& c, std::vector<layer_group> const& groups, shared_fields const& what = {}) {
  workspace_lock<B> const held{c.home};
  auto const found = detail::find_groups(c.layers, groups, "share_state");
  for (auto const& group : found) detail::require_alike(group, false);
  detail::share_within(c, found, what);
}

/// The same as a step of a config's algorithm. `groups` are grouping rules with blanks between them, what runtimes fuse
/// where it is empty. Inputs that saw no data, an expert's without tokens, are left to model_options::unseen; their
/// groups that do not share in the end have a note. Throws `config_no_match` for rules of the config's own that put
/// no layers together, and `config_conflict` in a layerwise calibration, which sees one layer at a time.
template <backend B>
void calibrate_shared_state(calibration<B>& c, algorithm_step const& step) {
  if (step.flag("layerwise"))
    fail(error_id::config_conflict, "share_state: takes the layers of a group together, so it cannot be layerwise");
  std::string const text = step.text("groups");
  auto const groups = layer_groups(c.layers, text.empty() ? fused_layer_rules() : detail::rules_of(text));
  if (groups.empty() && !text.empty())
    fail(error_id::config_no_match, "share_state: no quantized layers form a group by \"", text, '"');
  if (groups.empty()) c.notes.push_back("share_state: the model has no layers that runtimes fuse");
  shared_fields const what{step.flag("input_amax"), step.flag("weight_amax"), step.flag("pre_quant_scale")};
  workspace_lock<B> const held{c.home};
  auto const found = detail::find_groups(c.layers, groups, "share_state");
  std::vector<layer_group> waiting;
  for (std::size_t i = 0; i < found.size(); ++i) {
    detail::require_alike(found[i], c.ran);
    if (!std::all_of(found[i].begin(), found[i].end(), detail::saw_data<B>)) waiting.push_back(groups[i]);
  }
  detail::share_within(c, found, what);
  detail::note_unshared_at_end(c, std::move(waiting), what);
}

}  // namespace mixbit
