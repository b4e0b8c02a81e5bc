#!/usr/bin/env bash
# Everything that needs a GPU, in slices: proofs and golden tests on the device, comparisons with PyTorch, training at the
# paper's settings. What is done is not done again, so a call goes on where the one before was stopped by its time limit.
#
#   benches/device.sh build BIN                      builds what a call needs and copies it to the folder BIN (CUDA toolkit)
#   BIN=… OUT=… benches/device.sh [PART…]            runs the parts not yet done, all if none is named, from the repository's root
#
# Parts: machine proofs golden inception deterministic peak peers compiled training.
#
#   BIN      folder with pgn-bench, proofs, golden, inception, step and measure
#   OUT      folder of logs and results; a part that is done leaves OUT/done/PART
#   LIMIT_S  seconds a call may take (570); a training run is saved before and goes on in the next call
#   PYTHON   Python with torch, numpy, scipy, safetensors and torch-fidelity (python3); without torch no comparison is made
#   WEIGHTS  Inception weights with pytorch-fid's names (.safetensors); without them no Inception part, and training measures
#            over the classifier, which says nothing that can be compared with published numbers
#   CELLS    what training runs, one --only a line, in order (the paper's CIFAR-10 CNN, seed 0, then the ResNet)
#   PGN_BENCH_DATA, PGN_BENCH_GOLDEN  as everywhere
set -u

if [ "${1:-}" = build ]; then
    set -e
    to=${2:?usage: device.sh build BIN}
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
        done
    strip "$to"/*
    ls -l "$to"
    exit
fi

BIN=${BIN:?BIN names the folder of binaries} OUT=${OUT:?OUT names the folder of results}
LIMIT_S=${LIMIT_S:-570} PYTHON=${PYTHON:-python3} WEIGHTS=${WEIGHTS:-} PRECISION=${PRECISION:-tf32}
CELLS=${CELLS:-$(for a in cnn32 resnet32; do for m in gn pgn sn none gn+cr pgn+cr; do echo "arch=$a,method=$m,seed=0"; done; done)}
mkdir -p "$OUT/done"
left() { echo $((LIMIT_S - SECONDS)); }
say() { echo "== $*" | tee -a "$OUT/summary.txt"; }

# part NAME COMMAND…: once, into OUT/NAME.txt, within the time that is left.
part() {
    local name=$1
    shift
    [ -e "$OUT/done/$name" ] && return 0
    [ "$(left)" -lt 20 ] && { say "$name: no time left, the next call does it"; return 1; }
    local began=$SECONDS code=0
    timeout --signal=TERM --kill-after=15 "$(($(left) - 15))" "$@" >"$OUT/$name.txt" 2>&1 || code=$?
    say "$name: exit code $code after $((SECONDS - began)) s; $(tail -n 1 "$OUT/$name.txt")"
    case $code in
        124 | 137) return 1 ;;
        0) touch "$OUT/done/$name" ;;
        *) echo "$code" >"$OUT/done/$name" ;; # A failure is a result.
    esac
}

machine() {
    part machine bash -c '
        nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit --format=csv
        nproc
        ldd "$0/pgn-bench" | grep -iE "cuda|cudnn|cublas|nvrtc|not found"
        "$0/pgn-bench" --version
        "$1" -c "import torch; print(torch.__version__, torch.version.cuda, torch.backends.cudnn.version(), torch.cuda.get_device_name())"
        "$0/pgn-bench" run experiments/demo.yaml --scale smoke --dry-run --device cuda' "$BIN" "$PYTHON"
}

# One test at a time: they share one stream and one cuBLAS handle.
proofs() { part proofs env PGN_BENCH_DEVICE=cuda "$BIN/proofs" nn:: --test-threads=1; }

golden() {
    local precision
    for precision in f64 f32 tf32; do
        part "golden-$precision" env PGN_BENCH_DEVICE=cuda PGN_BENCH_PRECISION=$precision "$BIN/golden" || return 1
    done
}

inception() { part inception env PGN_BENCH_DEVICE=cuda "$BIN/inception"; }

# Two runs of the same cell must log the same numbers; also that a run of the device's own trains at all.
deterministic() {
    part deterministic bash -c '
        for k in 1 2; do
            "$0/pgn-bench" run experiments/demo.yaml --scale smoke --only method=pgn,seed=0 --set train.steps=100 \
                --set eval.every=100 --device cuda --deterministic --overwrite -o "$1/twice-$k" || exit
            find "$1/twice-$k" -name log.jsonl -exec sed "s/,\"step_s\":[^}]*//" {} + >"$1/twice-$k.jsonl"
        done
        test -s "$1/twice-1.jsonl" && cmp "$1/twice-1.jsonl" "$1/twice-2.jsonl" && echo "100 steps twice: the same bits"' "$BIN" "$OUT"
}

torch() {
    "$PYTHON" -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null && return
    say "$1: skipped, no torch with a GPU"
    return 1
}

# Rate of large matrix products, the floor of a step's time.
peak() {
    torch peak || return 0
    part peak "$PYTHON" -c '
import time, torch
for allow, name in ((False, "f32"), (True, "tf32")):
    torch.backends.cuda.matmul.allow_tf32 = allow
    a, b = (torch.randn(8192, 8192, device="cuda") for _ in range(2))
    for rounds in (5, 20):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(rounds):
            a @ b
        torch.cuda.synchronize()
    print(name, 2 * 8192**3 * rounds / (time.perf_counter() - start) / 1e12, "TFLOP/s")'
}

compare() {
    local name=$1
    shift
    part "$name" "$PYTHON" benches/peer/compare.py --binaries "$BIN" --device cuda --threads "$(nproc)" "$@"
}

# A part a case, so that a slice is never too short for one.
peers() {
    torch peers || return 0
    local case
    for case in cnn32:pgn:whole resnet32:pgn:whole cnn32:none:critic cnn32:pgn:critic cnn32:pgn:generator \
        resnet32:pgn:critic resnet32:pgn:generator biggan32:pgn:whole; do
        compare "peers-${case//:/-}" --only "$case" --pairs 5 || return 1
    done
    if [ -n "$WEIGHTS" ]; then
        for case in f32 tf32; do
            compare "peers-inception-$case" --only inception --weights "$WEIGHTS" --precision "$case" --pairs 3 || return 1
        done
    fi
}

# torch.compile may refuse double backward: then the log says so.
compiled() {
    torch compiled || return 0
    local arch
    for arch in cnn32 resnet32; do
        compare "compiled-$arch" --only "$arch:pgn:whole" --pairs 2 --compile || return 1
    done
}

# A signal saves a run, and --resume goes on with it.
training() {
    local cell code
    while read -r cell; do
        [ -e "$OUT/done/training-$cell" ] && continue
        [ "$(left)" -lt 60 ] && return 1
        local extractor=(--set eval.extractor=classifier --set 'eval.metrics=[fid]')
        [ -n "$WEIGHTS" ] && extractor=(--weights "$WEIGHTS")
        code=0
        timeout --signal=TERM --kill-after=20 "$(($(left) - 30))" "$BIN/pgn-bench" run experiments/cifar10.yaml \
            --only "$cell" "${extractor[@]}" --device cuda --precision "$PRECISION" --resume -o "$OUT/results" \
            >>"$OUT/training.txt" 2>&1 || code=$?
        say "training $cell: exit code $code; $(tail -n 1 "$OUT/training.txt")"
        case $code in
            0 | 1) touch "$OUT/done/training-$cell" ;; # 1: it diverged, which is a result.
            *) return 1 ;;
        esac
    done <<<"$CELLS"
}

for name in "${@:-machine proofs golden inception deterministic peak peers compiled training}"; do
    for one in $name; do
        "$one" || break 2
    done
done
say "$(find "$OUT/done" -type f | wc -l) parts done; failed: $(find "$OUT/done" -type f -size +0 -printf '%f ' )"
