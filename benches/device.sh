#!/usr/bin/env bash
# Everything that needs a GPU, in parts of two minutes at most: rates and profiles first, then proofs and golden tests on the device,
# then training at scale lease. What is done is not done again, so a call goes on where the one before ended.
#
#   benches/device.sh build BIN [FILE…]     builds what a call needs into the folder BIN (CUDA toolkit), copies the files there, and
#                                           packs all of it as BIN/bundle.tar.xz, from which alone a call can start
#   BIN=… OUT=… benches/device.sh [PART…]   runs the parts not yet done, from the repository's root
#
# Parts: machine rates proofs golden inception deterministic training; and, if named, peers compiled.
#
#   BIN      folder of pgn-bench, proofs, golden, inception, step and measure, or of the bundle
#   OUT      folder of logs and results; a part that is done leaves OUT/done/PART
#   LIMIT    seconds a part may take (120); a training run is saved before and goes on in the next call
#   CALL     seconds a call may take (570)
#   DEVICE   as --device (cuda)
#   PYTHON   Python with torch, numpy, scipy, safetensors and torch-fidelity (python3); without torch no comparison is made
#   WEIGHTS  Inception weights with pytorch-fid's names (.safetensors), HEAD their fc.weight where they have none; without WEIGHTS no
#            Inception is timed, and training measures over the classifier, which compares with nothing published
#   CELLS    what training runs, one --only a line, in order (the paper's CIFAR-10 CNN, six methods, seed 0)
#   PRECISION  what it computes in (tf32)
#   PGN_BENCH_DATA, PGN_BENCH_GOLDEN  as everywhere
set -u

if [ "${1:-}" = build ]; then
    set -eo pipefail
    to=${2:?usage: device.sh build BIN [FILE…]}
    mkdir -p "$to"
    built() { cargo "$@" --release --locked --features cuda --message-format json |
        python3 -c 'import json, sys
for line in sys.stdin:
    m = json.loads(line)
    if m.get("executable"): print(m["target"]["kind"][0], m["target"]["name"], m["executable"])'; }
    { built build --bins --examples; built test --no-run --lib --test golden --test inception; } |
        while read -r kind name file; do
            [ "$kind" = lib ] && name=proofs
            cp "$file" "$to/$name"
            strip "$to/$name"
        done
    for file in "${@:3}"; do cp -rL "$file" "$to"; done
    # The binaries share most of their bytes: one window reaches over all.
    tar -C "$to" --sort=name --exclude=./bundle.tar.xz -c . | xz -T1 --lzma2=dict=512MiB >"$to/bundle.tar.xz"
    ls -l "$to"
    exit
fi

BIN=${BIN:?BIN names the folder of binaries} OUT=${OUT:?OUT names the folder of results}
LIMIT=${LIMIT:-120} CALL=${CALL:-570} DEVICE=${DEVICE:-cuda} PYTHON=${PYTHON:-python3} PRECISION=${PRECISION:-tf32}
WEIGHTS=${WEIGHTS:-} HEAD=${HEAD:-}
CELLS=${CELLS:-$(printf 'arch=cnn32,method=%s,seed=0\n' pgn gn sn none pgn+cr gn+cr)}
mkdir -p "$OUT/done"
[ -x "$BIN/pgn-bench" ] || tar -C "$BIN" -xf "$BIN/bundle.tar.xz" || exit 2
export PGN_BENCH_DEVICE=$DEVICE
say() { echo "== $*" | tee -a "$OUT/summary.txt"; }

# Seconds for what begins now: LIMIT, or what is left of the call.
allowed() {
    local left=$((CALL - SECONDS - 15))
    echo $((left < LIMIT ? left : LIMIT))
}

# part NAME COMMAND…: once, into OUT/NAME.txt. One that the end of the call cuts short is done by the next.
part() {
    local name=$1 room began=$SECONDS code=0
    shift
    [ -e "$OUT/done/$name" ] && return 0
    room=$(allowed)
    [ "$room" -lt 20 ] && { say "$name: no time left, the next call does it"; return 1; }
    timeout --kill-after=15 "$room" "$@" >"$OUT/$name.txt" 2>&1 || code=$?
    say "$name: exit code $code after $((SECONDS - began)) s; $(grep . "$OUT/$name.txt" | tail -n 1)"
    [ "$code" != 124 ] && [ "$code" != 137 ] || [ "$room" = "$LIMIT" ] || return 1
    # A failure is a result.
    if [ "$code" = 0 ]; then touch "$OUT/done/$name"; else echo "$code" >"$OUT/done/$name"; fi
}

machine() {
    # shellcheck disable=SC2016 # for the inner shell
    part machine bash -c '
        nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit --format=csv
        nproc
        ldd "$0/pgn-bench" | grep -iE "cuda|cudnn|cublas|nvrtc|not found"
        "$0/pgn-bench" --version
        "$1" -c "import torch; print(torch.__version__, torch.version.cuda, torch.backends.cudnn.version(), torch.cuda.get_device_name())"
        "$0/pgn-bench" run experiments/demo.yaml --scale smoke --dry-run --device "$2"' "$BIN" "$PYTHON" "$DEVICE"
}

torch() { "$PYTHON" -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null || { say "$1: skipped, no torch with a GPU"; return 1; }; }

compare() {
    part "$1" "$PYTHON" benches/peer/compare.py --binaries "$BIN" --device "$DEVICE" --threads "$(nproc)" "${@:2}"
}

# Where the time of a step goes, and the same steps in PyTorch beside it.
rates() {
    local arch precision direct name
    while read -r arch precision direct; do
        name=bench-$arch-$precision${direct#-}
        part "$name" "$BIN/pgn-bench" bench --arch "$arch" --method pgn --device "$DEVICE" --precision "$precision" \
            ${direct:+"$direct"} --json "$OUT/$name.json" || return 1
    done <<<'cnn32 tf32
cnn32 bf16
cnn32 tf32 --no-graph
resnet32 tf32
resnet32 bf16
biggan32 tf32'
    torch rates || return 0
    for arch in cnn32 resnet32; do compare "peers-$arch-pgn-whole" --only "$arch:pgn:whole" --pairs 5 || return 1; done
    [ -z "$WEIGHTS" ] || compare peers-inception-f32 --only inception --weights "$WEIGHTS" --precision f32 --pairs 3
}

# One test at a time: they share one stream and one cuBLAS handle.
proofs() { part proofs "$BIN/proofs" nn:: --test-threads=1; }

golden() {
    local precision
    for precision in f64 f32 tf32 bf16; do
        part "golden-$precision" env PGN_BENCH_PRECISION="$precision" "$BIN/golden" || return 1
    done
}

inception() { part inception "$BIN/inception"; }

# Two runs of the same cell must log the same numbers; also that a run of the device's own trains at all.
deterministic() {
    # shellcheck disable=SC2016 # for the inner shell
    part deterministic bash -c '
        for k in 1 2; do
            "$0/pgn-bench" run experiments/demo.yaml --scale smoke --only method=pgn,seed=0 --set train.steps=100 \
                --set eval.every=100 --device "$2" --deterministic --overwrite -o "$1/twice-$k" || exit
            find "$1/twice-$k" -name log.jsonl -exec sed "s/,\"step_s\":[^}]*//" {} + >"$1/twice-$k.jsonl"
        done
        test -s "$1/twice-1.jsonl" && cmp "$1/twice-1.jsonl" "$1/twice-2.jsonl" && echo "100 steps twice: the same bits"' \
        "$BIN" "$OUT" "$DEVICE"
}

# A signal saves a run, and --resume goes on with it. A precision has a folder: a run stays in the one it began with.
training() {
    local cell name code room
    local extractor=(--set eval.extractor=classifier --set 'eval.metrics=[fid]')
    [ -n "$WEIGHTS" ] && extractor=(--weights "$WEIGHTS" ${HEAD:+--head "$HEAD"})
    while read -r cell; do
        name=training-$PRECISION-$cell code=0
        [ -e "$OUT/done/$name" ] && continue
        room=$(allowed)
        [ "$room" -lt 30 ] && { say "$name: no time left, the next call does it"; return 1; }
        timeout --kill-after=20 "$room" "$BIN/pgn-bench" run experiments/cifar10.yaml --scale lease --only "$cell" \
            "${extractor[@]}" --device "$DEVICE" --precision "$PRECISION" --resume -o "$OUT/results-$PRECISION" \
            >>"$OUT/training.txt" 2>&1 || code=$?
        say "$name: exit code $code; $(tail -n 1 "$OUT/training.txt")"
        # 1: it diverged, which is a result. 124: the next call goes on.
        case $code in 0 | 1) touch "$OUT/done/$name" ;; 124) ;; *) return 1 ;; esac
    done <<<"$CELLS"
}

# Parts of the step in PyTorch and here, a part a case.
peers() {
    torch peers || return 0
    local case
    for case in cnn32:none:critic cnn32:pgn:critic cnn32:pgn:generator resnet32:pgn:critic resnet32:pgn:generator biggan32:pgn:whole; do
        compare "peers-${case//:/-}" --only "$case" --pairs 5 || return 1
    done
    [ -z "$WEIGHTS" ] || compare peers-inception-tf32 --only inception --weights "$WEIGHTS" --precision tf32 --pairs 3
}

# torch.compile may refuse double backward: then the log says so.
compiled() {
    torch compiled || return 0
    local arch
    for arch in cnn32 resnet32; do
        compare "compiled-$arch" --only "$arch:pgn:whole" --pairs 2 --compile || return 1
    done
}

[ $# -gt 0 ] || set -- machine rates proofs golden inception deterministic training
for name; do
    "$name" || break
done
say "$(find "$OUT/done" -type f | wc -l) parts done; failed: $(find "$OUT/done" -type f -size +0 -printf '%f ')"
