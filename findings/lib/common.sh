# shellcheck shell=bash
# What every script here shares: a temporary folder, pinned packages, and one way to hold output against what was seen.
set -euo pipefail
export LC_ALL=C
FOLDER=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$FOLDER"' EXIT
cd "$FOLDER"

# debian NAME=VERSION...: unpacks these Debian packages into ./root, without installing anything.
debian() {
    local package
    for package in "$@"; do
        apt-get download "$package" >/dev/null 2>&1 ||
            { echo "cannot fetch $package: run apt-get update, or this version is no longer served" >&2; exit 2; }
    done
    for package in *.deb; do dpkg-deb -x "$package" root; done
    rm ./*.deb
    LIB=$FOLDER/root/usr/lib/$(dpkg-architecture -qDEB_HOST_MULTIARCH 2>/dev/null || gcc -print-multiarch)
    export LD_LIBRARY_PATH=$LIB
}

# python NAME==VERSION...: a virtual environment in ./venv with these packages.
python() {
    python3 -m venv venv
    venv/bin/pip install --quiet --disable-pip-version-check "$@" || { echo "cannot install $*" >&2; exit 2; }
}

# node NAME@VERSION...: these packages in ./node_modules.
node_packages() {
    npm install --silent --no-audit --no-fund "$@" >/dev/null || { echo "cannot install $*" >&2; exit 2; }
}

# crates 'NAME = "=VERSION"'...: ./seen, an optimised program of main.rs with these crates, linked with what counter.c counts.
crates() {
    gcc -O1 -fno-builtin -fno-tree-loop-distribute-patterns -shared -fPIC -o libcounter.so counter.c
    printf '%s\n' '[package]' 'name = "seen"' 'version = "0.0.0"' 'edition = "2021"' '[[bin]]' 'name = "seen"' 'path = "main.rs"' \
        '[dependencies]' "$@" >Cargo.toml
    CARGO_ENCODED_RUSTFLAGS=$'-L\x1f'"native=$FOLDER" CARGO_TARGET_DIR=$FOLDER/target cargo build --quiet --release || { echo "cannot build with $*" >&2; exit 2; }
    ln -s target/release/seen seen
    export LD_LIBRARY_PATH=$FOLDER
}

# same EXPECTED-FILE ACTUAL-FILE: fails, and shows how, where the behaviour is no longer the one that was seen.
same() {
    if diff -u "$1" "$2"; then
        echo "as seen:"
        cat "$2"
    else
        echo "the behaviour has changed" >&2
        exit 1
    fi
}
