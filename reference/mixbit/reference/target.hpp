// The name of the instruction set that a translation unit is compiled for, as an inline namespace.
//
// Two translation units with different -march flags would otherwise merge their copies of one inline function, and
// the link order would decide which runs. With the name in the symbol each keeps its own.
#pragma once

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define MIXBIT_REFERENCE_TARGET target_avx512
#elif defined(__AVX2__) && defined(__FMA__)
#define MIXBIT_REFERENCE_TARGET target_avx2_fma
#elif defined(__AVX2__)
#define MIXBIT_REFERENCE_TARGET target_avx2
#elif defined(__AVX__)
#define MIXBIT_REFERENCE_TARGET target_avx
#elif defined(__SSE4_1__)
#define MIXBIT_REFERENCE_TARGET target_sse4
#else
#define MIXBIT_REFERENCE_TARGET target_baseline
#endif
