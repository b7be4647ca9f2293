// The architectures that a translation unit is compiled for, as an inline namespace.
//
// Two translation units that nvcc compiles for different architectures would otherwise merge their copies of one
// kernel, and the link order would decide which architectures run. With the list in the symbol each keeps its own.
// Where a program compiles the kernels once (MIXBIT_SEPARATE_COMPILATION) there is one copy, which the rest names by
// one name.
#pragma once

#define MIXBIT_CUDA_JOIN8(a, b, c, d, e, f, g, h, ...) sm_##a##_##b##_##c##_##d##_##e##_##f##_##g##_##h
#define MIXBIT_CUDA_JOIN(...) MIXBIT_CUDA_JOIN8(__VA_ARGS__)

#if defined(MIXBIT_SEPARATE_COMPILATION) || !defined(__CUDA_ARCH_LIST__)
#define MIXBIT_CUDA_TARGET compiled_once
#else
#define MIXBIT_CUDA_TARGET MIXBIT_CUDA_JOIN(__CUDA_ARCH_LIST__, 0, 0, 0, 0, 0, 0, 0, 0)
#endif
