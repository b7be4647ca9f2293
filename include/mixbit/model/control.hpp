// Changing quantizers that are there: enable, disable, set attributes - by wildcard or callable over full names - and
// folding weights. A pattern that matches nothing is an error; nothing is changed by a call that throws.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <map>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "mixbit/config/wildcard.hpp"
#include "mixbit/model/model.hpp"
#include "mixbit/model/transaction.hpp"

namespace mixbit {

namespace detail {

/// The quantizers of the active recipes whose full name matches, with their modules.
template <backend B>
struct matched_quantizer {
  module_ref<B> owner;
  sequential_quantizer<B>* quantizer;

  site<B>& where() const { return *owner.slots->shared_site(); }
  /// Can it never be turned on (the indices of an embedding)?
  bool locked_off(module_class_registry const& classes) const {
    for (auto const& p : classes.at(owner.class_name))
      if (p.name == quantizer->leaf()) return p.locked_off;
    return false;
  }
  void refuse_folded() const {
    if (where().folded && quantizer->role() == quantizer_role::weight)
      fail(error_id::state_folded, quantizer->path(),
           ": fold_weight has already replaced this weight by its quantized values");
  }
  void refuse_packed() const {
    if (quantizer->role() == quantizer_role::weight)
      where().refuse_packed("so that its quantizer stays as it is");
  }
};

template <backend B>
std::vector<matched_quantizer<B>> match_quantizers(model<B>& m, pattern const& which) {
  std::vector<matched_quantizer<B>> all;
  for (auto const& module : m.modules()) {
    auto& s = *module.slots->shared_site();
    refuse_inside_pass(s, "changing quantizers");
    if (s.recipes.empty()) continue;
    for (auto& q : s.quantizers().quantizers)
      if (which.matches(q.path())) all.push_back({module, &q});
  }
  if (all.empty())
    fail(error_id::config_no_match, "pattern '", which.label(),
         "' matches no quantizer of the model; quantize() inserts them");
  return all;
}

template <backend B>
void refresh_sites(std::vector<matched_quantizer<B>> const& changed) {
  for (auto const& c : changed) {
    c.where().cache.valid = false;
    c.where().refresh();
  }
}

}  // namespace detail

/// Turns the matching quantizers off; their amaxes are kept. Returns how many matched. Throws `state_folded` for one of
/// a compressed weight; then none is turned off.
template <backend B>
int disable_quantizer(model<B>& m, pattern const& which) {
  auto const all = detail::match_quantizers(m, which);
  for (auto const& q : all) q.refuse_packed();
  for (auto const& q : all) q.quantizer->enable(false, m.options().numerics);
  detail::refresh_sites(all);
  return static_cast<int>(all.size());
}

/// Turns them on, but for those that a module class locks off. Throws `format_value` for attributes that cannot be
/// computed, `state_folded` for the quantizer of a folded weight; then none is turned on.
template <backend B>
int enable_quantizer(model<B>& m, pattern const& which) {
  auto const all = detail::match_quantizers(m, which);
  auto const on = [&](auto const& q) { return !q.locked_off(m.options().classes); };
  for (auto const& q : all) {
    if (!on(q)) continue;
    q.refuse_folded();
    q.quantizer->require_computable(m.options().numerics);
  }
  for (auto const& q : all)
    if (on(q)) q.quantizer->enable(true, m.options().numerics);
  detail::refresh_sites(all);
  return static_cast<int>(all.size());
}

/// Replaces the attributes (several: a sequential quantizer). Their amaxes are gone: calibrate again; a pre_quant_scale
/// stays. Throws what enable_quantizer throws, and what is wrong with the attributes.
template <backend B>
int set_quantizer_attributes(model<B>& m, pattern const& which,
                             std::span<quantizer_attribute_config const> attributes) {
  if (attributes.empty()) fail(error_id::config_conflict, "pattern '", which.label(), "': no attributes given");
  auto const all = detail::match_quantizers(m, which);
  std::vector<sequential_quantizer<B>> next;
  for (auto const& q : all) {
    q.refuse_packed();
    for (auto const& a : attributes) a.validate(q.quantizer->path());
    bool const any = std::any_of(attributes.begin(), attributes.end(), [](auto const& a) { return a.enable; });
    bool const on = any && !q.locked_off(m.options().classes);
    if (on) q.refuse_folded();
    next.emplace_back(q.quantizer->leaf(), q.quantizer->path(), q.quantizer->role(), on,
                      std::vector(attributes.begin(), attributes.end()), m.options().numerics);
    next.back().set_pre_quant_scale(m.device(), q.quantizer->pre_quant_scale(m.device()));
  }
  for (std::size_t i = 0; i < all.size(); ++i) *all[i].quantizer = std::move(next[i]);
  detail::refresh_sites(all);
  return static_cast<int>(all.size());
}

template <backend B>
int set_quantizer_attributes(model<B>& m, pattern const& which, quantizer_attribute_config const& attributes) {
  return set_quantizer_attributes(m, which, std::span<quantizer_attribute_config const>{&attributes, 1});
}

/// {{.num_bits = 4}, {.num_bits = 8}}
template <backend B>
int set_quantizer_attributes(model<B>& m, pattern const& which,
                             std::initializer_list<quantizer_attribute_config> attributes) {
  return set_quantizer_attributes(
      m, which, std::span<quantizer_attribute_config const>{attributes.begin(), attributes.size()});
}

namespace detail {

template <backend B>
void require_agreement(B& device, matched_quantizer<B> const& a, matched_quantizer<B> const& b) {
  auto const refuse = [&](auto const&... how) {
    fail(error_id::config_conflict, a.owner.name, " and ", b.owner.name, " share one weight but ", how...,
         ", so it cannot be folded");
  };
  auto const *qa = a.quantizer, *qb = b.quantizer;
  if ((qa == nullptr) != (qb == nullptr) || (qa != nullptr && qa->attributes() != qb->attributes()))
    refuse("quantize it differently");
  for (auto const* m : {&a.owner, &b.owner})
    if (auto const& s = *m->slots->shared_site(); s.rewritten(s.active)) refuse("have rewritten it, each for itself");
  if (qa == nullptr) return;
  if (qa->pre_quant_scale(device) != qb->pre_quant_scale(device)) refuse("scale its input channels differently");
  geometry const ga = canonical_weight(a.owner), gb = canonical_weight(b.owner);
  if (!same_view(ga, gb))  // per-channel scales depend on it
    refuse("see it differently (", name_of(ga.type), ' ', to_string(ga), " and ", name_of(gb.type), ' ', to_string(gb),
           ", or the same in another order of memory)");
}

/// The weight quantizers to fold, with their modules. A tied weight is folded only where all its users agree.
template <backend B>
std::vector<matched_quantizer<B>> weights_to_fold(model<B>& m) {
  std::vector<matched_quantizer<B>> folding;
  std::map<void const*, matched_quantizer<B>> users;
  for (auto const& module : m.modules()) {
    auto& s = *module.slots->shared_site();
    refuse_inside_pass(s, "fold_weight");
    s.refuse_packed("of which fold_weight could not make the host's");
    if (s.recipes.empty() || module.weight.data == nullptr) continue;
    auto* const q = s.quantizers().find(quantizer_role::weight);
    auto const [first, is_first] = users.try_emplace(module.weight.data, matched_quantizer<B>{module, q});
    if (!is_first) require_agreement<B>(m.device(), {module, q}, first->second);
    if (q == nullptr) continue;
    if (s.quantizers().branch)
      fail(error_id::state_folded, module.name, ": svdquant computes a branch beside this weight, which the quantized ",
           "weight does not hold; it cannot be folded");
    if (!q->ready()) fail(error_id::state_not_calibrated, q->path(), ": cannot be folded before it is calibrated");
    folding.push_back({module, q});
  }
  return folding;
}

}  // namespace detail

/// Writes Q(w) into every weight whose quantizer is enabled and turns that quantizer off: inference without the cost of
/// fake quantization. The original weights are gone, so export and training refuse afterwards (`state_folded`).
/// Throws `state_not_calibrated`, `config_conflict` for a tied weight that is quantized or seen in two ways, and what
/// quantizing throws, before any weight is written. Returns how many weights were folded.
template <backend B>
int fold_weight(model<B>& m) {
  auto const folding = detail::weights_to_fold(m);
  workspace_lock<B> const held{m.scratch()};
  arena& scratch = m.scratch().scratch;
  for (auto const& f : folding) {  // a trial: a weight that cannot be quantized must leave all others as they are
    arena_scope const scope{scratch};
    const_tensor_ref const w = source_weight(f.owner);
    f.quantizer->quantize(m.device(), scratch, w, detail::allocate_like(w, scratch));
  }
  std::set<void const*> written;  // a tied weight is quantized once
  for (auto const& f : folding) {
    arena_scope const scope{scratch};
    tensor_ref const w = canonical_weight(f.owner);
    if (written.insert(w.data).second) f.quantizer->quantize(m.device(), scratch, source_weight(f.owner), w);
    f.quantizer->enable(false, m.options().numerics);
    f.where().folded = true;
  }
  detail::refresh_sites(folding);
  return static_cast<int>(folding.size());
}

}  // namespace mixbit
