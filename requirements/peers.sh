#!/usr/bin/env bash
# The peers of bench/train_step.py, in an environment of their own in $1; once.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv-peers}
stamp="$venv/.ready-$(sha256sum requirements/peers.lock | cut -c1-16)"
if [ ! -e "$stamp" ]; then
    echo "the peers' environment: creating $venv (two minutes, 1.5 GB)"
    .venv/bin/python -m venv --clear "$venv"
    "$venv/bin/python" -m pip --disable-pip-version-check install --quiet --require-hashes --requirement requirements/peers.lock
    touch "$stamp"
fi
