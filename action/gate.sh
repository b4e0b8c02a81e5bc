#!/usr/bin/env bash
# Checks RESULTS against GATES and ends with the code of `pgn-bench gate`: 0 all hold, 1 a distance exceeds its limit, 2 they cannot
# be compared. Outputs `outcome` (passed, failed, error) and `findings`, a JSON file; the table goes into the step's summary. With
# ANNOTATE=true what did not pass is an annotation, and gates that all hold are a notice.
set -euo pipefail
# shellcheck source=action/annotation.sh
source "${BASH_SOURCE%/*}/annotation.sh"

place=$(mktemp -d "${RUNNER_TEMP:-/tmp}/pgn-bench-gate.XXXXXX")
findings=$place/findings.json
# pgn-bench writes annotations of its own where this is set.
unset GITHUB_ACTIONS
[ "$ANNOTATE" != true ] || export GITHUB_ACTIONS=true
code=0
"$BINARY" gate "$GATES" --results "$RESULTS" --json "$findings" >"$place/table" 2>"$place/errors" || code=$?
cat "$place/table"
cat "$place/errors" >&2

case $code in
  0) outcome=passed ;;
  1) outcome=failed ;;
  *) outcome=error code=2 ;;
esac
if [ "$ANNOTATE" = true ]; then
  if [ -s "$findings" ]; then
    [ "$code" != 0 ] || annotation notice "$GATES" gates "all $(grep -c '^ *"outcome": "passed"' "$findings") hold"
  else
    annotation error "$GATES" gates "$(cat "$place/errors")"
  fi
fi
{
  echo "### pgn-bench gates: $outcome"
  echo
  grep '^|' "$place/table" || sed 's/^/    /' "$place/errors"
  echo
} >>"$GITHUB_STEP_SUMMARY"
echo "outcome=$outcome" >>"$GITHUB_OUTPUT"
[ ! -s "$findings" ] || echo "findings=$findings" >>"$GITHUB_OUTPUT"
exit "$code"
