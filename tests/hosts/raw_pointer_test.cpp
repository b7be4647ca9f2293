// Host 1 in raw pointers: a runtime whose tensors are spans over memory that it plans itself. Operands are views over
// borrowed memory and outputs are allocated ahead, so calls go through apply_into.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>

#include "mixbit/config/presets.hpp"
#include "mixbit/model/quantize.hpp"
#include "mixbit/reference/scalar.hpp"
#include "support/error_text.hpp"

namespace runtime {

/// All that this runtime knows of a matrix.
struct matrix_view {
  float* data;
  std::int64_t rows, columns;
};

void gemm_nt(matrix_view x, matrix_view w, matrix_view y) {
  for (std::int64_t r = 0; r < x.rows; ++r)
    for (std::int64_t o = 0; o < w.rows; ++o) {
      float sum = 0;
      for (std::int64_t i = 0; i < x.columns; ++i) sum += x.data[r * x.columns + i] * w.data[o * w.columns + i];
      y.data[r * y.columns + o] = sum;
    }
}

}  // namespace runtime

// What the host writes to bring its tensor: four lines.
template <>
struct mixbit::tensor_traits<runtime::matrix_view> {
  using view_type = runtime::matrix_view;
  static const_tensor_ref view(view_type const& m) {
    return dense_view(const_cast<float const*>(m.data), {m.rows, m.columns});
  }
  static tensor_ref view(view_type& m) { return dense_view(m.data, {m.rows, m.columns}); }
  static view_type wrap(const_tensor_ref t) { return {const_cast<float*>(t.as<float>()), t.shape[0], t.shape[1]}; }
  static view_type wrap(tensor_ref t) { return {t.as<float>(), t.shape[0], t.shape[1]}; }
};

namespace {

using namespace mixbit;
using cpu = reference::scalar;

/// The runtime's planned memory: weights, input and outputs in one block.
struct program {
  std::vector<float> memory = std::vector<float>(8 * 6 + 4 * 8 + 3 * 6 + 3 * 8 + 3 * 4);
  runtime::matrix_view up{memory.data(), 8, 6}, down{up.data + 48, 4, 8}, input{down.data + 32, 3, 6},
      hidden{input.data + 18, 3, 8}, output{hidden.data + 24, 3, 4};
  quantizer_slots<cpu> up_slots, down_slots;

  program() {
    for (std::size_t i = 0; i < memory.size(); ++i) memory[i] = std::sin(0.7f * static_cast<float>(i + 1));
  }
  void run() {
    apply_into(up_slots, input, up, hidden, runtime::gemm_nt);
    apply_into(down_slots, hidden, down, output, runtime::gemm_nt);
  }
  template <class Visit>
  void walk(Visit&& visit) {
    visit(linear("up", up_slots, up));
    visit(linear("down", down_slots, down));
  }
  std::vector<float> result() const { return {output.data, output.data + 12}; }
};

/// Q(m) of one of the program's quantizers, in memory of its own.
std::vector<float> quantized(quantizer_slots<cpu>& slots, quantizer_role role, runtime::matrix_view m) {
  std::vector<float> values(m.data, m.data + m.rows * m.columns);
  runtime::matrix_view copy{values.data(), m.rows, m.columns};
  cpu device;
  arena scratch;
  slots.shared_site()->quantizers().find(role)->quantize(device, scratch, read_view(m), write_view(copy));
  return values;
}

}  // namespace

TEST_CASE("raw pointers: a planned runtime is quantized in place, without a copy of its own") {
  program p;
  p.run();
  auto const plain = p.result();
  std::vector<float> const weights(p.up.data, p.input.data);
  model<cpu> m{p};
  quantize(m, preset("INT8_DEFAULT_CFG"), [&] { p.run(); });
  p.run();
  auto const result = p.result();
  CHECK(result != plain);
  CHECK(std::memcmp(weights.data(), p.up.data, weights.size() * sizeof(float)) == 0);

  // by hand, step by step
  auto xq = quantized(p.up_slots, quantizer_role::input, p.input),
       wq = quantized(p.up_slots, quantizer_role::weight, p.up);
  std::vector<float> hidden(24), output(12);
  runtime::gemm_nt({xq.data(), 3, 6}, {wq.data(), 8, 6}, {hidden.data(), 3, 8});
  auto hq = quantized(p.down_slots, quantizer_role::input, {hidden.data(), 3, 8});
  auto dq = quantized(p.down_slots, quantizer_role::weight, p.down);
  runtime::gemm_nt({hq.data(), 3, 8}, {dq.data(), 4, 8}, {output.data(), 3, 4});
  CHECK(result == output);
}

TEST_CASE("raw pointers: a thread with a workspace of its own") {
  program p;
  model<cpu> m{p};
  quantize(m, preset("INT8_DEFAULT_CFG"), [&] { p.run(); });
  p.run();
  auto const expected = p.result();
  workspace<cpu> own;
  apply_into(own, p.up_slots, p.input, p.up, p.hidden, runtime::gemm_nt);
  apply_into(own, p.down_slots, p.hidden, p.down, p.output, runtime::gemm_nt);
  CHECK(p.result() == expected);
}

TEST_CASE("raw pointers: a layer that is called without tokens has seen no data") {
  program p;
  model<cpu> m{p};
  auto const loop = [&] {
    p.run();
    runtime::matrix_view none{p.input.data, 0, 6};
    apply_into(p.up_slots, none, p.up, p.hidden, runtime::gemm_nt);
  };
  quantize(m, preset("INT8_DEFAULT_CFG"), loop);
  auto const only_none = [&] {
    runtime::matrix_view none{p.input.data, 0, 6};
    apply_into(p.up_slots, none, p.up, p.hidden, runtime::gemm_nt);
    apply_into(p.down_slots, p.hidden, p.down, p.output, runtime::gemm_nt);
  };
  auto const text = test::error_text(error_id::state_not_calibrated,
                                     [&] { quantize(m, preset("INT8_DEFAULT_CFG"), only_none); });
  CHECK(test::says(text, "1 static", "up.input_quantizer"));
}
