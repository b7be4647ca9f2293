// How a host shows its modules to the library: the module walk.
//
// A host offers `template <class Visit> void walk(Visit&& visit)` and calls visit once a module, in a fixed order:
//
//   visit(mixbit::linear("model.layers.0.mlp.up_proj", up.slots, up.weight));
//
// The walk is repeated at each phase, because layers move and weights change; views are never kept between phases.
#pragma once

#include <concepts>
#include <functional>
#include <string>

#include "mixbit/quantizer/slots.hpp"

namespace mixbit {

/// One module of a walk. `weight.data` is null for modules without one.
template <backend B>
struct module_ref {
  std::string name;        ///< dotted path, unique in the model
  std::string class_name;  ///< a declared module class, "nn.Linear" for example
  quantizer_slots<B>* slots = nullptr;
  tensor_ref weight;
  site_layout layout;
};

template <backend B>
using module_visitor = std::function<void(module_ref<B>)>;

/// A host whose modules can be walked.
template <class Host, class B>
concept walkable = backend<B> && requires(Host& h, module_visitor<B> const& visit) { h.walk(visit); };

/// Any module: of a class of the user's own, with a layout, with a weight.
template <backend B, writable_host_tensor W>
module_ref<B> module(std::string name, std::string class_name, quantizer_slots<B>& slots, W& weight,
                     site_layout layout) {
  return {std::move(name), std::move(class_name), &slots, write_view(weight), layout};
}

/// A module whose operands are quantized one by one, without a weight (attention, normalisation, pooling).
template <backend B>
module_ref<B> module(std::string name, std::string class_name, quantizer_slots<B>& slots) {
  return {std::move(name), std::move(class_name), &slots, {}, layouts::tensor};
}

/// A linear layer, y = x Wᵀ; `layout` says where the axes lie if not at x [..., in], W [out, in].
template <backend B, writable_host_tensor W>
module_ref<B> linear(std::string name, quantizer_slots<B>& slots, W& weight, site_layout layout = layouts::linear) {
  return module(std::move(name), "nn.Linear", slots, weight, layout);
}

template <backend B, writable_host_tensor W>
module_ref<B> conv2d(std::string name, quantizer_slots<B>& slots, W& weight, site_layout layout = layouts::conv) {
  return module(std::move(name), "nn.Conv2d", slots, weight, layout);
}

/// An embedding table [entries, features].
template <backend B, writable_host_tensor W>
module_ref<B> embedding(std::string name, quantizer_slots<B>& slots, W& weight) {
  return module(std::move(name), "nn.Embedding", slots, weight, layouts::lookup);
}

}  // namespace mixbit
