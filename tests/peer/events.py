"""Reads a run's event files with TensorBoard's own reader, which checks every record's checksum, and compares the scalars with
the rows and the picture with the sample grid.

    python events.py results/demo-smoke/cnn32-sn-s0

Needs: pip install tensorboard polars
"""

import sys
from pathlib import Path

import polars
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

TRACES = {"critic_loss", "generator_loss", "input_gradient_norm", "critic_gradient_norm", "generator_gradient_norm"}
AT_THE_END = {"train_s_per_step", "train_peak_bytes"}


def main():
    run = Path(sys.argv[1])
    rows = polars.read_parquet(run / "rows.parquet").filter(~polars.col("metric").is_in(AT_THE_END))
    scalars, pictures = {}, {}
    for file in sorted((run / "tensorboard").iterdir()):
        events = EventAccumulator(str(file), size_guidance={"scalars": 0, "images": 0}).Reload()
        for tag in events.Tags()["scalars"]:
            scalars |= {(tag, e.step): e.value for e in events.Scalars(tag)}
        for tag in events.Tags()["images"]:
            pictures |= {e.step: e for e in events.Images(tag)}
    expected = {}
    for row in rows.iter_rows(named=True):
        tag = f"training/{row['metric']}" if row["metric"] in TRACES else f"{row['metric']}/{row['weights']}"
        expected[tag, row["step"]] = row["value"]
    assert scalars.keys() == expected.keys(), scalars.keys() ^ expected.keys()
    worst = max(abs(scalars[k] - v) / max(abs(v), 1e-30) for k, v in expected.items())
    assert worst < 1e-6, worst
    for step, event in pictures.items():
        grid = (run / "samples" / f"step-{step:07}.png").read_bytes()
        assert event.encoded_image_string == grid and event.width > 0 and event.height > 0
    print(f"{len(scalars)} scalars agree (largest relative difference {worst:.1e}), {len(pictures)} pictures are the grids")


if __name__ == "__main__":
    main()
