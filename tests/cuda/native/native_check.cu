// Are a device's own conversions to FP8 and FP4 the codecs of formats/minifloat.hpp? Every float32 there is, and every
// code back:   fp8_native_check | fp4_native_check   (NATIVE_CHECK, which the build defines, says which)
//
// Prints a line for each conversion, and ends with status 1 where the code of a number or the value of a code differs.
// Codes of NaN are counted and do not fail: a format may have several, and any of them is right. The kernels use none
// of these conversions until this has passed on a device that has them: compute capability 8.9 for FP8, 10.0 and 12.0
// for FP4 (built for 100f, 120f).
// NaN has no code in FP4, where the rules choose 0; it is left out there.
#include <cstdio>
#include <string_view>

#include <cuda_fp4.h>
#include <cuda_fp8.h>

#include "mixbit/cuda/failure.hpp"
#include "mixbit/formats/minifloat.hpp"

namespace {

using namespace mixbit;

struct e4m3_conversion {
  static constexpr char const* name = "e4m3";
  static constexpr int codes = 256;
  static constexpr bool has_nan = true;
  using codec = formats::e4m3;
  __device__ static int code(float v) { return __nv_cvt_float_to_fp8(v, __NV_SATFINITE, __NV_E4M3); }
  __device__ static float value(int c) {
    return __half2float(__half{__nv_cvt_fp8_to_halfraw(static_cast<__nv_fp8_storage_t>(c), __NV_E4M3)});
  }
};

struct e5m2_conversion {
  static constexpr char const* name = "e5m2";
  static constexpr int codes = 256;
  static constexpr bool has_nan = true;
  using codec = formats::e5m2;
  __device__ static int code(float v) { return __nv_cvt_float_to_fp8(v, __NV_SATFINITE, __NV_E5M2); }
  __device__ static float value(int c) {
    return __half2float(__half{__nv_cvt_fp8_to_halfraw(static_cast<__nv_fp8_storage_t>(c), __NV_E5M2)});
  }
};

struct e2m1_conversion {
  static constexpr char const* name = "e2m1";
  static constexpr int codes = 16;
  static constexpr bool has_nan = false;
  using codec = formats::e2m1;
  __device__ static int code(float v) { return __nv_cvt_float_to_fp4(v, __NV_E2M1, cudaRoundNearest) & 15; }
  __device__ static float value(int c) {
    return __half2float(__half{__nv_cvt_fp4_to_halfraw(static_cast<__nv_fp4_storage_t>(c), __NV_E2M1)});
  }
};

struct findings {
  unsigned long long encodes = 0, decodes = 0, nan_codes = 0;
  unsigned first = 0xffffffffu;  ///< the smallest bits whose codes differ
};

template <class Conversion>
__global__ void compare(findings* found) {
  std::uint64_t const step = std::uint64_t{gridDim.x} * blockDim.x;
  std::uint64_t const start = std::uint64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  for (std::uint64_t bits = start; bits < (std::uint64_t{1} << 32); bits += step) {
    float const v = fp::from_bits(static_cast<std::uint32_t>(bits));
    if (Conversion::code(v) == Conversion::codec::code(v)) continue;
    if (fp::is_nan(v)) {
      if (Conversion::has_nan) atomicAdd(&found->nan_codes, 1ull);
      continue;
    }
    atomicAdd(&found->encodes, 1ull);
    atomicMin(&found->first, static_cast<unsigned>(bits));
  }
  if (start >= Conversion::codes) return;
  float const native = Conversion::value(static_cast<int>(start));
  float const defined = Conversion::codec::value(static_cast<int>(start));
  bool const both_nan = fp::is_nan(native) && fp::is_nan(defined);
  if (fp::bits(native) != fp::bits(defined) && !both_nan) atomicAdd(&found->decodes, 1ull);
}

template <class Conversion>
bool check() {
  findings* on_device = nullptr;
  findings found;
  cuda::require(cudaMalloc(&on_device, sizeof found), "cudaMalloc");
  cuda::require(cudaMemcpy(on_device, &found, sizeof found, cudaMemcpyHostToDevice), "cudaMemcpy");
  compare<Conversion><<<4096, 256>>>(on_device);
  cuda::require(cudaGetLastError(), "kernel launch");
  cuda::require(cudaMemcpy(&found, on_device, sizeof found, cudaMemcpyDeviceToHost), "cudaMemcpy");
  cuda::require(cudaFree(on_device), "cudaFree");
  std::printf("%s: %llu of 2^32 float32 have another code (first 0x%08x), %llu codes another value, "
              "%llu NaN another code\n",
              Conversion::name, found.encodes, found.encodes ? found.first : 0u, found.decodes, found.nan_codes);
  return found.encodes + found.decodes == 0;
}

}  // namespace

int main() {
  constexpr bool fp4 = std::string_view{NATIVE_CHECK} == "fp4";
  constexpr char const* name = NATIVE_CHECK "_native_check";
  if (cuda::device_count() == 0) {
    std::printf("skipped: %s: no CUDA device\n", name);
    return 0;
  }
  try {
    int device = 0, major = 0, minor = 0;
    cuda::require(cudaGetDevice(&device), "cudaGetDevice");
    cuda::require(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "cudaDeviceGetAttribute");
    cuda::require(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "cudaDeviceGetAttribute");
    if (10 * major + minor < (fp4 ? 100 : 89)) {
      std::printf("skipped: %s: compute capability %d.%d converts in software\n", name, major, minor);
      return 0;
    }
    if (fp4) return check<e2m1_conversion>() ? 0 : 1;
    bool const e4m3 = check<e4m3_conversion>(), e5m2 = check<e5m2_conversion>();
    return e4m3 && e5m2 ? 0 : 1;
  } catch (mixbit::error const& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 2;
  }
}
