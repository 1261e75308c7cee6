#!/bin/sh
# arm64_root.sh DIR: unpacks the Debian packages that Edgewise links with, built for arm64, into DIR; for the cross build
# (cmake/aarch64-linux-gnu.cmake). Nothing is installed on this machine: apt works in folders of DIR. Does nothing when they are
# there; fails, with a line that says why, where this machine's package sources do not offer arm64.
set -eu
mkdir -p "$1"
root=$(cd "$1" && pwd)
packages="libprotobuf-c-dev libjansson-dev libpcre2-dev libutf8proc-dev libxxhash-dev libedit-dev libcmocka-dev"
[ "$(cat "$root/.packages" 2>/dev/null)" = "$packages" ] && exit 0

command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || { echo "arm64_root: no apt-get here" >&2; exit 1; }
apt=$root/.apt
mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
: >"$apt/status"
get() {
    apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State="$apt" -o Dir::State::status="$apt/status" \
        -o Dir::State::lists="$apt/lists" -o Dir::Cache="$apt/cache" -o Debug::NoLocking=1 -o APT::Sandbox::User=root "$@"
}
get update >"$apt/log" 2>&1 || { echo "arm64_root: apt-get update: $(tail -n 1 "$apt/log")" >&2; exit 1; }
# shellcheck disable=SC2086
get install -y --download-only --no-install-recommends $packages >"$apt/log" 2>&1 ||
    { echo "arm64_root: $(tail -n 1 "$apt/log")" >&2; exit 1; }
for deb in "$apt"/cache/archives/*.deb; do
    case ${deb##*/} in
    libc6* | libc-dev* | libgcc* | gcc-* | linux-libc* | libcrypt* | libnsl* | libtirpc* | *krb5* | libk5* | libssl* | ncurses-bin*)
        ;; # the C library comes with the cross compiler; the rest only completes it
    *) dpkg-deb -x "$deb" "$root" ;;
    esac
done
rm -rf "$apt"
printf '%s' "$packages" >"$root/.packages"
