#!/usr/bin/env bash
# Compiles include/sophon_ring.h the way integrators do, with every compiler that is here, and then builds into FOLDER and
# runs what tests/c has: the producers that the Rust tests drive, and ring_test.
#
#   tests/c/matrix.sh FOLDER [COUNT]      COUNT: random operations of ring_test, 100000 if not given; of ring2_test a fifth
#
# Exit code 0 only if every compilation was without a warning and every test passed. A compiler that is not installed is
# named and not counted, but gcc and g++ must be there.
set -u

if [ $# -lt 1 ]; then
    echo "usage: $0 FOLDER [COUNT]" >&2
    exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
include=$(cd "$here/../../include" && pwd)
mkdir -p "$1" || exit 1
out=$(cd "$1" && pwd)
count=${2:-100000}
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT

warnings=(-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Wcast-align -Wcast-qual -Wundef
          -Wmissing-declarations -Wredundant-decls -Wformat=2 -Werror)
c_warnings=(-Wstrict-prototypes -Wmissing-prototypes)
cpp_warnings=(-Wold-style-cast -Wzero-as-null-pointer-constant)

# The header alone, twice; behind system headers; in two translation units that become one program.
cat >"$work/alone.c" <<'END'
#include "sophon_ring.h"
#include "sophon_ring.h"
END
cat >"$work/behind.c" <<'END'
#include <stdio.h>
#include <sys/stat.h>
#include "sophon_ring.h"
END
cat >"$work/before.c" <<'END'
#include "sophon_ring.h"
#include <stdio.h>
#include <sys/stat.h>
#include <fcntl.h>
#include <unistd.h>
END
cat >"$work/one.c" <<'END'
#include "sophon_ring.h"
int other(sophon_ring *ring);
int other(sophon_ring *ring)
{
    sophon_event event;
    memset(&event, 0, sizeof event);
    event.identity_id = "1";
    if (sophon_ring_publish(ring, &event) != 0)
        return -1;
    /* As an integrator writes it: nothing may be called uninitialized. */
    void *reg_pic, *spot_pic;
    if (sophon_ring_reserve(ring, &event, 100, 200, &reg_pic, &spot_pic) != 0)
        return -1;
    memset(reg_pic, 1, 100);
    memset(spot_pic, 2, 200);
    if (sophon_ring_commit(ring, 100, 200) != 0)
        return -1;
    sophon_picture face;
    face.name = "recognize_face";
    face.place = SOPHON_PLACE_EXT_DATA;
    face.data = "jpeg";
    face.len = 4;
    sophon_event2 more;
    sophon_event2_init(&more);
    more.event = event;
    more.top_json = "{}";
    more.pictures = &face;
    more.pictures_count = 1;
    if (sophon_ring_publish2(ring, &more) != 0)
        return -1;
    void *room;
    if (sophon_ring_reserve2(ring, &more, &reg_pic, &spot_pic, &room) != 0)
        return -1;
    memset(room, 3, 4);
    const size_t length = 4;
    return sophon_ring_commit2(ring, 0, 0, &length);
}
END
cat >"$work/two.c" <<'END'
#include "sophon_ring.h"
int other(sophon_ring *ring);
int main(int count, char **arguments)
{
    sophon_ring *ring;
    int error = sophon_ring_open(&ring, count > 1 ? arguments[1] : "", 0);
    if (error == 0)
        error = other(ring);
    sophon_ring_close(ring);
    return error == 0 ? 0 : 1;
}
END
for source in alone behind before one two; do
    cp "$work/$source.c" "$work/$source.cpp"
done

tried=0
clean=0
failed=0
missing=()

compile() {
    tried=$((tried + 1))
    if "$@" >"$work/log" 2>&1; then
        clean=$((clean + 1))
    else
        echo "FAILED: $*" >&2
        head -n 20 "$work/log" >&2
    fi
}

# compiler_matrix COMPILER SUFFIX STANDARD...: SUFFIX is c or cpp
compiler_matrix() {
    local compiler=$1 suffix=$2 standard flags
    shift 2
    if ! command -v "$compiler" >/dev/null; then
        missing+=("$compiler")
        return
    fi
    for standard in "$@"; do
        flags=("-std=$standard" "-I$include" "${warnings[@]}")
        if [ "$suffix" = c ]; then
            flags+=("${c_warnings[@]}")
        else
            flags+=("${cpp_warnings[@]}")
        fi
        compile "$compiler" "${flags[@]}" -c "$work/alone.$suffix" -o "$work/alone.o"
        compile "$compiler" "${flags[@]}" -O2 -c "$work/behind.$suffix" -o "$work/behind.o"
        compile "$compiler" "${flags[@]}" -c "$work/before.$suffix" -o "$work/before.o"
        compile "$compiler" "${flags[@]}" -D_POSIX_C_SOURCE=200112L -c "$work/behind.$suffix" -o "$work/behind.o"
        compile "$compiler" "${flags[@]}" -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -c "$work/before.$suffix" -o "$work/before.o"
        compile "$compiler" "${flags[@]}" -O2 -ffast-math "$work/one.$suffix" "$work/two.$suffix" -o "$work/two"
    done
}

for compiler in gcc clang aarch64-linux-gnu-gcc musl-gcc; do
    compiler_matrix "$compiler" c c99 gnu99 c11 gnu11 c17
done
for compiler in g++ clang++ aarch64-linux-gnu-g++; do
    compiler_matrix "$compiler" cpp c++11 gnu++11 c++14 c++17 c++20
done
if [ ${#missing[@]} -gt 0 ]; then
    echo "header: not installed, not tried: ${missing[*]}"
fi
echo "header: $clean of $tried compilations clean"
[ "$clean" -eq "$tried" ] || failed=1

build() {
    if ! "$@"; then
        echo "FAILED: $*" >&2
        failed=1
    fi
}

run() {
    if ! "$@"; then
        echo "FAILED: $*" >&2
        failed=1
    fi
}

strict=(-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror)
build gcc -std=c99 -O2 -g "${strict[@]}" "$here/producer.c" -o "$out/producer-c"
build g++ -std=c++11 -O2 -g "${strict[@]}" -Wold-style-cast "$here/producer.cpp" -o "$out/producer-cpp"
test_flags=(-std=gnu99 -g -Wall -Wextra -Werror -pthread "$here/ring_test.c")
build gcc -O2 "${test_flags[@]}" -o "$out/ring_test" -lm
build gcc -O1 -fsanitize=address,undefined -fno-sanitize-recover=all "${test_flags[@]}" -o "$out/ring_test-asan" -lm
test2_flags=(-std=gnu99 -g -Wall -Wextra -Werror "$here/ring2_test.c")
build gcc -O2 "${test2_flags[@]}" -o "$out/ring2_test"
build gcc -O1 -fsanitize=address,undefined -fno-sanitize-recover=all "${test2_flags[@]}" -o "$out/ring2_test-asan"
# Recognizers of before: the header as it was in ABI 1.
build gcc -std=c99 -O2 -g "${strict[@]}" '-DSOPHON_RING_HEADER="abi1/sophon_ring.h"' "$here/producer.c" -o "$out/producer-abi1"
[ "$failed" -eq 0 ] || exit 1

run "$out/ring2_test" --count $((count / 5))
run "$out/ring2_test-asan" --count $((count / 50))
run "$out/ring_test" --count "$count"
run "$out/ring_test-asan" --count "$count"

# The memory order, which x86_64 would hide: the thread sanitizer follows it by the letter.
if echo 'int main(void) { return 0; }' >"$work/empty.c" && gcc -fsanitize=thread "$work/empty.c" -o "$work/empty" \
        2>/dev/null && setarch -R "$work/empty" 2>/dev/null; then
    build gcc -O1 -fsanitize=thread "${test_flags[@]}" -o "$out/ring_test-tsan" -lm
    run setarch -R "$out/ring_test-tsan" --count "$count" --only threads
else
    echo "ring_test: no thread sanitizer here, not tried"
fi
if command -v aarch64-linux-gnu-gcc >/dev/null && command -v qemu-aarch64 >/dev/null; then
    build aarch64-linux-gnu-gcc -O2 -static "${test_flags[@]}" -o "$out/ring_test-aarch64" -lm
    run qemu-aarch64 "$out/ring_test-aarch64" --count $((count / 10))
    build aarch64-linux-gnu-gcc -O2 -static "${test2_flags[@]}" -o "$out/ring2_test-aarch64"
    run qemu-aarch64 "$out/ring2_test-aarch64" --count $((count / 100))
else
    echo "ring_test: no aarch64 compiler or no qemu-aarch64 here, not tried"
fi

[ "$failed" -eq 0 ] && echo "tests/c: all is well"
exit "$failed"
