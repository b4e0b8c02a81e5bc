#!/usr/bin/env bash
# Writes the report on RESULTS into the folder REPORT.
set -euo pipefail

exec "$BINARY" report "$RESULTS" --output "$REPORT"
