# shellcheck shell=bash
# Shared by the scripts: messages, and installing the tools they need. Sourced, never run.
#
# A script first names everything it needs (need, need_rust, need_target, need_python), then calls needs_met. This reports all
# missing tools at once, with the one command that would install them.

CALLED_IN=$PWD # before a script changes to ROOT
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# A fresh rustup needs a new login before cargo is in PATH, and Debian keeps nginx out of a user's PATH.
PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin:/usr/sbin:/sbin"

if [[ -t 1 && -z ${NO_COLOR:-} ]]; then
    BOLD=$'\e[1m' RED=$'\e[31m' GREEN=$'\e[32m' YELLOW=$'\e[33m' PLAIN=$'\e[0m'
else
    BOLD='' RED='' GREEN='' YELLOW='' PLAIN=''
fi

say() { printf '%s\n' "$*"; }
heading() { printf '\n%s%s%s\n' "$BOLD" "$*" "$PLAIN"; }
good() { printf '%s%s%s\n' "$GREEN" "$*" "$PLAIN"; }
warn() { printf '%s%s%s\n' "$YELLOW" "$*" "$PLAIN" >&2; }
fail() { printf '%s%s%s\n' "$RED" "$*" "$PLAIN" >&2; }
die() {
    fail "$*"
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# as_called PATH: PATH, absolute. A relative one starts at the folder in which the script was called.
as_called() { if [[ $1 == /* ]]; then say "$1"; else say "$CALLED_IN/$1"; fi; }

# The time for reproducible builds, in seconds: SOURCE_DATE_EPOCH, or the time of the last commit; empty if there is neither.
source_date() { printf '%s' "${SOURCE_DATE_EPOCH:-$(git -C "$ROOT" log -1 --format=%ct 2>/dev/null || true)}"; }

# --- what is missing ------------------------------------------------------------------------------------------------

MISSING_PACKAGES=() # Debian packages that could not be installed from here
MISSING_OTHER=()    # commands that would get the rest

# Runs a command as root. Fails if a person would have to type a password.
as_root() {
    if ((EUID == 0)); then
        "$@"
    elif have sudo && sudo -n true 2>/dev/null; then
        sudo -n "$@"
    else
        return 1
    fi
}

apt_install() {
    have apt-get || return 1
    as_root true || return 1
    say "installing $* (apt)"
    # One process at a time, because stages may run in parallel: apt-get waits for other installations, but not for other list updates.
    local alone=(flock /var/lib/apt env) install
    install=("${alone[@]}" DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120 install -y --no-install-recommends "$@")
    # The first attempt avoids downloading the package lists. They are downloaded if they are missing or too old.
    if as_root "${install[@]}" >/dev/null 2>&1; then return; fi
    as_root "${alone[@]}" apt-get -qq -o DPkg::Lock::Timeout=120 update && as_root "${install[@]}" >/dev/null
}

# need CMD PACKAGE...: installs the Debian packages if there is no tool CMD.
need() {
    local command=$1
    shift
    have "$command" && return
    if apt_install "$@"; then
        hash -r
        have "$command" && return
    fi
    MISSING_PACKAGES+=("$@")
}

# want CMD PACKAGE...: like need, but for an optional tool: without it the work is less complete. In CI it is required.
want() {
    if [[ ${CI:-} == true ]]; then need "$@"; else have "$1" || apt_install "${@:2}" || true; fi
}

# need_rust: requires cargo, new enough, and the linker that it calls for programs of this machine.
need_rust() {
    need cc gcc libc6-dev
    if ! have cargo; then
        warn "Rust is missing (Debian's own is too old)"
        need curl curl
        MISSING_OTHER+=("curl https://sh.rustup.rs -sSf | sh")
        return
    fi
    local wanted found
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml")
    found=$(cargo --version | cut -d' ' -f2)
    if [[ $(printf '%s\n' "$wanted" "${found%%-*}" | sort -V | head -n1) != "$wanted" ]]; then
        warn "Rust $wanted or newer is needed; this is $found"
        MISSING_OTHER+=("rustup update stable")
    fi
}

# need_target TARGET: requires Rust's standard library for TARGET.
need_target() {
    local target=$1
    have rustc || return 0 # need_rust has reported it
    [[ -d $(rustc --print sysroot)/lib/rustlib/$target/lib ]] && return
    have rustup && flock "$ROOT" rustup target add "$target" && return
    MISSING_OTHER+=("rustup target add $target")
}

# need_python VENV ARGUMENT...: creates a virtual environment in VENV and runs `pip install ARGUMENT...` in it. Name a
# requirements file as `-r FILE`. Created anew only if the arguments or the file change.
need_python() {
    local venv=$1 argument wanted
    shift
    need python3 python3
    have python3 || return 0
    python3 -c 'import ensurepip, venv' 2>/dev/null || apt_install python3-venv || {
        MISSING_PACKAGES+=(python3-venv)
        return 0
    }
    wanted=$(
        printf '%s\n' "$@"
        for argument; do if [[ -f $argument ]]; then cat "$argument"; fi; done
    )
    [[ -x $venv/bin/python3 && $(cat "$venv/.installed" 2>/dev/null) == "$wanted" ]] && return
    say "making a Python environment in ${venv#"$ROOT"/}"
    if python3 -m venv --clear "$venv" && "$venv/bin/python3" -m pip --quiet --disable-pip-version-check install "$@"; then
        printf '%s\n' "$wanted" >"$venv/.installed"
    else
        MISSING_OTHER+=("python3 -m venv --clear $venv && $venv/bin/pip install $*")
    fi
}

# The command that installs everything missing; empty if nothing is missing.
missing_command() {
    local sudo=''
    ((EUID == 0)) || sudo='sudo '
    if ((${#MISSING_PACKAGES[@]})); then
        say "${sudo}apt-get update && ${sudo}apt-get install -y ${MISSING_PACKAGES[*]}"
    fi
    if ((${#MISSING_OTHER[@]})); then printf '%s\n' "${MISSING_OTHER[@]}"; fi
}

# needs_met: stops if something is missing, and names all of it.
needs_met() {
    local command
    command=$(missing_command)
    [[ -z $command ]] && return
    fail "Some tools are missing and could not be installed from here. Please type:"
    say "$command" >&2
    exit 1
}

# --- what is built --------------------------------------------------------------------------------------------------

BOX_TARGET=aarch64-unknown-linux-musl

# counting_plugin FILE: builds FILE, a plugin that counts instructions under qemu-aarch64. Fails if this qemu does not support
# plugins. Run scripts/build first.
counting_plugin() {
    local api
    mkdir -p "${1%/*}"
    for api in 1 2; do
        cc -O2 -Wall -Wextra -Werror -shared -fPIC -DPLUGIN_API="$api" -o "$1" "$ROOT/tests/instructions/blocks.c"
        if qemu-aarch64 -plugin "$1,table=${1%.so}" "$ROOT/dist/aarch64/sophon-uplink" --version; then return; fi
    done
    return 1
}

# bill_of_materials: prints the components of the box's programs as CycloneDX.
bill_of_materials() {
    local work epoch
    epoch=$(source_date)
    work=$(mktemp -d)
    cargo metadata --locked --format-version 1 --filter-platform "$BOX_TARGET" >"$work/metadata"
    cargo tree --locked --edges normal --target "$BOX_TARGET" --prefix none >"$work/tree"
    python3 -B scripts/lib/sbom.py --metadata "$work/metadata" --tree "$work/tree" --lock Cargo.lock \
        --rust "$(rustc --version | cut -d' ' -f2)" --epoch "${epoch:-$(date +%s)}"
    rm -r "$work"
}
