# Sourced by examples/run and tests/run. `need_packages NAME...` installs the Debian packages that are missing and does
# nothing, quickly, when none is.

need_packages() {
  if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    local tool missing_tools=()
    for tool in g++ cmake ninja python3; do
      command -v "$tool" >/dev/null || missing_tools+=("$tool")
    done
    if ((${#missing_tools[@]})); then
      echo "error: not a Debian system, so nothing was installed; please install: ${missing_tools[*]}" >&2
      echo "       (and what these Debian packages hold: $*)" >&2
      return 1
    fi
    return 0
  fi

  local package missing=()
  for package in "$@"; do
    [[ $(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
  done
  ((${#missing[@]})) || return 0

  local as_root=()
  if ((EUID != 0)); then
    if ! command -v sudo >/dev/null; then
      echo "error: missing packages, and neither root nor sudo to install them: ${missing[*]}" >&2
      return 1
    fi
    as_root=(sudo)
  fi
  echo "installing: ${missing[*]}"
  local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq)
  if ! { "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends "${missing[@]}" >/dev/null; }; then
    echo "error: could not install ${missing[*]}; is the network there?" >&2
    return 1
  fi
}

# What every build of this repository needs.
build_packages=(g++ cmake ninja-build git ca-certificates python3 python3-pip libgtest-dev nlohmann-json3-dev
  libcli11-dev)
# What the tests need besides.
test_packages=(clang libclang-rt-dev libomp-dev)
# Renders the page that zeromerge-evaluate writes; without it that test is skipped.
browser_packages=(chromium)
# For another CPU; without them that test is skipped.
cross_packages=(g++-aarch64-linux-gnu qemu-user)
# What the benches need besides.
bench_packages=(libbenchmark-dev)
