# What this project's own programs (examples, benchmarks, tests) share: dependencies, flags, the output folder.
find_package(Eigen3 3.4 REQUIRED NO_MODULE)
find_package(xtensor REQUIRED)
find_package(hwy REQUIRED)

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES AND PROJECT_IS_TOP_LEVEL)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
endif()
if(PROJECT_IS_TOP_LEVEL AND NOT DEFINED CMAKE_CXX_COMPILER_LAUNCHER)
  find_program(MIXBIT_CCACHE ccache)
  if(MIXBIT_CCACHE)
    set(CMAKE_CXX_COMPILER_LAUNCHER ${MIXBIT_CCACHE})
  endif()
endif()
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)

# Contraction of a*b+c would change last bits between machines. The library guards its own definitions (core/fp.hpp);
# the hosts' arithmetic has no such guard, and its results are compared with recorded ones.
add_library(mixbit_program_flags INTERFACE)
set(flags -ffp-contract=off -Wall -Wextra -Wpedantic -Wshadow
  $<$<BOOL:${MIXBIT_WERROR}>:-Werror>
  $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>  # g++ 12 on "text" + std::to_string(n), GCC bug 105651
  # loops vectorized as by -O3, without the rest of it, which makes twice the code in half as much time again
  $<$<AND:$<CONFIG:Release>,$<CXX_COMPILER_ID:GNU>>:-O2;-ftree-vectorize;-fvect-cost-model=dynamic>
  $<$<BOOL:${MIXBIT_NATIVE}>:-march=native>
  # g++ 12 warns about its own AVX-512 header
  $<$<AND:$<BOOL:${MIXBIT_NATIVE}>,$<CXX_COMPILER_ID:GNU>>:-Wno-maybe-uninitialized;-Wno-uninitialized>)
target_compile_options(mixbit_program_flags INTERFACE "$<$<COMPILE_LANGUAGE:CXX>:${flags}>")  # nvcc has its own
target_link_libraries(mixbit_program_flags INTERFACE
  mixbit::mixbit mixbit::reference Eigen3::Eigen xtensor)
target_compile_definitions(mixbit_program_flags INTERFACE MIXBIT_SEPARATE_COMPILATION)

set(MIXBIT_KERNEL_FLAGS "" CACHE STRING "Further flags for kernels and their tests: -O1 where the rest is optimised less")

# Sets a variable to what scripts/batch-tests says to compile instead of sources (paths from the root); `size` is its
# SIZE, or `whole`. Batches lie in one place for CMake and Meson, outside of build/ whose files the two name by other
# paths, so that ccache knows them again.
function(mixbit_batch variable size)
  list(TRANSFORM ARGN PREPEND ${PROJECT_SOURCE_DIR}/ OUTPUT_VARIABLE files)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${files})  # batches include what these do
  execute_process(COMMAND scripts/batch-tests .test-batches ${size} ${ARGN}
    WORKING_DIRECTORY ${PROJECT_SOURCE_DIR} OUTPUT_VARIABLE batches COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCHALL "[^\n]+" batches "${batches}")
  list(TRANSFORM batches PREPEND ${PROJECT_SOURCE_DIR}/)
  set(${variable} ${batches} PARENT_SCOPE)
endfunction()

# `programs` builds what a user runs: examples, benchmarks and mixbit_goldens, but not the unit tests.
add_custom_target(programs)

function(mixbit_program name)
  add_executable(${name} ${ARGN})
  target_link_libraries(${name} PRIVATE mixbit_kernels mixbit_linalg)
endfunction()
