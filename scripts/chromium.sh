#!/usr/bin/env bash
# Is there a Chromium for the browser tests? Installs Debian's package where that is allowed; otherwise says in
# one line how to get it and ends with 1, or 2 in CI, where leaving tests out is a failure.
set -euo pipefail

for name in chromium chromium-browser; do
    if command -v "$name" >/dev/null; then exit 0; fi
done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    log=$(mktemp)
    echo "Installing Chromium for the browser tests" >&2
    if { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium; } \
        >"$log" 2>&1 </dev/null && command -v chromium >/dev/null; then
        rm -f "$log"
        exit 0
    fi
    tail -n 3 "$log" >&2
    rm -f "$log"
fi
echo "Chromium is missing, so the browser tests (tests/e2e) are left out; to get it: sudo apt-get install chromium" >&2
if [ "${CI:-}" = true ]; then exit 2; fi
exit 1
