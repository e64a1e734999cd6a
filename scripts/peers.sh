#!/usr/bin/env bash
# Make build/peers: the environment of the methods that the benchmarks compare with. Nothing to do when it is
# as benchmarks/peers/requirements.txt asks.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=build/peers
pins=benchmarks/peers/requirements.txt
stamp=$folder/set-up
wanted() { pwd; sha256sum <"$pins"; }
if [ -f "$stamp" ] && [ "$(wanted)" = "$(cat "$stamp")" ]; then exit 0; fi

printf 'Making %s with the peers of the benchmarks\n' "$folder" >&2
rm -rf "$folder"
.venv/bin/python -m venv "$folder"
install() {
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check "$@" \
        2> >(grep -v -e 'is ignored: it is neither a file nor a directory' >&2)
}
install -r <(grep -v -e '--no-deps' "$pins")
install --no-deps -r <(grep -e '--no-deps' "$pins" | sed 's/ *#.*//')
wanted >"$stamp"
