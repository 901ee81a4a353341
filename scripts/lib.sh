# shellcheck shell=bash
# What the scripts share: messages, and getting hold of the tools they need. Sourced, never run.
#
# A script first names everything it needs (need, need_rust, need_target, need_python), then calls needs_met: what could
# not be had is reported all at once, with the one command that would help, instead of one piece at each attempt.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# A fresh rustup asks for a new login before cargo is found, and Debian keeps nginx out of a user's PATH.
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

# The time that goes into what is built, in seconds, so that the same sources give the same bytes: SOURCE_DATE_EPOCH, or the last
# commit's; nothing where there is neither.
source_date() { printf '%s' "${SOURCE_DATE_EPOCH:-$(git -C "$ROOT" log -1 --format=%ct 2>/dev/null || true)}"; }

# --- what is missing ------------------------------------------------------------------------------------------------

MISSING_PACKAGES=() # Debian packages that could not be installed from here
MISSING_OTHER=()    # commands that would get the rest

# The words before a command that must run as root; fails where a person would have to type a password.
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
    # One at a time, for stages may run side by side: apt-get waits for others that install, but not for those that fetch its lists.
    local alone=(flock /var/lib/apt env) install
    install=("${alone[@]}" DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120 install -y --no-install-recommends "$@")
    # The first try spares the download of the package lists; they are fetched when they are missing or too old.
    if as_root "${install[@]}" >/dev/null 2>&1; then return; fi
    as_root "${alone[@]}" apt-get -qq -o DPkg::Lock::Timeout=120 update && as_root "${install[@]}" >/dev/null
}

# need CMD PACKAGE...: the tool CMD, from the Debian packages named if it is not there yet.
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

# want CMD PACKAGE...: like need, for what makes the work more complete and is no reason to stop; in CI it is.
want() {
    if [[ ${CI:-} == true ]]; then need "$@"; else have "$1" || apt_install "${@:2}" || true; fi
}

# need_rust: cargo, new enough, and the linker it calls for programs of this machine.
need_rust() {
    need cc gcc libc6-dev
    if ! have cargo; then
        warn "Rust is missing (Debian's own is too old)"
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

# need_target TARGET: Rust's standard library for TARGET.
need_target() {
    local target=$1
    have rustc || return 0 # need_rust has said so
    [[ -d $(rustc --print sysroot)/lib/rustlib/$target/lib ]] && return
    have rustup && flock "$ROOT" rustup target add "$target" && return
    MISSING_OTHER+=("rustup target add $target")
}

# need_python VENV ARGUMENT...: a virtual environment in VENV with what `pip install ARGUMENT...` puts there; a
# requirements file is named as `-r FILE`. Made anew only when the arguments or the file change.
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

# The command that gets everything that is missing; empty when nothing is.
missing_command() {
    local sudo=''
    ((EUID == 0)) || sudo='sudo '
    if ((${#MISSING_PACKAGES[@]})); then
        say "${sudo}apt-get update && ${sudo}apt-get install -y ${MISSING_PACKAGES[*]}"
    fi
    if ((${#MISSING_OTHER[@]})); then printf '%s\n' "${MISSING_OTHER[@]}"; fi
}

# needs_met: stops, naming everything that is missing at once.
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

# counting_plugin FILE: makes FILE, which counts instructions under qemu-aarch64; fails where this qemu takes none. After scripts/build.
counting_plugin() {
    local api
    mkdir -p "${1%/*}"
    for api in 1 2; do
        cc -O2 -Wall -Wextra -Werror -shared -fPIC -DPLUGIN_API="$api" -o "$1" "$ROOT/tests/instructions/blocks.c"
        if qemu-aarch64 -plugin "$1,table=${1%.so}" "$ROOT/dist/aarch64/sophon-uplink" --version; then return; fi
    done
    return 1
}

# bill_of_materials: prints, as CycloneDX, what is linked into the box's programs.
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
