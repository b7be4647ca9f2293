// Folding pre_quant_scales into the operation before: of y = (x · s) (W / s)ᵀ the factor s goes into the weight of the
// norm or linear layer that makes x, so that inference multiplies no input. SmoothQuant and AWQ choose s.
//
// Here, unlike in calibration, the host's weights are written: the preceding one times s, the consumers' times 1/s -
// the weight that was quantized all along - and the quantizers have no scale any more. So the host computes the same
// as before up to rounding, quantized or not. It cannot be undone. Source: ModelOpt's fuse_prequant_layernorm and
// fuse_prequant_to_linear.
#pragma once

#include <cmath>
#include <cstddef>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "mixbit/calib/shared_state.hpp"
#include "mixbit/core/name_index.hpp"
#include "mixbit/model/preceding_op.hpp"
#include "mixbit/model/quantize.hpp"

namespace mixbit {

struct fold_report {
  int folded = 0;  ///< operations that took a scale
  std::vector<std::string> notes;
};

namespace detail {

/// One folding of a model: everything is checked and made while it is built, and `commit` only writes.
template <backend B>
class scale_folding {
 public:
  explicit scale_folding(calibration<B>& c) : c_{c}, changes_{c}, taken_by_(c.layers.size()) {
    for (auto const& l : c.layers) {
      by_name_.add(l.name(), by_place_.size());
      by_place_.push_back(sharing_layer<B>{l});
      if (l.weight.data != nullptr) users_[l.weight.data].push_back(l.name());
    }
  }

  /// Throws what is wrong with what the host says. Returns whether there is a scale to fold. `op` has to outlive this.
  bool add(preceding_op const& op) {
    std::vector<sharing_layer<B>> consumers;
    if (op.consumers.empty()) fail(error_id::config_conflict, op.name, ": no consumers are given of its output");
    for (auto const& name : op.consumers) consumers.push_back(consumer(op, name));
    auto const scale = common_scale(op, consumers);
    if (scale.empty()) return false;
    for (auto const& l : consumers) require_scalable(op, l);
    std::vector<std::string> outside;  // tensors that no walk shows
    if (op.weight.data != nullptr) {
      if (!written_.insert(op.weight.data).second)
        fail(error_id::config_conflict, op.name, ": its weight is given for two operations; name all consumers in one");
      scale_vector(op, op.weight, "weight", scale);
      outside.push_back(op.name + ".weight");
    } else {
      scale_linear(op, scale);
    }
    if (op.bias.data != nullptr) {
      if (!written_.insert(op.bias.data).second)
        fail(error_id::config_conflict, op.name, ": its bias is given for two operations; name all consumers in one");
      scale_vector(op, op.bias, "bias", scale);
      outside.push_back(op.name + ".bias");
    }
    for (auto const& l : consumers) take_scale(l, outside);
    return true;
  }

  /// Behind the last `add`: until then a consumer that is itself an operation is calibrated under its scale.
  void drop_scales() {
    for (auto const& l : scaled_) {
      changes_.of(l, *l.input).set_pre_quant_scale(c_.home.device, {});
      if (l.weight != nullptr) changes_.of(l, *l.weight).set_pre_quant_scale(c_.home.device, {});
    }
  }

  /// Each result is computed once in scratch memory, of all the writes to it: one that is not finite must leave all as
  /// it is. Throws `format_value` naming it.
  void try_writes() {
    std::set<void const*> tried;
    for (auto& w : writes_) {
      if (!tried.insert(w.target.data).second) continue;
      workspace_lock<B> const held{c_.home};
      tensor_ref const y = allocate_like(w.target, c_.home.scratch);
      const_tensor_ref from = w.target;
      for (auto& part : writes_) {
        if (part.target.data != w.target.data) continue;
        run(part, from, y);
        from = y;
      }
      auto* const amax = static_cast<float*>(c_.home.scratch.allocate(sizeof(float)));
      auto* const flags = static_cast<data_flags*>(c_.home.scratch.allocate(sizeof(data_flags)));
      c_.home.device.zero(amax, sizeof *amax);
      c_.home.device.zero(flags, sizeof *flags);
      c_.home.device.amax({y, per_tensor(y), amax, flags});
      data_flags seen;
      c_.home.device.copy_to_host(&seen, flags, sizeof seen);
      if (seen.nonfinite != 0)
        fail(error_id::format_value, w.what, ": ", seen.nonfinite, " value(s) would not be finite as ",
             name_of(w.target.type), " with the scales folded into them");
    }
  }

  void commit() {
    workspace_lock<B> const held{c_.home};
    for (auto& w : writes_) run(w, w.target, w.target);
    changes_.commit();
    for (auto& [where, tensors] : marks_) {
      where->quantizers().absorbed_scale.clear();
      where->scales_folded_into.insert(tensors.begin(), tensors.end());
    }
    for (auto const& where : touched_) {
      where->cache.valid = false;  // of a weight that was rewritten
      ++where->generation;         // a quantizer_guard would put back quantizers of the weight before
      where->refresh();
    }
  }

 private:
  /// target *= factors along an axis.
  struct write {
    std::string what;
    tensor_ref target;
    int axis;
    buffer<B, float> factors;
  };

  sharing_layer<B> const& consumer(preceding_op const& op, std::string const& name) {
    std::size_t const place = by_name_.find(name);
    if (place == name_index::none)
      fail(error_id::config_no_match, op.name, ": the model has no layer '", name, "' to be its consumer");
    if (auto const* const other = std::exchange(taken_by_[place], &op); other != nullptr)
      fail(error_id::config_conflict, op.name, ": ", name, " is a consumer of ", other->name, " already");
    return by_place_[place];
  }

  /// Empty where no consumer has one. Throws `config_conflict` where they differ.
  std::vector<float> common_scale(preceding_op const& op, std::vector<sharing_layer<B>> const& consumers) {
    auto const first = consumers.front().scale(c_.home.device);
    for (auto const& l : consumers) {
      auto const s = l.scale(c_.home.device);
      if (s == first) continue;
      if (s.empty() != first.empty())
        fail(error_id::config_conflict, op.name, ": ", (s.empty() ? l : consumers.front()).name(),
             " has no pre_quant_scale and ", (s.empty() ? consumers.front() : l).name(), " has one; what one ",
             "operation feeds has one scale (share_state)");
      fail(error_id::config_conflict, op.name, ": its consumers ", consumers.front().name(), " and ", l.name(),
           " have different pre_quant_scales, and it can take one (share_state makes them one)");
    }
    return first;
  }

  void require_one_user(std::string const& op, calibrated_layer<B> const& l) const {
    for (auto const& user : users_.at(l.weight.data))
      if (user != l.name())
        fail(error_id::config_conflict, op, ": ", l.name(), " and ", user, " share one weight, which cannot be ",
             "rewritten for one of them");
  }

  /// Of consumers and preceding layers, both of whose weights are written.
  void require_writable(std::string const& op, calibrated_layer<B> const& l) const {
    if (l.where->folded)
      fail(error_id::state_folded, op, ": fold_weight has replaced the weight of ", l.name(), " by its quantized ",
           "values; fold scales before");
    detail::named(op, [&] { l.where->refuse_packed("under its scales; fold them before"); });
    if (l.where->recipes.size() > 1)
      fail(error_id::config_conflict, op, ": ", l.name(), " holds ", l.where->recipes.size(), " recipes of a search, ",
           "which are calibrated for its weight as it is; quantize or apply a plan before");
    if (l.weight.data == nullptr)
      fail(error_id::config_conflict, op, ": the walk gives no weight of ", l.name());
    if (auto const* const q = l.where->recipes.empty() ? nullptr : l.quantizers().find(quantizer_role::weight))
      detail::named(op, [&] { q->refuse_learning("folding scales"); });
    require_one_user(op, l);
  }

  void require_scalable(preceding_op const& op, sharing_layer<B> const& l) const {
    require_writable(op.name, l.layer);
    bool const absorbed = !l.layer.quantizers().absorbed_scale.empty();
    if (!absorbed && (l.weight == nullptr || !l.weight->has_pre_quant_scale()))
      fail(error_id::config_conflict, op.name, ": ", l.name(), " has a pre_quant_scale on its input and none on its ",
           "weight, so dropping it would change what the layer computes");
  }

  void add_write(std::string what, tensor_ref target, int axis, std::vector<float> const& factors) {
    writes_.push_back({std::move(what), target, axis, buffer_of(c_.home.device, factors)});
  }

  void scale_vector(preceding_op const& op, tensor_ref const& t, char const* what, std::vector<float> const& scale) {
    auto const width = static_cast<std::int64_t>(scale.size());
    int axis = t.rank - 1;
    for (int a = 0; a < t.rank; ++a)
      if (t.shape[a] == width) axis = a;
    if (t.size() != width || axis < 0 || t.shape[axis] != width)
      fail(error_id::tensor_shape, op.name, ": its ", what, " is ", to_string(t), ", and the consumers have ", width,
           " inputs");
    if (t.where != B::place)
      fail(error_id::tensor_layout, op.name, ": its ", what, " is in ", name_of(t.where), " memory, and the backend ",
           "computes in ", name_of(device{B::place}), " memory");
    require_compute(t.type, op.name);
    add_write(op.name + '.' + what, t, axis, scale);
  }

  /// A linear layer's rows. What it is quantized to follows: exactly, up to rounding, where each row has amaxes of its
  /// own; else its weight is calibrated by max anew.
  void scale_linear(preceding_op const& op, std::vector<float> const& scale) {
    std::size_t const place = by_name_.find(op.name);
    if (place == name_index::none)
      fail(error_id::config_no_match, "the model has no layer '", op.name, "' to fold scales into; a norm comes with ",
           "its weight");
    auto const& l = by_place_[place];
    require_writable(op.name, l.layer);
    const_tensor_ref const w = l.layer.weight;
    auto const rows = static_cast<std::int64_t>(scale.size());
    if (l.layer.where->layout.kind != site_kind::linear || w.rank != 2)
      fail(error_id::config_conflict, op.name, ": is no linear layer, into whose rows a scale could be folded");
    if (w.shape[0] != rows)
      fail(error_id::tensor_shape, op.name, ": has ", w.shape[0], " outputs, and its consumers ", rows, " inputs");
    if (!rows_.insert(op.name).second)
      fail(error_id::config_conflict, op.name, ": is given as two operations; name all its consumers in one");
    touched_.insert(l.layer.where);
    if (!l.layer.where->recipes.empty()) scale_quantized(l, scale);
    add_write(op.name + ".weight", writable(w), 0, scale);
  }

  void scale_quantized(sharing_layer<B> const& l, std::vector<float> const& scale) {
    auto& recipe = l.layer.quantizers();
    if (auto const* const y = recipe.acting(quantizer_role::output))
      fail(error_id::config_conflict, y->path(), ": is calibrated for an output without the scale that is to be ",
           "folded; disable it before");
    if (l.weight != nullptr && !l.weight->members().empty() && !scale_amaxes(l, scale)) {
      workspace_lock<B> const held{c_.home};
      const_tensor_ref const w = l.layer.source();
      tensor_ref const scaled_rows = allocate_like(w, c_.home.scratch);
      buffer<B, float> const factors = buffer_of(c_.home.device, scale);
      c_.home.device.scale_channels({w, scaled_rows, 0, w.shape[0], factors.data()});
      calibrate_by_max(c_, changes_.of(l, *l.weight), scaled_rows);
      c_.notes.push_back(l.name() + ": takes a scale into its rows, which do not have scales of their own: it is " +
                         "calibrated by max anew, and rounds otherwise than before");
    }
    if (recipe.weight) add_write(l.name() + ": its rewritten weight", recipe.weight->view(), 0, scale);
    if (!recipe.branch) return;
    add_write(l.name() + ": its branch", recipe.branch->up.view(), 0, scale);
    add_write(l.name() + ": its branch", recipe.branch->negative.view(), 0, scale);
  }

  /// Multiplies the amaxes of rows; false, with nothing changed, where a member has none of rows alone.
  bool scale_amaxes(sharing_layer<B> const& l, std::vector<float> const& scale) {
    geometry const w = l.layer.weight;
    for (auto const& m : l.weight->members()) {
      partition const groups = m.grouping(w);
      bool const of_rows = groups.block[0] == 1 && groups.groups[0] == w.shape[0];
      if (!of_rows || m.numerics().how.scaling != scale_rule::ratio || m.numerics().how.scale_block != 0 ||
          m.numerics().rotate || m.numerics().bias || m.numerics().amax_from == amax_source::constant)
        return false;
    }
    for (std::size_t i = 0; i < l.weight->members().size(); ++i) {
      auto values = l.weight->members()[i].amax(c_.home.device);
      std::size_t const each = values.size() / scale.size();
      for (std::size_t k = 0; k < values.size(); ++k) values[k] *= std::abs(scale[k / each]);
      if (each == 0) continue;
      auto& next = changes_.of(l, *l.weight).members()[i];
      next.set_amax(c_.home.device, next.groups(), values);
    }
    return true;
  }

  /// The consumer's weight has the inverse in it from now on, and its quantizers no scale.
  void take_scale(sharing_layer<B> const& l, std::vector<std::string> const& outside) {
    auto const& absorbed = l.layer.quantizers().absorbed_scale;
    auto const inverse = absorbed.empty() ? l.weight->pre_quant_scale(c_.home.device) : absorbed;
    add_write(l.name() + ".weight", writable(l.layer.weight), l.layer.weight.rank - 1, inverse);
    if (auto& held = l.layer.quantizers().weight; held && absorbed.empty())  // rewritten before the scale was chosen
      add_write(l.name() + ": its rewritten weight", held->view(), l.layer.weight.rank - 1, inverse);
    scaled_.push_back(l);
    touched_.insert(l.layer.where);
    marks_.push_back({l.layer.where, outside});
  }

  /// The walk shows it as the host's to write.
  static tensor_ref writable(const_tensor_ref const& t) { return {t, const_cast<void*>(t.data)}; }

  void run(write& w, const_tensor_ref x, tensor_ref y) {
    c_.home.device.scale_channels({x, y, w.axis, w.target.shape[w.axis], w.factors.data()});
  }

  calibration<B>& c_;
  quantizer_changes<B> changes_;
  name_index by_name_;
  std::vector<sharing_layer<B>> by_place_;
  std::vector<preceding_op const*> taken_by_;  ///< whose consumer it is, place by place
  std::map<void const*, std::vector<std::string>> users_;  ///< of each weight in memory
  std::set<void const*> written_;
  std::set<std::string> rows_;
  std::vector<write> writes_;
  std::vector<sharing_layer<B>> scaled_;           ///< consumers whose scales go
  std::set<std::shared_ptr<site<B>>> touched_;
  std::vector<std::pair<std::shared_ptr<site<B>>, std::vector<std::string>>> marks_;
};

}  // namespace detail

/// Folds the pre_quant_scales of each operation's consumers into it; those of other layers stay. An operation whose
/// consumers have none is passed by. Throws, before anything is written: `config_no_match` for a name that is no layer;
/// `config_conflict` for consumers that do not share a scale, are named twice, share their weight with another layer,
/// hold a search's recipes or have no scale on their weight, and for a preceding layer with an output quantizer;
/// `tensor_shape` for one of another width; `state_folded`; `format_value` for results that are not finite. A weight
/// that a module outside of the walk shares is the host's to keep out.
template <backend B>
fold_report fold_pre_quant_scales(model<B>& m, std::vector<preceding_op> const& ops) {
  auto const modules = m.modules();
  for (auto const& module : modules) refuse_inside_pass(*module.slots->shared_site(), "fold_pre_quant_scales");
  forward_loop const none;
  auto c = detail::calibration_of(m, modules, none);
  detail::scale_folding<B> folding{c};
  fold_report report;
  for (auto const& op : ops) report.folded += folding.add(op);
  folding.drop_scales();
  folding.try_writes();
  folding.commit();
  report.notes = std::move(c.notes);
  return report;
}

}  // namespace mixbit
