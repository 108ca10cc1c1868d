# Installing packages where there is apt. Sourced behind lib.sh, not run.

as_root=()
[ "$(id -u)" = 0 ] || as_root=(sudo)

# A network step with a time limit, tried again once: a mirror that hangs is not a mirror that refuses.
limited() {
    local seconds=$1
    shift
    quietly timeout "$seconds" "$@" || { say "trying once more: $*"; quietly timeout "$seconds" "$@"; }
}

apt_update() {
    limited 300 "${as_root[@]}" apt-get -q update || die "apt-get update failed"
}

apt_install() {
    say "installing $*"
    limited 900 "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install "$@" ||
        die "apt-get could not install $*"
}

debian_codename() { . /etc/os-release && echo "${VERSION_CODENAME:-}"; }

# The machine's own package mirror, as its apt sources name it; nothing where they name none.
apt_mirror() {
    # Some of these files aren't there on any one machine.
    { cat /etc/apt/sources.list /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list || true; } \
        2>/dev/null | sed -n -E 's/^URIs: *([^ ]+).*/\1/p; s/^deb (\[[^]]*\] )?([^ ]+) .*/\2/p' |
        grep -v security | head -n 1
}
