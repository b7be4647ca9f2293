// A host without a model: modules named as in a checkpoint, each with a weight and slots, and inputs made to order. It
// takes quantize, calibration and export through their usual ways where no forward pass is of interest.
#pragma once

#include <cmath>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "mixbit/io/safetensors.hpp"
#include "mixbit/model/quantize.hpp"
#include "mixbit/quantizer/apply.hpp"
#include "mixbit/reference/scalar.hpp"

namespace mixbit::test {

/// A dense float32 tensor that owns its memory.
struct plain_tensor {
  geometry shape;
  std::vector<float> values;

  explicit plain_tensor(geometry const& g)
      : shape{dense_geometry(dtype::f32, std::span{g.shape.data(), static_cast<std::size_t>(g.rank)})},
        values(static_cast<std::size_t>(g.size())) {}
  plain_tensor(std::initializer_list<std::int64_t> sizes) : plain_tensor{dense_geometry(dtype::f32, sizes)} {}
};

}  // namespace mixbit::test

template <>
struct mixbit::tensor_traits<mixbit::test::plain_tensor> {
  using plain_tensor = mixbit::test::plain_tensor;
  static const_tensor_ref view(plain_tensor const& t) { return {t.shape, t.values.data()}; }
  static tensor_ref view(plain_tensor& t) { return {t.shape, t.values.data()}; }
  static plain_tensor like(plain_tensor const& t) { return plain_tensor{t.shape}; }
};

namespace mixbit::test {

using cpu_backend = reference::scalar;

/// Values without a pattern that rounding would meet: size · sin(step · (i + 1)).
inline plain_tensor waves(std::initializer_list<std::int64_t> sizes, float step, float size = 1.0f) {
  plain_tensor t{sizes};
  for (std::size_t i = 0; i < t.values.size(); ++i) t.values[i] = size * std::sin(step * static_cast<float>(i + 1));
  return t;
}

/// y [rows, out] = x [rows, in] wᵀ, w [out, in].
inline plain_tensor multiply(plain_tensor const& x, plain_tensor const& w) {
  std::int64_t const rows = x.shape.shape[0], in = x.shape.shape[1], out = w.shape.shape[0];
  plain_tensor y{rows, out};
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t o = 0; o < out; ++o)
      for (std::int64_t i = 0; i < in; ++i) y.values[r * out + o] += x.values[r * in + i] * w.values[o * in + i];
  return y;
}

class checkpoint_host {
 public:
  struct layer {
    std::string name, class_name;
    plain_tensor weight;
    site_layout layout;
    quantizer_slots<cpu_backend> slots;
  };

  /// A linear layer of that name.
  plain_tensor& add(std::string name, plain_tensor weight, std::string class_name = "nn.Linear",
                    site_layout layout = layouts::linear) {
    layers_.push_back({std::move(name), std::move(class_name), std::move(weight), layout, {}});
    return layers_.back().weight;
  }

  /// With the weight `name`.weight of a checkpoint.
  plain_tensor& load(safetensors_file const& file, std::string const& name, std::string class_name = "nn.Linear",
                     site_layout layout = layouts::linear) {
    plain_tensor weight{file.at(name + ".weight")};
    weight.values = file.read_as_float(name + ".weight");
    return add(name, std::move(weight), std::move(class_name), layout);
  }

  /// An attention, of which nothing is there but its quantizers.
  void add_attention(std::string name) { attentions_.push_back({std::move(name), {}}); }

  template <class Visit>
  void walk(Visit&& visit) {
    for (auto& l : layers_) visit(module(l.name, l.class_name, l.slots, l.weight, l.layout));
    for (auto& a : attentions_) visit(module(a.name, "attention", a.slots));
  }

  /// Runs a linear layer on one row whose largest absolute value is `amax`.
  void show(std::string const& name, float amax) {
    run(name, [&](std::size_t i) { return i == 0 ? -amax : amax / static_cast<float>(i + 1); });
  }
  /// The same of a layer whose first input is multiplied by `scale`, behind which it is `amax`.
  void show_scaled(std::string const& name, float amax, float scale) {
    run(name, [&](std::size_t i) { return i == 0 ? amax / scale : 0.0f; });
  }

  /// Runs an attention's keys and values, whose largest absolute values are these, through their quantizers.
  void show_cache(std::string const& name, float keys, float values) {
    for (auto& a : attentions_) {
      if (a.name != name) continue;
      plain_tensor k{1, 2}, v{1, 2};
      k.values = {0.5f * keys, -keys};
      v.values = {values, 0.25f * values};
      apply(a.slots, k, 1);
      apply(a.slots, v, 2);
    }
  }

 private:
  template <class Value>
  void run(std::string const& name, Value&& value) {
    for (auto& l : layers_) {
      if (l.name != name) continue;
      plain_tensor x{1, l.weight.shape.shape[1]};
      for (std::size_t i = 0; i < x.values.size(); ++i) x.values[i] = value(i);
      apply(l.slots, x, l.weight, multiply);
    }
  }

  struct attention {
    std::string name;
    quantizer_slots<cpu_backend> slots;
  };
  std::deque<layer> layers_;  // slots do not move while a site points at them
  std::deque<attention> attentions_;
};

/// Turns everything off, for configs that then name quantizers one by one.
inline quantize_config nothing_on() {
  quantize_config config;
  config.entries.push_back({"*", std::nullopt, std::nullopt, false});
  return config;
}

/// Turns `quantizer` on with these attributes.
inline void turn_on(quantize_config& config, std::string quantizer, quantizer_attribute_config attributes) {
  config.entries.push_back({std::move(quantizer), std::nullopt, std::vector{std::move(attributes)}, true});
}

}  // namespace mixbit::test
