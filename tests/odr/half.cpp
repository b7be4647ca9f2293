// One half of a program whose halves are compiled for different instruction sets (odr_test.sh): HALF() computes with
// the CPU backends as the flags of this file make them, and says with which instructions.
#include <cstdint>
#include <string>
#include <vector>

#include "mixbit/reference/scalar.hpp"
#include "mixbit/reference/simd.hpp"

namespace {

using namespace mixbit;

constexpr std::int64_t rows = 33, columns = 95;

std::vector<float> values() {
  std::vector<float> x(rows * columns);
  std::uint32_t state = 7;
  for (float& v : x) {
    state = state * 1664525u + 1013904223u;
    v = static_cast<float>(static_cast<std::int32_t>(state)) * 0x1p-29f;
  }
  return x;
}

/// FNV-1a over the bits of what the backend makes of the values, in formats whose products contraction would change.
template <class B>
std::uint64_t digest() {
  std::vector<float> const x = values();
  std::vector<float> y(x.size());
  const_tensor_ref const from = dense_view(x.data(), {rows, columns});
  std::vector<axis_block> const blocks{{-1, 16}};
  partition const groups = blocks_of(from, blocks);
  std::vector<float> amax(static_cast<std::size_t>(groups.group_count()));
  B cpu;
  cpu.amax({from, groups, amax.data(), nullptr});
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (format const& how :
       {format{integer_element(5)}, format{e4m3_element}, format{e4m3_element, policy::modelopt}}) {
    cpu.fake_quantize({from, dense_view(y.data(), {rows, columns}), groups, amax.data(), how, nullptr});
    for (float const v : y) hash = (hash ^ fp::bits(v)) * 0x100000001b3u;
  }
  return hash;
}

}  // namespace

std::string HALF() {
  return std::string{reference::simd::instructions()} + ' ' + std::to_string(digest<reference::scalar>()) + ' ' +
         std::to_string(digest<reference::simd>());
}
