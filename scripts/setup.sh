#!/bin/sh
# Installs the Debian packages that building and testing need. Does nothing when they are there.
set -eu
packages="gcc libc6-dev make cmake ninja-build pkg-config libprotobuf-c-dev protobuf-c-compiler libjansson-dev \
libpcre2-dev libutf8proc-dev libxxhash-dev libedit-dev libcmocka-dev"
# What only `make test` uses: the second compiler, its fuzzer and formatter; the other architecture's compiler and processor.
test_packages="clang clang-format libclang-rt-14-dev llvm-14 gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user"
[ "${1:-}" = "--test" ] && packages="$packages $test_packages"

missing=""
for p in $packages; do
    dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $p"
done
[ -z "$missing" ] && exit 0

echo "setup: installing$missing"
sudo=""
[ "$(id -u)" -eq 0 ] || sudo="sudo"
$sudo env DEBIAN_FRONTEND=noninteractive apt-get update -qq
# shellcheck disable=SC2086
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
