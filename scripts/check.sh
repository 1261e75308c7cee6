#!/bin/sh
# All static checks.
set -eu
cd "$(dirname "$0")"
./check_layers.sh
./check_sizes.sh
./check_banned.sh
./check_format.sh
