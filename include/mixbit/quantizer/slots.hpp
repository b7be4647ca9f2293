// quantizer_slots: what a host keeps in each quantizable layer, or in a map beside its graph. 16 bytes; empty until a
// model is quantized. Moving keeps the site, copying is off: two layers would share one calibration.
#pragma once

#include <memory>

#include "mixbit/quantizer/site.hpp"

namespace mixbit {

template <backend B>
class quantizer_slots {
 public:
  quantizer_slots() = default;
  quantizer_slots(quantizer_slots&&) noexcept = default;
  quantizer_slots& operator=(quantizer_slots&&) noexcept = default;
  quantizer_slots(quantizer_slots const&) = delete;
  quantizer_slots& operator=(quantizer_slots const&) = delete;

  /// True while this thread runs an op whose output is only measured, this layer's or one around it: a layer must then
  /// not save anything for its backward. It need not be quantized itself.
  bool in_trial() const { return detail::trial_scope::is_on() || (site_ && site_->in_trial); }

  /// True where `apply` does more than call the op.
  bool live() const { return site_ && site_->live; }

  /// Keeps the quantized weight between calls; say weight_changed() whenever the weight's values change.
  void cache_weight(bool on) {
    require_site().cache = {};
    site_->cache.enabled = on;
  }
  void weight_changed() {
    if (site_) site_->cache.valid = false;
  }

  /// The compressed weight, for a kernel of the host's own; null where there is none. It stays until the next phase.
  packed_weight<B> const* packed() const { return site_ ? site_->packed() : nullptr; }

  std::shared_ptr<site<B>> const& shared_site() const { return site_; }
  void attach(std::shared_ptr<site<B>> s) { site_ = std::move(s); }

 private:
  site<B>& require_site() const {
    if (!site_) fail(error_id::state_missing, "these slots belong to no quantized model yet; call quantize first");
    return *site_;
  }
  std::shared_ptr<site<B>> site_;
};

}  // namespace mixbit
