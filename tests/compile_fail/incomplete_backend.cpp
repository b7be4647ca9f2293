// A backend that lacks kernels of core/kernels.inc.
// expect: fake_quantize
#include "mixbit/quantizer/slots.hpp"
#include "mixbit/reference/scalar.hpp"

/// Everything but fake_quantize.
struct half_backend {
  static constexpr mixbit::device place = mixbit::device::cpu;
  static constexpr std::string_view name = "half";
  static constexpr bool exact_probe = true;
  static mixbit::memory_source memory() { return {}; }
  void copy_to_host(void*, void const*, std::size_t) const {}
  void copy_from_host(void*, void const*, std::size_t) const {}
  void zero(void*, std::size_t) const {}
  void synchronize() const {}
  void amax(mixbit::amax_args const&) const {}
  void backward_mask(mixbit::backward_mask_args const&) const {}
  void encode(mixbit::encode_args const&) const {}
  void decode(mixbit::decode_args const&) const {}
  void subtract(mixbit::subtract_args const&) const {}
  void gradient_score(mixbit::gradient_score_args const&) const {}
  void scale_channels(mixbit::scale_channels_args const&) const {}
  void histogram(mixbit::histogram_args const&) const {}
  void sum(mixbit::sum_args const&) const {}
  void extremes(mixbit::extremes_args const&) const {}
  void shift(mixbit::shift_args const&) const {}
  void hadamard(mixbit::hadamard_args const&) const {}
};

#if defined(MIXBIT_COMPILE_PASS)
mixbit::quantizer_slots<mixbit::reference::scalar> slots;
#else
mixbit::quantizer_slots<half_backend> slots;
#endif
