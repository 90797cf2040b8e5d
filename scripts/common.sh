# What scripts/start, scripts/test and scripts/lock share: finding Python, the virtual environment, PostgreSQL, SoftHSM2. To be
# sourced by a bash script that has `set -euo pipefail`; it goes to the project's root and defines functions.
# Nothing is needed beforehand but Python 3.11 or newer; what else is missing is installed (as root, or with a sudo that
# asks no password) or named in the error.
# shellcheck shell=bash

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly ROOT
readonly VENV="$ROOT/.venv"
cd "$ROOT"

say() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; }

fail() {
  say "$@"
  exit 1
}

can_be_root() { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

apt_install() {
  say "installing $*"
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >/dev/null
}

is_python() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

# Prints the first Python that is new enough; PYTHON=/some/python3 chooses another.
find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3}; do
    if is_python "$candidate"; then
      command -v "$candidate"
      return
    fi
  done
  fail "Python 3.11 or newer is needed (on Debian 12 and later: apt-get install python3 python3-venv)." \
    "If it has an unusual name: PYTHON=/path/to/python3 $0"
}

# Who may not install packages may still fetch and unpack them. apt checks their signatures as always, and nothing outside
# of the folder is touched. unpack FOLDER download|install PACKAGE…: these alone, or with all that the machine lacks for them.
unpack() {
  local folder=$1 how=$2
  shift 2
  local apt=(apt-get -qq -o "Dir::State=$folder" -o "Dir::Cache=$folder" -o Dir::State::status=/var/lib/dpkg/status)
  local packages=("$@") package
  mkdir -p "$folder/lists/partial" "$folder/archives/partial"
  "${apt[@]}" update || return
  if [ "$how" = install ]; then
    # Simulated: "Inst libicu72 (72.1-3 Debian:12/stable [amd64])"
    mapfile -t packages < <("${apt[@]}" install --simulate --no-install-recommends "$@" | awk '$1 == "Inst" {print $2}')
  fi
  (cd "$folder" && "${apt[@]}" download "${packages[@]}") || return
  for package in "$folder"/*.deb; do dpkg-deb -x "$package" "$folder/files" || return; done
}

make_venv() {
  local python=$1
  local hint="run as root: apt-get install python3-venv"
  rm -rf "$VENV"
  if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    command -v apt-get >/dev/null || fail "$python has no venv and ensurepip: install them, then run this again."
    if can_be_root; then
      apt_install python3-venv || fail "python3-venv could not be installed; $hint"
    fi
  fi
  if "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    "$python" -m venv "$VENV" || fail "no virtual environment could be made in $ROOT: may you write there?"
    return
  fi
  local scratch
  scratch=$(mktemp -d)
  say "python3-venv is not installed: taking pip from Debian's package, without installing it"
  # Debian keeps what puts pip into a new environment in packages of its own.
  unpack "$scratch" download python3-pip-whl >&2 || fail "pip could not be fetched; $hint"
  local wheels=("$scratch"/files/usr/share/python-wheels/pip-*.whl)
  "$python" -m venv --without-pip "$VENV" || fail "no virtual environment could be made in $ROOT: may you write there?"
  "$VENV/bin/python" "${wheels[0]}/pip" install --quiet --no-index "${wheels[0]}"
  rm -rf "$scratch"
}

# What an installation depends on. The root is part of it because the entry points hold absolute paths.
installation() {
  printf '%s\n' "$ROOT"
  cat "$1" pyproject.toml
}

is_installed() {
  local stamp=$1 requirements=$2
  [ -x "$VENV/bin/audit-ledger" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$(installation "$requirements")" ]
}

# ensure_environment runtime|dev: .venv has exactly the pinned versions, and the project itself. Quick if it has already.
ensure_environment() {
  local requirements=requirements.txt stamp="$VENV/installed-$1"
  if [ "$1" = dev ]; then requirements=requirements-dev.txt; fi
  if is_installed "$stamp" "$requirements"; then return; fi
  {
    # Two scripts that start at the same moment must not install over each other.
    if command -v flock >/dev/null; then flock 9; fi
    if is_installed "$stamp" "$requirements"; then return; fi
    if ! is_python "$VENV/bin/python" || ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
      local python
      python=$(find_python)
      say "making .venv with $("$python" --version)"
      make_venv "$python"
    fi
    say "installing $requirements into .venv"
    rm -f "$VENV"/installed-*
    local pip=("$VENV/bin/python" -m pip --disable-pip-version-check --quiet)
    "${pip[@]}" install --require-hashes -r "$requirements"
    # The build backend is among the pinned versions: nothing without a hash is fetched or run.
    "${pip[@]}" install --no-deps --no-build-isolation -e .
    # The pins are what pyproject.toml asks for.
    "${pip[@]}" check >&2
    # What is pinned to run is pinned the same to check: who has the second has the first.
    installation requirements.txt >"$VENV/installed-runtime"
    if [ "$1" = dev ]; then installation "$requirements" >"$stamp"; fi
  } 9<"$ROOT"
}

# One place knows where PostgreSQL's programs are looked for: the tests' own support.
has_postgres() {
  "$VENV/bin/python" -c '
import sys
from tests.support.postgres import find_bin_directory
sys.exit(find_bin_directory() is None)'
}

# Puts PostgreSQL's programs into .venv/postgres/bin, for who may not install them. Each is a small script that tells the
# unpacked program where the unpacked libraries are.
unpack_postgres() {
  local folder="$VENV/postgres" program libraries
  rm -rf "$folder"
  unpack "$folder" install postgresql >&2 || return
  rm -rf "$folder"/*.deb "$folder/lists" "$folder/archives" "$folder"/*.bin
  libraries=$(dirname "$(find "$folder/files/usr/lib" -name 'libpq.so.*' | head -n 1)")
  mkdir "$folder/bin"
  for program in "$folder"/files/usr/lib/postgresql/*/bin/*; do
    printf '#!/bin/sh\nLD_LIBRARY_PATH="%s" exec "%s" "$@"\n' "$libraries" "$program" >"$folder/bin/${program##*/}"
  done
  chmod +x "$folder"/bin/*
}

# The tests run PostgreSQL servers of their own, in temporary folders: its programs must be there, no cluster is used.
ensure_postgres() {
  if has_postgres; then return; fi
  local hint="The tests need PostgreSQL 13 or newer (initdb, postgres, pg_dump): run as root: apt-get install postgresql"
  hint+=", or give the folder of its programs: POSTGRES_BIN=/that/folder $0"
  command -v apt-get >/dev/null || fail "$hint"
  if can_be_root; then
    apt_install postgresql || fail "PostgreSQL could not be installed. $hint"
  else
    say "PostgreSQL is not installed: unpacking Debian's packages into .venv, without installing them"
    unpack_postgres || fail "PostgreSQL could not be fetched. $hint"
  fi
  has_postgres || fail "PostgreSQL was fetched, but its programs were not found. $hint"
}

# Not only that it is there, but that it can be loaded.
has_softhsm() {
  "$VENV/bin/python" -c '
import ctypes, sys
from tests.support.softhsm import find_softhsm
found = find_softhsm()
if found is None:
    sys.exit(1)
ctypes.CDLL(str(found[0]))' 2>/dev/null
}

# Puts SoftHSM2 into .venv/softhsm, for who may not install it.
unpack_softhsm() {
  local folder="$VENV/softhsm"
  rm -rf "$folder"
  unpack "$folder" install softhsm2 >&2 || return
  rm -rf "$folder"/*.deb "$folder/lists" "$folder/archives" "$folder"/*.bin
  mkdir "$folder/bin" "$folder/lib"
  ln -s "$(find "$folder/files/usr/lib" -type f -name libsofthsm2.so | head -n 1)" "$folder/lib/libsofthsm2.so"
  ln -s "$folder/files/usr/bin/softhsm2-util" "$folder/bin/softhsm2-util"
}

# The tests keep keys in tokens of their own, in temporary folders.
ensure_softhsm() {
  if has_softhsm; then return; fi
  local hint="The tests need SoftHSM2 (libsofthsm2.so, softhsm2-util): run as root: apt-get install softhsm2"
  hint+=", or, with softhsm2-util on the PATH, give the module: SOFTHSM2_MODULE=/that/libsofthsm2.so $0"
  command -v apt-get >/dev/null || fail "$hint"
  if can_be_root; then
    apt_install softhsm2 || fail "SoftHSM2 could not be installed. $hint"
  else
    say "SoftHSM2 is not installed: unpacking Debian's packages into .venv, without installing them"
    unpack_softhsm || fail "SoftHSM2 could not be fetched. $hint"
  fi
  has_softhsm || fail "SoftHSM2 was fetched, but it was not found or cannot be loaded. $hint"
}

has_go() {
  "$VENV/bin/python" -c '
import sys
from tests.support.golang import find_go
sys.exit(find_go() is None)'
}

# Puts Go and golang.org/x/mod into .venv/golang, for who may not install them.
unpack_go() {
  local folder="$VENV/golang"
  rm -rf "$folder"
  unpack "$folder" install golang-go golang-golang-x-mod-dev >&2 || return
  rm -rf "$folder"/*.deb "$folder/lists" "$folder/archives" "$folder"/*.bin
  # Debian's links between its folders are absolute.
  ln -sfn "$(basename "$(find "$folder/files/usr/lib" -maxdepth 1 -name 'go-1*')")" "$folder/files/usr/lib/go"
  local root="$folder/files/usr/lib/go" share
  share=$(find "$folder/files/usr/share" -maxdepth 1 -name 'go-1*')
  for name in api misc src test; do [ ! -d "$share/$name" ] || ln -sfn "$share/$name" "$root/$name"; done
  [ ! -d "$share/pkg/include" ] || ln -sfn "$share/pkg/include" "$root/pkg/include"
}

# The tests have what a ledger publishes checked by a program that is made of others' code.
ensure_go() {
  if has_go; then return; fi
  local hint="The tests need Go and golang.org/x/mod: run as root: apt-get install golang-go golang-golang-x-mod-dev"
  command -v apt-get >/dev/null || fail "$hint"
  if can_be_root; then
    apt_install golang-go golang-golang-x-mod-dev || fail "Go could not be installed. $hint"
  else
    say "Go is not installed: unpacking Debian's packages into .venv, without installing them"
    unpack_go || fail "Go could not be fetched. $hint"
  fi
  has_go || fail "Go was fetched, but it was not found. $hint"
}
