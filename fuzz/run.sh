#!/usr/bin/env bash
# Every fuzz target for so many seconds (20 minutes if not given), JOBS at a time; a line for each with the inputs tried and what failed.
#
#     fuzz/run.sh [SECONDS] [TARGET…]
#
# Needs a nightly toolchain and `cargo install cargo-fuzz`. Without sanitizers: the code is Rust, and address space is limited to
# 4 GiB instead, so that an allocation of a size that the input claims ends the target. Found cases are left in fuzz/artifacts.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-1200}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(cd fuzz/fuzz_targets && ls -- *.rs | sed 's/\.rs$//')

[ -n "${PREBUILT:-}" ] || cargo +nightly fuzz build -s none
[ -x target/release/pgn-bench ] || cargo build --release --locked
bins=${PREBUILT:-fuzz/target/x86_64-unknown-linux-gnu/release}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Genuine files to begin with.
PGN_BENCH_CACHE="$work/cache" target/release/pgn-bench run fuzz/fuzz_targets/checkpoint.yaml --scale smoke -o "$work/run" >/dev/null 2>&1
run=$work/run/tiny-smoke/cnn32-none-s0
seed() {
  mkdir -p "$work/seeds/$1" "fuzz/corpus/$1" "fuzz/artifacts/$1"
  case $1 in
    experiment) cp experiments/*.yaml fuzz/fuzz_targets/checkpoint.yaml "$work/seeds/$1" ;;
    gates) cp baselines/gates.yaml "$work/seeds/$1" ;;
    rows) cp "$run/rows.parquet" "$work/seeds/$1" ;;
    checkpoint) cp "$run/checkpoint.safetensors" "$work/seeds/$1" ;;
    log) cp "$run/log.jsonl" "$work/seeds/$1" ;;
    npz) cp "$work"/cache/statistics/*.npz "$work/seeds/$1" ;;
    safetensors) cp tests/data/released.safetensors "$work/seeds/$1" ;;
    vit) cp tests/data/vit/*.safetensors "$work/seeds/$1" ;;
    pth) cp tests/weights/*.pth tests/data/released.pt "$work/seeds/$1" ;;
    parquet) cp tests/data/faces.parquet tests/data/layouts/*.parquet "$work/seeds/$1" ;;
    lmdb) for f in tests/data/lmdb-*/data.mdb; do cp "$f" "$work/seeds/$1/$(basename "$(dirname "$f")")"; done ;;
    image) find tests/data/small.jpg "$run"/samples/*.png tests/data/formats -type f ! -name '*.rgb' -exec cp {} "$work/seeds/$1" ';' ;;
    arrays) cp tests/data/layouts/*.npz tests/data/layouts/*.npy "$work/seeds/$1" ;;
    archive) cp tests/data/layouts/*.zip tests/data/layouts/*.ZIP "$work/seeds/$1" ;;
    tree)
      printf 'train/a/%s.png
' 0 1 2 >"$work/seeds/$1/splits"
      printf 'data/%s-00000-of-00001.parquet
' train test >"$work/seeds/$1/tables"
      printf '%s
' a/0.png b/1.png '' '{"labels": [["a/0.png", 3], ["b/1.png", 0]]}' >"$work/seeds/$1/labels"
      ;;
  esac
}

one() {
  local target=$1 log=$work/$1.log status=0
  (
    ulimit -v 4194304
    TMPDIR=$work "$bins/$target" "fuzz/corpus/$target" "$work/seeds/$target" -max_total_time="$seconds" -max_len=262144 \
      -timeout=20 -rss_limit_mb=0 -artifact_prefix="fuzz/artifacts/$target/" -print_final_stats=1 >"$log" 2>&1
  ) || status=$?
  local tried covered
  tried=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  covered=$(grep -o 'cov: [0-9]*' "$log" | tail -1)
  printf '%-12s %10s inputs in %s s, %s: %s\n' "$target" "${tried:-?}" "$seconds" "${covered:-no coverage}" \
    "$([ "$status" = 0 ] && echo clean || { echo "FAILED ($status)"; grep -hE 'panicked|SUMMARY|deadly|Test unit|memory allocation' "$log" | tail -4; })"
  return "$status"
}

for target in "${targets[@]}"; do seed "$target"; done
failed=0
jobs_at_a_time=${JOBS:-$(nproc)}
while [ ${#targets[@]} -gt 0 ]; do
  jobs=()
  for target in "${targets[@]:0:jobs_at_a_time}"; do
    one "$target" &
    jobs+=($!)
  done
  targets=("${targets[@]:jobs_at_a_time}")
  for job in "${jobs[@]}"; do wait "$job" || failed=1; done
done
exit $failed
