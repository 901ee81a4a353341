# shellcheck shell=bash
# Builds with AddressSanitizer: the uplink that a hostile process attacks, and the fuzz targets. Sourced after lib.sh.

FUZZ_TARGETS=(answers api body config gateway ring spool)
SANITIZED=target/asan
FUZZED=target/fuzz

# The default target of Rust on this machine.
host_target() { rustc -vV | sed -n 's/^host: //p'; }

# Whether the toolchain named (default: the current one) has the sanitizer's runtime for this machine.
has_sanitizer() { compgen -G "$(rustc ${1:+"$1"} --print sysroot 2>/dev/null)/lib/rustlib/$(host_target)/lib/librustc-*_rt.asan.a" >/dev/null; }

# Whether unstable_cargo can build with the sanitizer here.
can_sanitize() { has_sanitizer || has_sanitizer +nightly; }

# Runs cargo with a compiler that accepts -Z flags: the usual one with a special setting, or nightly. The sanitizer needs no
# rust-src: the standard library without it is enough to check our own code.
unstable_cargo() {
    # Detects wrong addresses, not leaks: the leak checker cannot run where ptrace is forbidden (containers).
    local -x ASAN_OPTIONS=detect_leaks=0
    if has_sanitizer; then RUSTC_BOOTSTRAP=1 cargo "$@"; else cargo +nightly "$@"; fi
}

# hostile_producer COUNT: attacks an uplink with the sanitizer from another process, with COUNT writes.
hostile_producer() {
    local target
    target=$(host_target)
    # Optimisation would double the build time, and the test takes only seconds.
    # --target keeps the flag away from build scripts and macros, which run in the compiler.
    RUSTFLAGS="${RUSTFLAGS:-} -Zsanitizer=address" CARGO_TARGET_DIR=$SANITIZED CARGO_PROFILE_DEV_OPT_LEVEL=0 \
        unstable_cargo build --locked --bin sophon-uplink --target "$target"
    env ASAN_OPTIONS=detect_leaks=0 SOPHON_BIN_DIR="$ROOT/$SANITIZED/$target/debug" SOPHON_MUTATIONS="$1" \
        cargo test --locked --test ring hostile_producer:: -- --nocapture
}

# These are cargo-fuzz's flags. Without cargo-fuzz the stage needs only the compiler.
build_fuzz_targets() {
    local flags=(--cfg fuzzing -Zsanitizer=address -Cpasses=sancov-module) pass
    for pass in sanitizer-coverage-level=4 sanitizer-coverage-inline-8bit-counters sanitizer-coverage-pc-table \
        sanitizer-coverage-trace-compares simplifycfg-branch-fold-threshold=0; do
        flags+=("-Cllvm-args=-$pass")
    done
    flags+=(-Cdebug-assertions -Ccodegen-units=1)
    RUSTFLAGS="${flags[*]}" CARGO_TARGET_DIR=$FUZZED \
        unstable_cargo build --locked --release --manifest-path fuzz/Cargo.toml --target "$(host_target)"
}

# fuzz_one TARGET SECONDS SEED: writes its log to target/fuzz/TARGET.log and new inputs to target/fuzz/corpus.
fuzz_one() {
    local name=$1 seconds=$2 seed=$3
    local corpus=$FUZZED/corpus/$name crashes=$FUZZED/crashes/$name/ dictionary=()
    mkdir -p "$corpus" "$crashes"
    if [[ -f fuzz/seeds/$name.dict ]]; then dictionary=("-dict=fuzz/seeds/$name.dict"); fi
    ASAN_OPTIONS=detect_leaks=0 "$FUZZED/$(host_target)/release/$name" "$corpus" "fuzz/seeds/$name" "${dictionary[@]}" \
        -max_total_time="$seconds" -seed="$seed" -max_len=4096 -timeout=30 -print_final_stats=1 \
        -artifact_prefix="$crashes" >"$FUZZED/$name.log" 2>&1
}

# Prints the progress of the running fuzzers: lines of a log that begin with # report it.
say_progress() {
    local name
    for name; do say "$name: $(grep -a '^#' "$FUZZED/$name.log" | tail -n1 | cut -c1-100)"; done
}

# say_result NAME CODE: prints the number of executions. If the target failed, fails and says what to do.
say_result() {
    local name=$1 code=$2 log=$FUZZED/$1.log count
    count=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    say "$(printf '%-8s %12s executions  %s' "$name" "${count:-?}" "$(grep -ao 'cov: [0-9]*' "$log" | tail -n1)")"
    ((code == 0)) && return
    fail "$name: exit code $code; the end of $log:"
    grep -a -m1 -A6 -E 'panicked|ERROR|SUMMARY' "$log" >&2 || tail -n 20 "$log" >&2
    fail "to repeat it: $FUZZED/$(host_target)/release/$name $(sed -n 's/.*Test unit written to //p' "$log")"
    return 1
}

# fuzz SECONDS: runs every target for that time, two at a time.
fuzz() {
    local seconds=$1 seed=${SEED:-$RANDOM} pair name pids running at code failed=0
    say "SEED=$seed"
    build_fuzz_targets
    for ((at = 0; at < ${#FUZZ_TARGETS[@]}; at += 2)); do
        pair=("${FUZZ_TARGETS[@]:at:2}") pids=()
        for name in "${pair[@]}"; do
            fuzz_one "$name" "$seconds" "$seed" &
            pids+=($!)
        done
        # One line per minute, until both have ended.
        running=0
        while kill -0 "${pids[@]}" 2>/dev/null; do
            sleep 1
            running=$((running + 1))
            ((running % 60)) || ((running >= seconds)) || say_progress "${pair[@]}"
        done
        for name in "${!pair[@]}"; do
            code=0
            wait "${pids[name]}" || code=$?
            say_result "${pair[name]}" "$code" || failed=1
        done
    done
    return "$failed"
}
