// compress: weights as codes and scales in memory, and nothing else of them - ModelOpt's mtq.compress.
//
//   quantize(m, config, loop);
//   auto const report = compress(m);          // report.bytes(): what the codes and scales take
//   net.up.weight = {};                       // the host gives up its own, or keeps it
//   net.forward(x);                           // as before: each call decodes into the workspace, and allocates nothing
//
// The library cannot free a host's memory, so it says that the weight is not read any more: a host whose operands are
// views (`wrap`) may give it up, and its walk and its calls then show a tensor without elements. A host whose operands
// own memory (`like`) passes a tensor of the weight's shape, or takes `slots.packed()` and its own kernel:
//
//   matrix xq = x;
//   apply(slots, xq, 0);                      // the input's quantizer, the first of a linear layer, in place
//   y = my_kernel(xq, *slots.packed());       // codes(), scales(), ... and what they are: description()
//
// `describe_packed(device, slots)` says beside the weight's descriptor what else such a layer does: factors and
// rotations of its input, casts behind the codes, a branch (quantizer/packed_layer.hpp).
//
// What is computed is what fake quantization under policy `stored` computes, bit for bit. Calibrating or quantizing
// anew starts from the host's weight: one that it still shows is no longer compressed then, and one that it does not is
// refused. Training, fold_weight and exports refuse compressed weights (`state_folded`); save_state keeps them.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "mixbit/model/control.hpp"
#include "mixbit/quantizer/packed_layer.hpp"

namespace mixbit {

struct compressed_layer {
  std::string name;
  storage_size size;           ///< of its codes and scales; zeros where another layer's are used, which is tied to it
  std::int64_t host_bytes = 0;  ///< of the weight that the host may give up
};

struct compress_report {
  std::vector<compressed_layer> layers;
  std::vector<std::string> notes;

  /// What all codes and scales take.
  std::int64_t bytes() const {
    std::int64_t sum = 0;
    for (auto const& l : layers) sum += l.size.bytes();
    return sum;
  }
};

namespace detail {

/// Throws where codes cannot stand for the weight, naming the layer.
template <backend B>
void require_packable(matched_quantizer<B> const& q) {
  auto const& s = q.where();
  auto const refuse = [&](error_id id, auto const&... why) {
    fail(id, s.name, ": its weight cannot be compressed: ", why...);
  };
  q.refuse_folded();
  q.quantizer->refuse_learning("compressing");
  if (q.owner.weight.data == nullptr || q.owner.weight.size() == 0)
    refuse(error_id::state_missing, "the walk gives none, or one without elements");
  if (!q.quantizer->ready()) refuse(error_id::state_not_calibrated, q.quantizer->path(), " is not calibrated");
  auto const& first = q.quantizer->members().front().numerics();
  if (first.bias) refuse(error_id::format_value, "a bias is added behind the cast, which codes do not hold");
  if (first.rotate && first.rotate->back)
    refuse(error_id::format_value, "it is rotated back behind the cast, which codes do not hold");
  format stored = first.how;
  stored.numerics = policy::stored;
  named(s.name, [&] { check_encodable(stored, q.quantizer->path()); });
}

/// The weights that were packed, each with the site that takes it.
template <backend B>
class weight_packing {
 public:
  explicit weight_packing(model<B>& m) : model_{m} {}

  void add(matched_quantizer<B> const& q) {
    workspace_lock<B> const held{model_.scratch()};
    arena& scratch = model_.scratch().scratch;
    auto& member = q.quantizer->members().front();
    const_tensor_ref const w = q.quantizer->scaled(model_.device(), scratch, source_weight(q.owner));
    auto made = std::make_shared<packed_weight<B>>(model_.device(), scratch, member, w);
    compressed_layer layer{q.owner.name, made->size(), q.owner.weight.bytes()};
    auto const tied = users_.equal_range(q.owner.weight.data);
    std::shared_ptr<packed_weight<B> const> shared;
    for (auto at = tied.first; at != tied.second && !shared; ++at)
      if (at->second->same_as(*made, model_.device())) shared = at->second;
    if (shared) layer.size = {};
    else users_.emplace(q.owner.weight.data, made);
    for (std::size_t i = 1; i < q.quantizer->members().size(); ++i) {  // of a sequence: their amaxes are scales as well
      auto const& later = q.quantizer->members()[i];
      storage_size const size = storage_size_of(later.numerics().how, w, later.grouping(w));
      layer.size.scales += size.scales;
      layer.size.tensor += size.tensor;
    }
    packed_.push_back({q.owner.slots->shared_site(), q.quantizer, shared ? std::move(shared) : std::move(made)});
    report.layers.push_back(std::move(layer));
  }

  /// Every site keeps its active recipe alone: the others would need the weight.
  void commit() {
    for (auto& [where, quantizer, packed] : packed_) {
      auto& s = *where;
      auto& recipe = s.quantizers();
      recipe.absorb_scale(model_.device(), *quantizer);
      recipe.weight.reset();
      recipe.packed = std::move(packed);
      quantizer->members().front().release_amax();
      if (s.active != 0) std::swap(s.recipes.front(), recipe);
      s.recipes.erase(s.recipes.begin() + 1, s.recipes.end());
      s.active = 0;
      ++s.generation;  // a search, a training or a quantizer_guard would put back what needs the weight
      s.cache.valid = false;
      s.cache.holder.reset();
      s.refresh();
    }
  }

  compress_report report;

 private:
  struct taken {
    std::shared_ptr<site<B>> where;
    sequential_quantizer<B>* quantizer;
    std::shared_ptr<packed_weight<B> const> packed;
  };

  model<B>& model_;
  std::multimap<void const*, std::shared_ptr<packed_weight<B> const>> users_;  ///< by the host's weight
  std::vector<taken> packed_;
};

}  // namespace detail

/// Compresses the weights whose quantizers match and are on; what is compressed already stays so. Tied weights that are
/// quantized alike share their codes. Throws `config_no_match` for a pattern that matches no weight quantizer that is
/// on, and naming the layer: `format_value` for a format that has no codes (integers of 9 to 15 bits), a bias or a
/// rotation that goes back; `state_folded`, `state_not_calibrated`, `state_nested`, `state_missing`, and what
/// quantizing throws. Nothing is changed then.
template <backend B>
compress_report compress(model<B>& m, pattern const& which = "*weight_quantizer") {
  detail::weight_packing<B> packing{m};
  bool any = false;
  for (auto const& q : detail::match_quantizers(m, which)) {
    if (q.quantizer->role() != quantizer_role::weight || !q.quantizer->enabled()) continue;
    any = true;
    if (q.where().packed()) continue;
    detail::require_packable(q);
    packing.add(q);
  }
  if (!any)
    fail(error_id::config_no_match, "pattern '", which.label(), "' matches no weight quantizer that is on");
  if (m.options().numerics.rules != policy::stored && !packing.report.layers.empty())
    packing.report.notes.push_back(detail::concat("the model simulates ", name_of(m.options().numerics.rules),
                                                  "; its compressed weights are those of policy stored"));
  packing.commit();
  return std::move(packing.report);
}

}  // namespace mixbit
