# llama.cpp and ggml as a program's author has them: unmodified, shared, optimised whatever our own build type is.
# Their sources come inside the source package of llama-cpp-python, pinned by version and hash.
include("${CMAKE_CURRENT_LIST_DIR}/pypi.cmake")

set(ZEROMERGE_LLAMA_VERSION "0.3.36")
set(llama_archive "llama_cpp_python-${ZEROMERGE_LLAMA_VERSION}.tar.gz")
set(ZEROMERGE_LLAMA_DIR "${ZEROMERGE_DOWNLOADS}/llama.cpp-${ZEROMERGE_LLAMA_VERSION}")

# Its libraries and its programs, with what they share.
set(llama_parts CMakeLists.txt LICENSE cmake common ggml include scripts src tools vendor)

file(MAKE_DIRECTORY "${ZEROMERGE_DOWNLOADS}")
file(LOCK "${ZEROMERGE_DOWNLOADS}" DIRECTORY GUARD FILE TIMEOUT 1200)
set(llama_missing ${llama_parts})
foreach(part IN LISTS llama_parts)
  if(EXISTS "${ZEROMERGE_LLAMA_DIR}/${part}")
    list(REMOVE_ITEM llama_missing ${part})
  endif()
endforeach()
if(llama_missing)
  zeromerge_pypi_download("llama-cpp-python==${ZEROMERGE_LLAMA_VERSION}" --no-binary ${llama_archive}
                          "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e")
  set(unpacked "${ZEROMERGE_LLAMA_DIR}.part")
  file(REMOVE_RECURSE "${unpacked}")
  set(inside "llama_cpp_python-${ZEROMERGE_LLAMA_VERSION}/vendor/llama.cpp")
  list(TRANSFORM llama_missing REPLACE "(.+)" "${inside}/\\1*" OUTPUT_VARIABLE patterns)
  file(
    ARCHIVE_EXTRACT
    INPUT
    "${ZEROMERGE_DOWNLOADS}/${llama_archive}"
    DESTINATION
    "${unpacked}"
    PATTERNS
    ${patterns})
  # What is there already stays as it is, and what was built from it with it.
  file(MAKE_DIRECTORY "${ZEROMERGE_LLAMA_DIR}")
  foreach(part IN LISTS llama_missing)
    file(RENAME "${unpacked}/${inside}/${part}" "${ZEROMERGE_LLAMA_DIR}/${part}")
  endforeach()
  file(REMOVE_RECURSE "${unpacked}")
endif()
file(LOCK "${ZEROMERGE_DOWNLOADS}" DIRECTORY RELEASE)

set(ZEROMERGE_LLAMA_BUILT
    ""
    CACHE PATH "Another build folder of this project: its llama.cpp is used, none is built (for plug-ins with sanitizers)")
if(ZEROMERGE_LLAMA_BUILT)
  foreach(library ggml-base ggml-cpu ggml llama)
    add_library(${library} SHARED IMPORTED GLOBAL)
    set_target_properties(
      ${library}
      PROPERTIES IMPORTED_LOCATION "${ZEROMERGE_LLAMA_BUILT}/lib/lib${library}.so"
                 INTERFACE_INCLUDE_DIRECTORIES "${ZEROMERGE_LLAMA_DIR}/include;${ZEROMERGE_LLAMA_DIR}/ggml/include")
  endforeach()
  target_link_libraries(ggml INTERFACE ggml-cpu ggml-base)
  target_link_libraries(llama INTERFACE ggml)
  foreach(program llama-server llama-quantize)
    add_executable(${program} IMPORTED GLOBAL)
    set_target_properties(${program} PROPERTIES IMPORTED_LOCATION "${ZEROMERGE_LLAMA_BUILT}/bin/${program}")
  endforeach()
  return()
endif()

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
  foreach(part TESTS EXAMPLES APP UI)
    set(LLAMA_BUILD_${part} OFF)
  endforeach()
  foreach(part COMMON TOOLS SERVER)
    set(LLAMA_BUILD_${part} ON)
  endforeach()
  foreach(part USE_PREBUILT_UI OPENSSL)
    set(LLAMA_${part} OFF)
  endforeach()
  set(GGML_OPENMP ON)
  set(GGML_CCACHE OFF)
  # Their build takes the enclosing repository's commit for its own and would compile anew after each of ours:
  # let git answer nothing.
  set(GIT_EXE "${CMAKE_COMMAND};-E;true")
  set(GIT_EXECUTABLE "${CMAKE_COMMAND};-E;true")
  set(LLAMA_BUILD_NUMBER 0)
  set(LLAMA_BUILD_COMMIT "unknown")
  add_subdirectory("${ZEROMERGE_LLAMA_DIR}" "${PROJECT_BINARY_DIR}/llama.cpp" EXCLUDE_FROM_ALL SYSTEM)
  set(programs llama-server llama-cli llama-completion llama-bench llama-quantize)
  list(TRANSFORM programs APPEND -impl OUTPUT_VARIABLE program_libraries)
  foreach(library ggml-base ggml-cpu ggml llama llama-common mtmd ${program_libraries})
    target_compile_options(${library} PRIVATE -w)
    set_target_properties(${library} PROPERTIES LIBRARY_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/lib")
  endforeach()
  target_compile_options(ggml-cpu PRIVATE ${ZEROMERGE_LLAMA_CPU_OPTIONS} ${ZEROMERGE_LLAMA_CPU_INCLUDE})
  # Their own part of a token's time is small whatever the compiler does, but compiling it is not: as single files with
  # full optimisation these sources take longer than llama.cpp's libraries. Of mtmd (pictures, sounds) nothing is called.
  foreach(library llama-common cpp-httplib server-context ${program_libraries})
    target_compile_options(${library} PRIVATE -O1)
  endforeach()
  target_compile_options(mtmd PRIVATE -O0)
  set_target_properties(llama-common PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 12)
  set_target_properties(server-context mtmd PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 0)
  set(alone common/json.cpp common/jinja/value.cpp)
  list(TRANSFORM alone PREPEND "${ZEROMERGE_LLAMA_DIR}/")
  set_source_files_properties(${alone} TARGET_DIRECTORY llama-common PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
  set(alone tools/mtmd/mtmd-helper.cpp tools/mtmd/mtmd-helper-gen.cpp)
  list(TRANSFORM alone PREPEND "${ZEROMERGE_LLAMA_DIR}/")
  set_source_files_properties(${alone} TARGET_DIRECTORY mtmd PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
  # The programs that people start, for tests and benches of the plug-in in them.
  add_custom_target(zeromerge-llama-programs DEPENDS ${programs})
endfunction()
zeromerge_add_llama_cpp()
