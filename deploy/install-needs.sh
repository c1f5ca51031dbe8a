# Sourced by deploy/demo and tests/run: installs programs that are missing. Only apt is known here; elsewhere it names what is missing.

# need_programs PROGRAM:PACKAGE…
need_programs() {
    missing=
    for pair in "$@"; do
        program=${pair%%:*}
        PATH="$PATH:/usr/sbin:/sbin" command -v "$program" >/dev/null 2>&1 || missing="$missing ${pair#*:}"
    done
    [ -z "$missing" ] && return 0
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "missing:$missing (install them with your package manager, then run this again)" >&2
        return 1
    fi
    as_root=
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null 2>&1 || { echo "missing:$missing (run as root: apt-get install$missing)" >&2; return 1; }
        as_root=sudo
    fi
    echo "installing$missing" >&2
    # A service that the package would start is none of our business: policy-rc.d keeps it stopped where it is honoured.
    $as_root env DEBIAN_FRONTEND=noninteractive sh -c '
        apt-get update -qq || true
        apt-get install -y -qq --no-install-recommends "$@" >/dev/null' sh $missing
}

# need_rust: a toolchain new enough for Cargo.toml's rust-version (cargo itself checks the version).
need_rust() {
    [ -n "${HOME:-}" ] && [ -f "$HOME/.cargo/env" ] && . "$HOME/.cargo/env"
    command -v cargo >/dev/null 2>&1 && return 0
    echo "no Rust toolchain: install one from https://rustup.rs (1.95 or newer), then run this again" >&2
    return 1
}
