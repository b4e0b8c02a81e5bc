#!/usr/bin/env bash
# Runs EXPERIMENT at SCALE into RESULTS, going on where runs are there already. Ends with the code of `pgn-bench run`: 1 where a
# run diverged, 2 where it could not be made.
set -euo pipefail

exec "$BINARY" run "$EXPERIMENT" --scale "$SCALE" --resume --output "$RESULTS" ${WEIGHTS:+--weights "$WEIGHTS"}
