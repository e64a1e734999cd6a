"""Write examples/notebook.ipynb from examples/notebook.py, whose cells begin with `# %%`; --check compares.

The script is what the tests run; the notebook is what people open.
"""

import json
import sys
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).resolve().parents[1] / "examples" / "notebook.py"
TARGET = SOURCE.with_suffix(".ipynb")
MARK = "# %%"


def notebook(script: str) -> dict[str, Any]:
    """The cells of a script, in the format of nbformat 4.5."""
    _, *parts = ("\n" + script).split("\n" + MARK)
    return {
        "cells": [cell(number, part) for number, part in enumerate(parts)],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def cell(number: int, part: str) -> dict[str, Any]:
    heading, _, body = part.partition("\n")
    lines = body.strip("\n").split("\n")
    if "[markdown]" in heading:
        text = [line.removeprefix("#").removeprefix(" ") for line in lines]
        return {"cell_type": "markdown", "id": f"cell-{number}", "metadata": {}, "source": joined(text)}
    return {
        "cell_type": "code",
        "execution_count": None,
        "id": f"cell-{number}",
        "metadata": {},
        "outputs": [],
        "source": joined(lines),
    }


def joined(lines: list[str]) -> list[str]:
    return [f"{line}\n" for line in lines[:-1]] + lines[-1:]


def main() -> int:
    wanted = json.dumps(notebook(SOURCE.read_text()), indent=1, ensure_ascii=False) + "\n"
    if "--check" not in sys.argv:
        TARGET.write_text(wanted)
        return 0
    if TARGET.is_file() and TARGET.read_text() == wanted:
        return 0
    sys.stderr.write("examples/notebook.ipynb is not what examples/notebook.py says: make client-docs\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
