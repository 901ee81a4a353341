# shellcheck shell=bash
# What a fleet on one machine is made of. Sourced, never run.

# shellcheck disable=SC2034 # for who sources this
FLEET_PYTHON=$ROOT/target/venv-fleet/bin/python3
FLEET_PROGRAMS=$ROOT/target/fleet/optimised

# need_fleet: the tools for it: a load balancer, Python with nats-server, openssl for the certificates.
need_fleet() {
    need_rust
    need file file # scripts/build
    need openssl openssl
    have haproxy || have nginx || need haproxy haproxy
    need_python "$ROOT/target/venv-fleet" -r "$ROOT/tests/fleet/requirements.txt"
}

# build_fleet: sophon-uplink, fake-recognizer and the gateway, optimised, in FLEET_PROGRAMS.
build_fleet() {
    scripts/build --host-only
    heading "the gateway"
    cargo build --locked --profile gateway --features jetstream --bin event-receive-server
    mkdir -p "$FLEET_PROGRAMS"
    install "${CARGO_TARGET_DIR:-$ROOT/target}/gateway/event-receive-server" "$FLEET_PROGRAMS/gateway"
    install dist/host/sophon-uplink dist/host/fake-recognizer "$FLEET_PROGRAMS"
}
