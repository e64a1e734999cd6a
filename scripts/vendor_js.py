"""Copy the browser packages that the pages load from node_modules to app/web/static/vendor.

The folder is git-ignored: versions and hashes stand in package-lock.json, `npm ci` brings the files,
and a browser gets them from this service alone. Run again after every `npm ci`; it replaces the folder.
"""

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SANS = "@fontsource-variable/ibm-plex-sans"
MONO = "@fontsource/ibm-plex-mono"

# file in node_modules -> file in app/web/static/vendor
FILES = {
    "htmx.org/dist/htmx.min.js": "htmx/htmx.min.js",
    "htmx.org/LICENSE": "htmx/LICENSE",
    "tus-js-client/dist/tus.min.js": "tus/tus.min.js",
    "tus-js-client/LICENSE": "tus/LICENSE",
    "uplot/dist/uPlot.iife.min.js": "uplot/uPlot.iife.min.js",
    "uplot/dist/uPlot.min.css": "uplot/uPlot.min.css",
    "uplot/LICENSE": "uplot/LICENSE",
    "swagger-ui-dist/swagger-ui-bundle.js": "swagger-ui/swagger-ui-bundle.js",
    "swagger-ui-dist/swagger-ui.css": "swagger-ui/swagger-ui.css",
    "swagger-ui-dist/LICENSE": "swagger-ui/LICENSE",
    "swagger-ui-dist/NOTICE": "swagger-ui/NOTICE",
    f"{SANS}/files/ibm-plex-sans-latin-wght-normal.woff2": "fonts/ibm-plex-sans.woff2",
    f"{SANS}/LICENSE": "fonts/ibm-plex-sans.LICENSE",
    f"{MONO}/files/ibm-plex-mono-latin-400-normal.woff2": "fonts/ibm-plex-mono.woff2",
    f"{MONO}/LICENSE": "fonts/ibm-plex-mono.LICENSE",
}


def vendor(packages: Path, target: Path) -> list[str]:
    """Copy every file, into a new folder first so that a page never meets half of it; returns what lacks."""
    missing = [name for name in FILES if not (packages / name).is_file()]
    if missing:
        return missing
    fresh = target.with_name("vendor.new")
    shutil.rmtree(fresh, ignore_errors=True)
    for source, name in FILES.items():
        (fresh / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(packages / source, fresh / name)
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)
    return []


def main() -> int:
    missing = vendor(ROOT / "node_modules", ROOT / "app" / "web" / "static" / "vendor")
    if missing:
        sys.stderr.write(f"node_modules lacks {', '.join(missing)}: run `npm ci` first\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
