// Somebody else's program: quantizes eight numbers with the CPU backend.
#include <array>
#include <cstdio>

#include <mixbit/mixbit.hpp>
#include <mixbit/reference/scalar.hpp>

int main() {
  std::array<float, 8> const x{-127.0f, 0.4f, 0.5f, 1.5f, 2.5f, 100.7f, 126.9f, 3.0f};
  std::array<float, 8> const expected{-127.0f, 0.0f, 0.0f, 2.0f, 2.0f, 101.0f, 127.0f, 3.0f};
  std::array<float, 8> y{};
  float amax = 0.0f;
  mixbit::reference::scalar const cpu;
  auto const view = mixbit::dense_view(x.data(), {2, 4});
  auto const groups = mixbit::per_tensor(view);
  cpu.amax({.x = view, .groups = groups, .amax = &amax});
  mixbit::format const int8{mixbit::integer_element(8)};
  auto const result = mixbit::dense_view(y.data(), {2, 4});
  cpu.fake_quantize({.x = view, .y = result, .groups = groups, .amax = &amax, .how = int8});
  bool const right = amax == 127.0f && y == expected;
  std::printf("%s\n", right ? "right" : "wrong");
  return right ? 0 : 1;
}
