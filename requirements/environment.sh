#!/usr/bin/env bash
# An environment beside the project's own, once for each lock: environment.sh FOLDER LOCK WHAT-TO-SAY
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1 lock=$2
stamp="$venv/.ready-$(sha256sum "$lock" | cut -c1-16)"
if [ ! -e "$stamp" ]; then
    echo "$3: creating $venv"
    .venv/bin/python -m venv --clear "$venv"
    "$venv/bin/python" -m pip --disable-pip-version-check install --quiet --require-hashes --requirement "$lock"
    touch "$stamp"
fi
