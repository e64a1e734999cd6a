#!/usr/bin/env bash
# All tests that need no GPU and no minutes, on servers of their own, one more at a time than there are cores. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."

marks="not slow"
status=0
scripts/chromium.sh || status=$?
if [ "$status" = 2 ]; then exit 1; fi
if [ "$status" != 0 ]; then marks="$marks and not browser"; fi

# One computing thread each: two test processes with two threads each only get into each other's way. One process
# more than cores, for a quarter of the tests' time is waiting; four at most have broker databases of their own.
export OMP_NUM_THREADS=1
cores=$(nproc)
processes=$((cores < 3 ? cores + 1 : 4))
exec timeout --kill-after=30 1500 .venv/bin/python -m pytest -q -n "$processes" --dist loadfile --no-loadscope-reorder --durations=25 -m "$marks" "$@"
