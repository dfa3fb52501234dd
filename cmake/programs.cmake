# What our own programs (tests, examples, plug-in) are compiled with. The library itself carries none of it.
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/bin")
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/lib")
# One relative run path, right from bin/ and from lib/: a build folder may be moved or copied whole.
set(CMAKE_BUILD_WITH_INSTALL_RPATH ON)
set(CMAKE_INSTALL_RPATH "$ORIGIN/../lib")
set(CMAKE_CXX_EXTENSIONS OFF)

add_library(zeromerge_warnings INTERFACE)
target_compile_options(zeromerge_warnings INTERFACE -Wall -Wextra -Wpedantic -Wshadow
                                                    $<$<BOOL:${ZEROMERGE_WERROR}>:-Werror>)
# GCC 12 sees overlapping copies in "text" + std::string (its bug 105651).
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  target_compile_options(zeromerge_warnings INTERFACE -Wno-restrict)
endif()

# For this machine's CPU and with sanitizers, if asked for: the compiled part of the library too.
add_library(zeromerge_flags INTERFACE)
if(ZEROMERGE_NATIVE)
  target_compile_options(zeromerge_flags INTERFACE -march=native)
endif()
if(ZEROMERGE_SANITIZE)
  list(JOIN ZEROMERGE_SANITIZE "," sanitizers)
  target_compile_options(zeromerge_flags INTERFACE -fsanitize=${sanitizers} -fno-sanitize-recover=all
                                                   -fno-omit-frame-pointer)
  target_compile_definitions(zeromerge_flags INTERFACE ZEROMERGE_UNROLL=) # kernels/cpu/region.hpp
  target_link_options(zeromerge_flags INTERFACE -fsanitize=${sanitizers})
endif()

add_library(zeromerge_programs INTERFACE)
target_link_libraries(zeromerge_programs INTERFACE zeromerge::compiled zeromerge_flags zeromerge_warnings)
target_link_libraries(zeromerge_compiled PRIVATE zeromerge_flags zeromerge_warnings)
