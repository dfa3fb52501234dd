# nvcc, and what is compiled by it: the one on the PATH if it knows the targets, else the compiler's own packages from the
# Python package index, pinned by version and hash.
include("${CMAKE_CURRENT_LIST_DIR}/pypi.cmake")

set(ZEROMERGE_CUDA_TARGETS
    "80;90;100"
    CACHE STRING "Compute capabilities that kernels are compiled for: A100, H100, B200")
set(ZEROMERGE_CUDA_OLDEST "12.8") # the first that knows sm_100

# Unpacks the packages into one toolkit and leaves its folder in `result`.
function(zeromerge_cuda_from_pypi result)
  set(root "${ZEROMERGE_DOWNLOADS}/cuda-13.0.88")
  set(${result}
      "${root}/nvidia/cu13"
      PARENT_SCOPE)
  if(EXISTS "${root}/complete")
    return()
  endif()
  if(NOT CMAKE_HOST_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    message(FATAL_ERROR "ZEROMERGE_CUDA: no nvcc ${ZEROMERGE_CUDA_OLDEST} or newer is on the PATH, and the one that could be "
                        "fetched is for x86_64, this is ${CMAKE_HOST_SYSTEM_PROCESSOR}. Install a CUDA toolkit.")
  endif()
  set(linux2014 "py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl")
  set(linux2010 "py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64.whl")
  set(packages
      "nvidia-cuda-nvcc==13.0.88|nvidia_cuda_nvcc-13.0.88-${linux2014}|56fe502eb77625a12f25172caa3cdddb4e4c8ba2c8c17dba44b164761b380f03"
      "nvidia-cuda-crt==13.0.88|nvidia_cuda_crt-13.0.88-${linux2014}|2c8043c7c9e02492716426e9919fc78d2c5b3b2a7a768a88e952676b08aa55a4"
      "nvidia-nvvm==13.0.88|nvidia_nvvm-13.0.88-${linux2010}|c5f41ffeb6466944a026dfa5317d7d85355c119bbec279205d22f1869d1054e0"
      "nvidia-cuda-runtime==13.0.96|nvidia_cuda_runtime-13.0.96-${linux2014}|7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548"
      "nvidia-cuda-cccl==13.0.85|nvidia_cuda_cccl-13.0.85-${linux2014}|e0da7ad981f3a8aff08241b5bfc1af868742a63e2762f53a5171c492ef242649")
  file(MAKE_DIRECTORY "${ZEROMERGE_DOWNLOADS}")
  file(LOCK "${ZEROMERGE_DOWNLOADS}" DIRECTORY GUARD FUNCTION TIMEOUT 1200)
  foreach(package ${packages})
    string(REPLACE "|" ";" parts "${package}")
    list(GET parts 0 requirement)
    list(GET parts 1 file)
    list(GET parts 2 sha256)
    zeromerge_pypi_download(${requirement} --only-binary ${file} ${sha256})
    file(ARCHIVE_EXTRACT INPUT "${ZEROMERGE_DOWNLOADS}/${file}" DESTINATION "${root}")
  endforeach()
  # Archives made on other systems carry no permission to run.
  file(GLOB programs "${root}/nvidia/cu13/bin/*" "${root}/nvidia/cu13/nvvm/bin/*")
  foreach(program ${programs})
    if(NOT IS_DIRECTORY "${program}")
      file(CHMOD "${program}" PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ
                                          WORLD_EXECUTE)
    endif()
  endforeach()
  file(TOUCH "${root}/complete")
endfunction()

# Leaves the version of an nvcc, or nothing if it does not run.
function(zeromerge_nvcc_version nvcc result)
  execute_process(COMMAND "${nvcc}" --version OUTPUT_VARIABLE text ERROR_QUIET)
  string(REGEX MATCH "V([0-9]+\\.[0-9]+\\.[0-9]+)" matched "${text}")
  set(${result}
      "${CMAKE_MATCH_1}"
      PARENT_SCOPE)
endfunction()

find_program(ZEROMERGE_NVCC nvcc DOC "nvcc; without one it is fetched")
if(ZEROMERGE_NVCC)
  zeromerge_nvcc_version("${ZEROMERGE_NVCC}" nvcc_version)
endif()
if(nvcc_version VERSION_GREATER_EQUAL ZEROMERGE_CUDA_OLDEST)
  set(nvcc "${ZEROMERGE_NVCC}")
  # It may be a script that starts another one: let it say where its toolkit is.
  file(CONFIGURE OUTPUT "${PROJECT_BINARY_DIR}/cuda/empty.cu" CONTENT "")
  execute_process(COMMAND "${nvcc}" --dryrun -c "${PROJECT_BINARY_DIR}/cuda/empty.cu" ERROR_VARIABLE text OUTPUT_QUIET)
  string(REGEX MATCH "#\\$ TOP=([^\n]+)" matched "${text}")
  set(cuda_root "${CMAKE_MATCH_1}")
else()
  zeromerge_cuda_from_pypi(cuda_root)
  set(nvcc "${cuda_root}/bin/nvcc")
  zeromerge_nvcc_version("${nvcc}" nvcc_version)
endif()
message(STATUS "CUDA: nvcc ${nvcc_version} (${nvcc})")
find_library(
  ZEROMERGE_CUDART cudart_static
  PATHS "${cuda_root}"
  PATH_SUFFIXES lib64 lib targets/x86_64-linux/lib targets/sbsa-linux/lib
  NO_DEFAULT_PATH REQUIRED
  DOC "The CUDA runtime that our programs carry")

add_library(zeromerge_cudart INTERFACE)
target_link_libraries(zeromerge_cudart INTERFACE "${ZEROMERGE_CUDART}" Threads::Threads ${CMAKE_DL_LIBS} rt)

set(cuda_flags -std=c++20 -Werror all-warnings -Xcompiler=-Wall,-Wextra -Xptxas=-v)
foreach(target ${ZEROMERGE_CUDA_TARGETS})
  list(APPEND cuda_flags "-gencode=arch=compute_${target},code=sm_${target}")
endforeach()

# Compiles sources with nvcc for every target; leaves objects in `objects`, and what ptxas said of each kernel in `logs`.
# Arguments behind these: FLAGS, include folders and definitions as nvcc takes them, then SOURCES and the files. -O among
# FLAGS is the host compiler's level, else 2; kernels are always optimised.
function(zeromerge_cuda_objects objects logs)
  cmake_parse_arguments(PARSE_ARGV 2 cuda "" "" "FLAGS;SOURCES")
  if(NOT "${cuda_FLAGS}" MATCHES "-O[0-9]")
    list(APPEND cuda_FLAGS -O2)
  endif()
  foreach(source ${cuda_SOURCES})
    cmake_path(ABSOLUTE_PATH source NORMALIZE OUTPUT_VARIABLE path)
    cmake_path(RELATIVE_PATH path BASE_DIRECTORY "${PROJECT_SOURCE_DIR}" OUTPUT_VARIABLE name)
    set(object "${PROJECT_BINARY_DIR}/cuda/${name}.o")
    cmake_path(GET object PARENT_PATH folder)
    file(MAKE_DIRECTORY "${folder}")
    add_custom_command(
      OUTPUT "${object}" "${object}.ptxas"
      COMMAND
        "${CMAKE_COMMAND}" -DLOG=${object}.ptxas -P "${PROJECT_SOURCE_DIR}/cmake/run_logged.cmake" -- "${nvcc}" ${cuda_flags}
        ${cuda_FLAGS} "-I${PROJECT_SOURCE_DIR}/include" -x cu -MD -MF "${object}.d" -c "${path}" -o "${object}"
      DEPENDS "${path}" "${PROJECT_SOURCE_DIR}/cmake/run_logged.cmake"
      DEPFILE "${object}.d"
      COMMENT "nvcc ${name}"
      VERBATIM)
    list(APPEND all_objects "${object}")
    list(APPEND all_logs "${object}.ptxas")
  endforeach()
  set(${objects}
      "${all_objects}"
      PARENT_SCOPE)
  set(${logs}
      "${all_logs}"
      PARENT_SCOPE)
endfunction()

# make_cache() of the device with all its kernels, compiled once for our own programs.
file(CONFIGURE OUTPUT "${PROJECT_BINARY_DIR}/cuda/make_cache.cpp" CONTENT "#include \"zeromerge/cuda/compiled.hpp\"\n")
set(cuda_compiled -DZEROMERGE_COMPILED -DZEROMERGE_CUDA_COMPILED)
zeromerge_cuda_objects(objects ZEROMERGE_CUDA_LOGS FLAGS ${cuda_compiled} SOURCES "${PROJECT_BINARY_DIR}/cuda/make_cache.cpp")
add_library(zeromerge_cuda_compiled STATIC EXCLUDE_FROM_ALL ${objects})
set_target_properties(zeromerge_cuda_compiled PROPERTIES LINKER_LANGUAGE CXX)
target_link_libraries(zeromerge_cuda_compiled PUBLIC zeromerge_cudart)
