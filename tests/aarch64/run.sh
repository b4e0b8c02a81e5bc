#!/usr/bin/env bash
# The operator proofs and golden files on the NEON kernels: built for aarch64, run by an emulator. As root, on Debian:
#
#     apt-get install qemu-user gcc-aarch64-linux-gnu g++-aarch64-linux-gnu libc6-dev-arm64-cross
#     rustup target add aarch64-unknown-linux-gnu && tests/aarch64/run.sh
#
# Exit code 2 when one of these is missing.
set -euo pipefail
cd "$(dirname "$0")/../.."
target=aarch64-unknown-linux-gnu
missing() { echo "SKIPPED: no proofs on aarch64, $1 is missing (see the head of tests/aarch64/run.sh)"; exit 2; }
for program in qemu-aarch64 aarch64-linux-gnu-gcc aarch64-linux-gnu-g++; do
  command -v "$program" >/dev/null || missing "$program"
done
[ -d "$(rustc --print target-libdir --target "$target")" ] || missing "Rust's library for $target"

export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu"
proofs() { ${CARGO:-cargo} test --release --locked --target "$target" "$@"; }
proofs --lib nn::
# The project's own files: an emulator would take too long for all of the others.
unset PGN_BENCH_GOLDEN
proofs --test golden
