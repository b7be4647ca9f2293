// Two attentions with key/value caches on the bench of an export, and configs of caches.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "support/export_bench.hpp"

namespace mixbit::test {

/// `Bench`: export_bench or one made of it.
template <class Bench>
struct cache_bench : Bench {
  explicit cache_bench(std::vector<std::string> const& modules = {"l.0.self_attn", "l.1.self_attn"}) {
    this->add("l.0.self_attn.k_proj", make_weight({4, 32}));
    for (auto const& name : modules) this->host.add_attention(name);
    this->write_source();
    this->m = std::make_unique<mixbit::model<cpu_backend>>(this->host);
  }
  void quantize(quantize_config const& how, float values = 3.0f) {
    mixbit::quantize(*this->m, how, [&] {
      this->host.show("l.0.self_attn.k_proj", 1.0f);
      this->host.show_cache("l.0.self_attn", 7.0f, values);
      this->host.show_cache("l.1.self_attn", 5.0f, 448.0f);
    });
  }
  float scale(char const* name) const { return this->file().read_as_float(name)[0]; }
};

inline quantize_config with_cache(char const* cache) { return combine(preset("FP8_DEFAULT_CFG"), preset(cache)); }

/// Keys and values alone.
inline quantize_config cache_alone(quantizer_attribute_config const& keys, quantizer_attribute_config const& values) {
  auto config = nothing_on();
  turn_on(config, "*k_bmm_quantizer", keys);
  turn_on(config, "*v_bmm_quantizer", values);
  return config;
}

}  // namespace mixbit::test
