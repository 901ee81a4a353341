# shellcheck shell=bash
# Unpacks Debian packages of any architecture without installing them. apt gets its own lists, cache and state, so that nothing on
# this machine changes and root is not needed. Sourced, never run.

# apt_of WORK ARCHITECTURE STATUS COMMAND...: runs apt-get or apt-cache for that architecture, with its state in
# WORK/ARCHITECTURE. STATUS lists the installed packages; /dev/null means none.
apt_of() {
    local arch=$2 status=$3 state=$1/$2 command=$4
    shift 4
    mkdir -p "$state"/{lists/partial,cache/archives/partial}
    "$command" -qq -o APT::Architecture="$arch" -o APT::Architectures::="$arch" -o APT::Sandbox::User="$(id -un)" \
        -o Dir::State::lists="$state/lists" -o Dir::Cache="$state/cache" -o Dir::State::status="$status" \
        -o Dir::State::extended_states="$state/extended" -o Debug::NoLocking=true \
        -o Acquire::Languages=none "$@"
}

# unpack FOLDER DEB...
unpack() {
    local into=$1 deb
    shift
    for deb; do dpkg -x "$deb" "$into"; done
}

# debian_and_backports: prints lines for a sources.list: this machine's Debian release and its backports, from the mirror that it
# uses.
debian_and_backports() {
    local codename mirror suite
    # shellcheck source=/dev/null
    codename=$(source /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
    # shellcheck disable=SC2016 # apt's own variables
    mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' 'Component: main' |
        awk -v codename="$codename" '$2 == codename && !found++ { print $1 }')
    [[ -n $mirror ]] || return
    for suite in "$codename" "$codename-backports"; do
        printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' "$mirror" "$suite"
    done
}
