"""Write docs/reference/ from the code; with --check only say whether it is up to date."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "client")]

from reference import errors, options, reasons, rest, server_commands  # noqa: E402 - found by the line above

TARGET = ROOT / "docs" / "reference"
PAGES = {
    "rest.md": rest.page,
    "server-commands.md": server_commands.page,
    "options.md": options.page,
    "errors.md": errors.page,
    "reasons.md": reasons.page,
}


def main() -> int:
    wanted = {name: page() for name, page in PAGES.items()}
    if "--check" in sys.argv:
        stale = [name for name, text in wanted.items() if not _is(TARGET / name, text)]
        for name in stale:
            sys.stderr.write(f"docs/reference/{name} is not what the code says: make reference\n")
        return 1 if stale else 0
    TARGET.mkdir(exist_ok=True)
    for name, text in wanted.items():
        (TARGET / name).write_text(text)
    return 0


def _is(path: Path, text: str) -> bool:
    return path.exists() and path.read_text() == text


if __name__ == "__main__":
    sys.exit(main())
