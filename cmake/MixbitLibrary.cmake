# The targets that users link: mixbit::mixbit, mixbit::reference (the CPU backends) and mixbit::cuda (headers alone: link
# CUDA::cudart beside it).
# They carry include directories, the language standard and what the headers include; no flags.
find_package(Threads REQUIRED)
find_package(nlohmann_json REQUIRED)
include(GNUInstallDirs)

function(mixbit_interface_library name include_dir)
  add_library(mixbit_${name} INTERFACE)
  add_library(mixbit::${name} ALIAS mixbit_${name})
  set_target_properties(mixbit_${name} PROPERTIES EXPORT_NAME ${name})
  target_compile_features(mixbit_${name} INTERFACE cxx_std_20)
  target_include_directories(mixbit_${name} INTERFACE
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/${include_dir}>
    $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
endfunction()

mixbit_interface_library(mixbit include)
target_link_libraries(mixbit_mixbit INTERFACE Threads::Threads nlohmann_json::nlohmann_json)
mixbit_interface_library(reference reference)
target_link_libraries(mixbit_reference INTERFACE mixbit::mixbit)
mixbit_interface_library(cuda cuda)
target_link_libraries(mixbit_cuda INTERFACE mixbit::mixbit)
