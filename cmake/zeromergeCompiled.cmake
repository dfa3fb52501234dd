# zeromerge::compiled: the library with its kernels and make_cache() compiled once, in a static library that is built when
# something links to it. Sources are one line each, written here, so that the installed headers suffice.
foreach(part cache kernels)
  set(source "${CMAKE_CURRENT_BINARY_DIR}/zeromerge_compiled_${part}.cpp")
  file(CONFIGURE OUTPUT "${source}" CONTENT "#include <zeromerge/${part}/compiled.hpp>\n")
  list(APPEND zeromerge_compiled_sources "${source}")
endforeach()
add_library(zeromerge_compiled STATIC EXCLUDE_FROM_ALL ${zeromerge_compiled_sources})
add_library(zeromerge::compiled ALIAS zeromerge_compiled)
target_link_libraries(zeromerge_compiled PUBLIC zeromerge::zeromerge)
target_compile_definitions(zeromerge_compiled PUBLIC ZEROMERGE_COMPILED)
set_target_properties(zeromerge_compiled PROPERTIES POSITION_INDEPENDENT_CODE ON CXX_VISIBILITY_PRESET hidden
                                                    VISIBILITY_INLINES_HIDDEN ON)
