# llama.cpp and ggml as a program's author has them: unmodified, shared, optimised whatever our own build type is.
# Their sources come inside the source package of llama-cpp-python, pinned by version and hash.
include("${CMAKE_CURRENT_LIST_DIR}/pypi.cmake")

set(ZEROMERGE_LLAMA_VERSION "0.3.36")
set(llama_archive "llama_cpp_python-${ZEROMERGE_LLAMA_VERSION}.tar.gz")
set(ZEROMERGE_LLAMA_DIR "${ZEROMERGE_DOWNLOADS}/llama.cpp-${ZEROMERGE_LLAMA_VERSION}")

file(MAKE_DIRECTORY "${ZEROMERGE_DOWNLOADS}")
file(LOCK "${ZEROMERGE_DOWNLOADS}" DIRECTORY GUARD FILE TIMEOUT 1200)
if(NOT EXISTS "${ZEROMERGE_LLAMA_DIR}/CMakeLists.txt")
  zeromerge_pypi_download("llama-cpp-python==${ZEROMERGE_LLAMA_VERSION}" --no-binary ${llama_archive}
                          "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e")
  set(unpacked "${ZEROMERGE_LLAMA_DIR}.part")
  file(REMOVE_RECURSE "${unpacked}")
  set(inside "llama_cpp_python-${ZEROMERGE_LLAMA_VERSION}/vendor/llama.cpp")
  file(
    ARCHIVE_EXTRACT
    INPUT
    "${ZEROMERGE_DOWNLOADS}/${llama_archive}"
    DESTINATION
    "${unpacked}"
    PATTERNS
    "${inside}/CMakeLists.txt"
    "${inside}/LICENSE"
    "${inside}/cmake/*"
    "${inside}/ggml/*"
    "${inside}/include/*"
    "${inside}/src/*"
    "${inside}/vendor/*")
  file(RENAME "${unpacked}/${inside}" "${ZEROMERGE_LLAMA_DIR}")
  file(REMOVE_RECURSE "${unpacked}")
endif()
file(LOCK "${ZEROMERGE_DOWNLOADS}" DIRECTORY RELEASE)

option(GGML_NATIVE "ggml: compile for this machine's CPU" ON)

# Compiled for this machine's CPU, but without two faults that cost llama.cpp its speed or its life, for everything
# measured beside it would look faster than it is:
# - With AVX512-FP16 ggml steps through f16 vectors by 128 and leaves heads of 64 to a scalar loop: flash attention over f16
#   cells then runs at 4.2 instead of 8.0 tokens/s (SmolLM2-135M, 8K, AMX off in both). Heads of 128 were not measured.
# - With AMX and GCC before 13.3 the first prompt ends in an illegal instruction (gcc_tile_config.h). AMX itself must stay: a
#   token at an empty context takes half the time with it.
set(ZEROMERGE_LLAMA_CPU_OPTIONS "")
set(ZEROMERGE_LLAMA_CPU_INCLUDE "")
if(GGML_NATIVE AND CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  include(CheckCXXCompilerFlag)
  check_cxx_compiler_flag(-mno-avx512fp16 ZEROMERGE_KNOWS_AVX512FP16)
  if(ZEROMERGE_KNOWS_AVX512FP16)
    set(ZEROMERGE_LLAMA_CPU_OPTIONS -mno-avx512fp16)
  endif()
  if(CMAKE_CXX_COMPILER_ID STREQUAL GNU AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13.3)
    set(ZEROMERGE_LLAMA_CPU_INCLUDE "SHELL:-include \"${CMAKE_CURRENT_LIST_DIR}/gcc_tile_config.h\"")
  endif()
endif()

# A function, so that the variables below end with it.
function(zeromerge_add_llama_cpp)
  set(BUILD_SHARED_LIBS ON)
  set(CMAKE_BUILD_TYPE Release)
  set(CMAKE_CXX_FLAGS "")
  set(CMAKE_EXPORT_COMPILE_COMMANDS OFF)
  set(CMAKE_MESSAGE_LOG_LEVEL WARNING)
  set(LLAMA_ALL_WARNINGS OFF)
  foreach(part COMMON TESTS TOOLS EXAMPLES SERVER APP UI)
    set(LLAMA_BUILD_${part} OFF)
  endforeach()
  set(GGML_OPENMP ON)
  set(GGML_CCACHE OFF)
  # Their build takes the enclosing repository's commit for its own and would compile anew after each of ours:
  # let git answer nothing.
  set(GIT_EXE "${CMAKE_COMMAND};-E;true")
  set(GIT_EXECUTABLE "${CMAKE_COMMAND};-E;true")
  add_subdirectory("${ZEROMERGE_LLAMA_DIR}" "${PROJECT_BINARY_DIR}/llama.cpp" EXCLUDE_FROM_ALL SYSTEM)
  foreach(library ggml-base ggml-cpu ggml llama)
    target_compile_options(${library} PRIVATE -w)
    set_target_properties(${library} PROPERTIES LIBRARY_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/lib")
  endforeach()
  target_compile_options(ggml-cpu PRIVATE ${ZEROMERGE_LLAMA_CPU_OPTIONS} ${ZEROMERGE_LLAMA_CPU_INCLUDE})
endfunction()
zeromerge_add_llama_cpp()
