#!/usr/bin/env bash
# Renews requirements/dev.txt from pyproject.toml: every package, exact versions and hashes.
set -euo pipefail
cd "$(dirname "$0")/.."
VIRTUAL_ENV=.venv .venv/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-emit-find-links --custom-compile-command tools/lock.sh \
    pyproject.toml --group dev --output-file requirements/dev.txt
