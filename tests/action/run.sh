#!/usr/bin/env bash
# The scripts of the GitHub Action (action.yml) on the results of `make demo`, without GitHub: RESULTS, and the program to use.
#
#     make demo RESULTS=/tmp/demo && tests/action/run.sh /tmp/demo [target/release/pgn-bench]
set -euo pipefail
cd "$(dirname "$0")/../.."
results=$(realpath -- "$1")
program=$(realpath -- "${2:-${CARGO_TARGET_DIR:-target}/release/pgn-bench}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Set by a workflow this test may itself run in.
unset GITHUB_ACTIONS
export RUNNER_TEMP=$work GITHUB_OUTPUT=$work/output GITHUB_STEP_SUMMARY=$work/summary

# step NAME CODE SCRIPT VARIABLE=VALUE…: the script ends with the code.
step() {
  local name=$1 expected=$2 script=$3 code=0
  shift 3
  : >"$GITHUB_OUTPUT" && : >"$GITHUB_STEP_SUMMARY"
  env "$@" "action/$script" >"$work/log" 2>&1 || code=$?
  [ "$code" = "$expected" ] || failed "$name: code $code where $expected is right"
}
failed() {
  echo "FAILED: $*"
  for file in log output summary; do sed "s/^/$file: /" "$work/$file"; done
  exit 1
}
has() { grep -qF -- "$2" "$work/$1" || failed "no '$2' in the $1"; }
has_no() { ! grep -qF -- "$2" "$work/$1" || failed "'$2' in the $1"; }

step install 0 install.sh BINARY="$program"
has output "binary=$program"
has log "pgn-bench "
step "no program" 2 install.sh BINARY="$work/none"
step "no such installer" 2 install.sh INSTALL=npm

step "no experiment" 2 run.sh BINARY="$program" EXPERIMENT="$work/none.yaml" SCALE=smoke WEIGHTS= RESULTS="$work/runs"

gate() { step "$1" "$2" gate.sh BINARY="$program" RESULTS="${5:-$results}" GATES="$3" ANNOTATE="$4"; }
gate "gates that hold" 0 baselines/gates.yaml true
has log "::notice file=baselines/gates.yaml,title=gates::all $(grep -c '^- name' baselines/gates.yaml) hold"
has_no log "::error"
has output outcome=passed
has summary "| demo none | passed"
findings=$(sed -n 's/^findings=//p' "$GITHUB_OUTPUT")
grep -q '"outcome": "passed"' "$findings" || failed "no outcomes in $findings"

# No distance is below this.
sed 's/^  at: best$/&\n  max: 0.001/' baselines/gates.yaml >"$work/tight, 100%.yaml"
gate "gates that fail" 1 "$work/tight, 100%.yaml" true
has log "::error file=$work/tight%2C 100%25.yaml,title=gate demo none::"
has_no log "::notice"
has output outcome=failed
has summary "| demo none | failed"
gate "gates that fail, without annotations" 1 "$work/tight, 100%.yaml" false
has_no log "::"
has output outcome=failed

sed 's/^    width: .*/    width: 7.0/' baselines/gates.yaml >"$work/other.yaml"
gate "another protocol" 2 "$work/other.yaml" true
has log "::error file=$work/other.yaml,title=gate demo none::not the baseline's protocol"
has output outcome=error
gate "no file of gates" 2 "$work/none, 100%.yaml" true
has log "::error file=$work/none%2C 100%25.yaml,title=gates::pgn-bench: cannot read"
has output outcome=error
has_no output findings=
has summary "cannot read"
mkdir "$work/empty"
gate "no results" 2 baselines/gates.yaml true "$work/empty"
has log "title=gates::pgn-bench: no results in"

step report 0 report.sh BINARY="$program" RESULTS="$results" REPORT="$work/report"
[ -s "$work/report/report.html" ] || failed "no report.html"
step "no results to report on" 2 report.sh BINARY="$program" RESULTS="$work/empty" REPORT="$work/nothing"

echo "the action's scripts do what action.yml promises"
