# find_package(zeromerge): headers, targets, and a version file that fits every architecture, as headers do.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(package_dir "${CMAKE_INSTALL_DATADIR}/cmake/zeromerge")
install(
  TARGETS zeromerge
  EXPORT zeromergeTargets
  FILE_SET HEADERS
  FILE_SET inlines)
install(EXPORT zeromergeTargets NAMESPACE zeromerge:: DESTINATION "${package_dir}")

configure_package_config_file("${CMAKE_CURRENT_LIST_DIR}/zeromergeConfig.cmake.in"
                              "${PROJECT_BINARY_DIR}/zeromergeConfig.cmake" INSTALL_DESTINATION "${package_dir}")
# Before 1.0 a minor version may change the interface.
write_basic_package_version_file("${PROJECT_BINARY_DIR}/zeromergeConfigVersion.cmake" COMPATIBILITY SameMinorVersion
                                 ARCH_INDEPENDENT)
install(FILES "${PROJECT_BINARY_DIR}/zeromergeConfig.cmake" "${PROJECT_BINARY_DIR}/zeromergeConfigVersion.cmake"
              "${CMAKE_CURRENT_LIST_DIR}/zeromergeCompiled.cmake"
        DESTINATION "${package_dir}")
