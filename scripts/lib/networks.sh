# shellcheck shell=bash
# Checks whether a test may have its own network.

can_have_networks() {
    local root=()
    ((EUID == 0)) || root=(--user --map-root-user)
    unshare "${root[@]}" --mount --net bash -c 'exec 3<>/dev/net/tun' 2>/dev/null
}
