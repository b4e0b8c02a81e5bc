"""Runs short cells with evaluations in one process for hours and watches what it holds: resident memory, open files, threads,
and files left behind.

    python3 tests/soak/soak.py target/release/pgn-bench --hours 2 --output docs/soak
    python3 tests/soak/soak.py --judge docs/soak.csv

Writes OUTPUT.csv (a line every 10 s) and OUTPUT.svg (the curve); the second form judges such a file again. Exit code 1 when
memory is not flat within 5 %, open files grow, or a file is left over. The standard library is all it needs; Linux.
"""

import argparse
import csv
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
EVERY_S = 10
# Windows of ten minutes are compared with the first one after the first, in which caches fill.
WINDOW_S = 600
ALLOWED = 0.05
RUN_FILES = {"config.json", "rows.parquet", "log.jsonl", "checkpoint.safetensors", "lock"}


def status(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    field = dict(line.split(":", 1) for line in lines)
    return int(field["VmRSS"].split()[0]) / 1024, int(field["Threads"])


def orphans(results):
    """Files that no run, finished or not, should leave."""
    found = []
    for run in (p for group in results.iterdir() if group.is_dir() for p in group.iterdir() if p.is_dir()):
        found += [p for p in run.iterdir() if p.is_file() and p.name not in RUN_FILES]
    return found + list(results.rglob("*.tmp"))


def curve(samples):
    """Memory over time as SVG."""
    width, height, left, bottom = 720, 240, 60, 40
    hours = max(s["seconds"] for s in samples) / 3600
    top = 1.15 * max(s["rss_mib"] for s in samples)
    x = lambda s: left + (width - left - 10) * s / 3600 / hours
    y = lambda m: (height - bottom) * (1 - m / top)
    points = " ".join(f"{x(s['seconds']):.1f},{y(s['rss_mib']):.1f}" for s in samples)
    ticks = "".join(
        f'<text x="{x(h * 3600):.0f}" y="{height - bottom + 18}" text-anchor="middle">{h:g}</text>'
        for h in [hours * k / 4 for k in range(5)] for h in [round(h, 2)])
    marks = "".join(
        f'<text x="{left - 6}" y="{y(m) + 4:.0f}" text-anchor="end">{m:.0f}</text>'
        f'<line x1="{left}" x2="{width - 10}" y1="{y(m):.0f}" y2="{y(m):.0f}" stroke="#ddd"/>'
        for m in [top * k / 4 for k in range(4)])
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">'
            f'<rect width="{width}" height="{height}" fill="white"/>{marks}{ticks}'
            f'<polyline points="{points}" fill="none" stroke="#1f77b4"/>'
            f'<text x="{width / 2}" y="{height - 6}" text-anchor="middle">hours</text>'
            f'<text x="{left + 6}" y="14">resident MiB</text></svg>\n')


def flat(samples):
    """Says what was held in windows of ten minutes, and whether it stayed the same."""
    windows = {}
    for s in samples:
        windows.setdefault(int(s["seconds"]) // WINDOW_S, []).append(s)
    whole = [w for w in windows.values() if len(w) >= 0.9 * WINDOW_S / EVERY_S]
    if len(whole) < 2:
        sys.exit("too short to judge: give at least 0.4 hours")
    of = lambda key, measure: [measure([float(s[key]) for s in w]) for w in whole]
    memory, files, most = of("rss_mib", statistics.median), of("open_files", statistics.median), of("open_files", max)
    drift = max(abs(m / memory[1] - 1) for m in memory[1:])
    print(f"resident MiB, medians of ten minutes: {' '.join(f'{m:.0f}' for m in memory)}; drift {100 * drift:.1f} %")
    print(f"open files, medians: {' '.join(f'{m:g}' for m in files)}; maxima: {' '.join(f'{m:g}' for m in most)}")
    # What is open for a moment is met or not; a leak would raise the median, and the later maxima.
    half = len(most) // 2
    return drift <= ALLOWED and max(files) <= files[0] and max(most[half:]) <= max(most[:half])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=Path, nargs="?")
    parser.add_argument("--hours", type=float, default=2)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--judge", type=Path, metavar="CSV")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    if args.judge:
        with open(args.judge, newline="") as file:
            sys.exit(0 if flat(list(csv.DictReader(file))) else 1)
    if not (args.binary and args.output):
        parser.error("give a binary and --output, or --judge")
    with tempfile.TemporaryDirectory(prefix="pgn-bench-soak-") as folder:
        folder = Path(folder)
        results, temporary, said = folder / "results", folder / "tmp", folder / "stderr"
        temporary.mkdir()
        env = os.environ | {"TMPDIR": str(temporary), "PGN_BENCH_CACHE": str(folder / "cache"),
                            "RAYON_NUM_THREADS": str(args.threads)}
        seeds = ",".join(map(str, range(2000)))
        child = subprocess.Popen(
            [args.binary, "run", HERE / "soak.yaml", "--scale", "smoke", "--set", f"seeds=[{seeds}]", "-o", results],
            env=env, stdout=subprocess.DEVNULL, stderr=open(said, "w"))
        start, samples = time.monotonic(), []
        while (seconds := time.monotonic() - start) < args.hours * 3600:
            time.sleep(EVERY_S)
            if child.poll() is not None:
                sys.exit(f"it ended after {seconds:.0f} s with {child.returncode}:\n{said.read_text()[-4000:]}")
            rss, threads = status(child.pid)
            samples.append({
                "seconds": round(seconds + EVERY_S), "rss_mib": round(rss, 1), "threads": threads,
                "open_files": len(os.listdir(f"/proc/{child.pid}/fd")),
                "runs": sum(1 for _ in results.glob("*/*/config.json")),
            })
            # What has been written survives a soak that is cut short.
            with open(args.output.with_suffix(".csv"), "w", newline="") as file:
                writer = csv.DictWriter(file, samples[0])
                writer.writeheader()
                writer.writerows(samples)
        child.send_signal(signal.SIGTERM)
        child.wait(10)
        left = orphans(results) + list(temporary.iterdir())
    args.output.with_suffix(".svg").write_text(curve(samples))
    left = [str(path) for path in left]
    print(f"{samples[-1]['seconds'] / 3600:.2f} h, {samples[-1]['runs']} runs, exit code {child.returncode} on SIGTERM; "
          f"orphans: {len(left)} {left[:5]}")
    sys.exit(0 if flat(samples) and not left else 1)


if __name__ == "__main__":
    main()
