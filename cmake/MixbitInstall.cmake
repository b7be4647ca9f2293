# Installs the headers, the CMake package (find_package(mixbit)) and mixbit.pc.
include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_DATADIR}/cmake/mixbit)

install(DIRECTORY include/mixbit reference/mixbit cuda/mixbit
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
  FILES_MATCHING PATTERN "*.hpp" PATTERN "*.inc" PATTERN "*.cuh")
install(TARGETS mixbit_mixbit mixbit_reference mixbit_cuda EXPORT mixbit_targets)
install(EXPORT mixbit_targets NAMESPACE mixbit:: FILE mixbitTargets.cmake DESTINATION ${package_dir})

configure_package_config_file(cmake/mixbitConfig.cmake.in ${PROJECT_BINARY_DIR}/package/mixbitConfig.cmake
  INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/package/mixbitConfigVersion.cmake
  COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
configure_file(cmake/mixbit.pc.in ${PROJECT_BINARY_DIR}/package/mixbit.pc @ONLY)
install(FILES
  ${PROJECT_BINARY_DIR}/package/mixbitConfig.cmake
  ${PROJECT_BINARY_DIR}/package/mixbitConfigVersion.cmake
  DESTINATION ${package_dir})
install(FILES ${PROJECT_BINARY_DIR}/package/mixbit.pc DESTINATION ${CMAKE_INSTALL_DATADIR}/pkgconfig)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
