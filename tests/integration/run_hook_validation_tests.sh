#!/usr/bin/env bash
# Prove that the Git hooks refuse what they are for: prints each verdict, its time, and the score.
# The exit status is 0 where every verdict is right.
set -euo pipefail
cd "$(dirname "$0")/../.."

make --silent .venv/.installed .venv-tools/.installed
exec .venv/bin/pytest -s tests/integration/test_hook_validation_system.py "$@"
