#!/usr/bin/env bash
# Finds the pgn-bench of the other steps and says where it is: output `binary`. BINARY names one that is there; else INSTALL is
# pip (a virtual environment of its own) or cargo, and VERSION the version, the newest where it is empty.
set -euo pipefail
wrong() { echo "pgn-bench action: $*" >&2; exit 2; }

place=${RUNNER_TEMP:-$(mktemp -d)}/pgn-bench
if [ -n "${BINARY:-}" ]; then
  [[ -f $BINARY && -x $BINARY ]] || wrong "binary: $BINARY is no program"
  binary=$(realpath -- "$BINARY")
else
  case ${INSTALL:-pip} in
    pip)
      python3 -m venv "$place"
      "$place/bin/pip" install --quiet --disable-pip-version-check "pgn-bench${VERSION:+==$VERSION}"
      ;;
    cargo) cargo install --quiet --locked --root "$place" pgn-bench ${VERSION:+--version "$VERSION"} ;;
    *) wrong "install: expected pip or cargo, got $INSTALL" ;;
  esac
  binary=$place/bin/pgn-bench
fi
"$binary" --version
echo "binary=$binary" >>"$GITHUB_OUTPUT"
