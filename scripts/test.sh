#!/usr/bin/env bash
# All tests that need no GPU and no minutes, on servers of their own, two at a time. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."

marks="not slow"
status=0
scripts/chromium.sh || status=$?
if [ "$status" = 2 ]; then exit 1; fi
if [ "$status" != 0 ]; then marks="$marks and not browser"; fi

# One computing thread each: two test processes with two threads each only get into each other's way.
export OMP_NUM_THREADS=1
exec timeout --kill-after=30 1500 .venv/bin/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder --durations=25 -m "$marks" "$@"
