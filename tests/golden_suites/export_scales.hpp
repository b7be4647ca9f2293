// pre_quant_scales as a golden checkpoint has them, for the suite export: given to a model as SmoothQuant and AWQ leave
// them, and folded into norms where ModelOpt's exporter folds them. Of those only their product with the norm is in the
// file, which gives the scale to an ulp or two.
//
// ModelOpt writes a weight under its own scale, and where q/k/v or gate/up read one input undoes that and writes it
// under the mean: two more roundings than in ours, which is the weight times the inverse of the mean. So of those
// layers the scales are compared within 2^-20, and a code may be the next where the value was next to a tie.
#pragma once

#include <cmath>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "mixbit/io/safetensors.hpp"
#include "mixbit/model/fold_scales.hpp"
#include "mixbit/model/shared_state.hpp"
#include "support/checkpoint_host.hpp"

namespace golden {

class export_scales {
 public:
  using model = mixbit::model<mixbit::test::cpu_backend>;

  /// `source`: the model that was exported.
  export_scales(mixbit::safetensors_file const& golden, mixbit::safetensors_file const& source) {
    for (auto const& tensor : golden.names())
      if (tensor.ends_with(".pre_quant_scale"))
        scales_.push_back({tensor.substr(0, tensor.size() - 16), golden.read_as_float(tensor)});
    for (int layer = 0; golden.contains(prefix(layer) + "input_layernorm.weight"); ++layer) {
      add_norm(golden, source, prefix(layer) + "input_layernorm", prefix(layer) + "self_attn.",
               {"q_proj", "k_proj", "v_proj"});
      add_norm(golden, source, prefix(layer) + "post_attention_layernorm", prefix(layer) + "mlp.",
               {"gate_proj", "up_proj"});
    }
  }

  bool any() const { return !scales_.empty(); }

  /// Of a layer; empty where it has none.
  std::vector<float> const& of(std::string const& layer) const {
    static std::vector<float> const none;
    for (auto const& s : scales_)
      if (s.layer == layer) return s.values;
    return none;
  }

  /// Is the layer one that ModelOpt scaled twice?
  bool is_resmoothed(std::string const& layer) const {
    std::string_view const leaf = std::string_view{layer}.substr(layer.rfind('.') + 1);
    bool const is_fused = leaf != "o_proj" && leaf != "down_proj";
    return is_fused && !of(layer).empty();
  }

  /// Gives inputs their scales and weights the inverses. What was calibrated before is to be calibrated anew.
  void give_to(model& m) const {
    for (auto const& module : m.modules()) {
      auto const& scale = of(module.name);
      if (scale.empty()) continue;
      std::vector<float> inverse;
      for (float const s : scale) inverse.push_back(1.0f / s);
      for (auto& q : module.slots->shared_site()->quantizers().quantizers) {
        if (q.role() == mixbit::quantizer_role::input) q.set_pre_quant_scale(m.device(), scale);
        if (q.role() == mixbit::quantizer_role::weight) q.set_pre_quant_scale(m.device(), inverse);
      }
      module.slots->shared_site()->refresh();
    }
  }

  /// Makes fused layers one and folds what the golden has folded.
  void fold(model& m) {
    mixbit::share_state(m);
    if (!norms_.empty()) mixbit::fold_pre_quant_scales(m, norms_);
  }
  std::vector<mixbit::preceding_op> const& folded() const { return norms_; }

  /// ModelOpt's exporter rounds weights to the type that it is asked for before it packs them, behind all scales: of
  /// int4_awq to float16. Here the host's weights take the scales in and are rounded so.
  void round_weights_to_half(model& m) const {
    for (auto const& module : m.modules()) {
      auto& recipe = module.slots->shared_site()->quantizers();
      auto* const q = recipe.find(mixbit::quantizer_role::weight);
      if (q == nullptr) continue;
      auto const factors = q->pre_quant_scale(m.device());
      q->set_pre_quant_scale(m.device(), {});
      auto* const w = static_cast<float*>(module.weight.data);
      auto const columns = static_cast<std::size_t>(module.weight.shape[1]);
      for (std::size_t i = 0; i < static_cast<std::size_t>(module.weight.size()); ++i) {
        float const scaled = factors.empty() ? w[i] : w[i] * factors[i % columns];
        w[i] = mixbit::to_float(mixbit::from_float<mixbit::half>(scaled));
      }
    }
  }

 private:
  struct layer_scale {
    std::string layer;
    std::vector<float> values;
  };

  static std::string prefix(int layer) { return "model.layers." + std::to_string(layer) + "."; }

  /// Nothing where the norm is the source's.
  void add_norm(mixbit::safetensors_file const& golden, mixbit::safetensors_file const& source, std::string const& norm,
                std::string const& parent, std::vector<std::string> const& leaves) {
    auto const before = source.read_as_float(norm + ".weight"), after = golden.read_as_float(norm + ".weight");
    if (before == after) return;
    std::vector<float> scale;
    for (std::size_t i = 0; i < before.size(); ++i) scale.push_back(factor(before[i], after[i]));
    weights_.emplace_back(mixbit::dense_geometry(mixbit::dtype::f32, {static_cast<std::int64_t>(before.size())}));
    weights_.back().values = before;
    std::vector<std::string> consumers;
    for (auto const& leaf : leaves) {
      consumers.push_back(parent + leaf);
      scales_.push_back({consumers.back(), scale});
    }
    norms_.push_back(mixbit::preceding_norm(norm, weights_.back(), consumers));
  }

  /// The float whose product with `before` is `after`.
  static float factor(float before, float after) {
    float const near = after / before;
    for (float const f : {near, std::nextafter(near, 0.0f), std::nextafter(near, INFINITY)})
      if (f * before == after) return f;
    return near;
  }

  std::vector<layer_scale> scales_;
  std::deque<mixbit::test::plain_tensor> weights_;  ///< of the norms
  std::vector<mixbit::preceding_op> norms_;
};

}  // namespace golden
