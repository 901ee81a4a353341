# shellcheck shell=bash
# Whether a test may have a network of its own.

can_have_networks() {
    local root=()
    ((EUID == 0)) || root=(--user --map-root-user)
    unshare "${root[@]}" --mount --net bash -c 'exec 3<>/dev/net/tun' 2>/dev/null
}
