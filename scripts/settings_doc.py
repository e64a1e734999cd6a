"""Write docs/settings.md from app/core/settings.py; with --check only say whether it is up to date."""

import ast
import inspect
import sys
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from app.core import settings as module
from app.core.settings import Settings

TARGET = Path(__file__).resolve().parents[1] / "docs" / "settings.md"
HEAD = """# Settings

Every setting is an environment variable. They are read once, when a process starts; a wrong value ends the
process with its name and the reason. Nothing secret has a default: `make run` makes its own secrets under
`var/secrets` and sets what is not set already, so that any of these can be given to it as well.

This page is generated from `app/core/settings.py` (`make settings-doc`).
"""
BOUNDS = {Ge: "≥", Gt: ">", Le: "≤", Lt: "<"}


def page() -> str:
    parts = [HEAD]
    for group, names in groups().items():
        parts.append(f"## {group}\n")
        parts.append("| variable | default | allowed | meaning |\n| --- | --- | --- | --- |")
        parts.extend(row(name, Settings.model_fields[name]) for name in names)
        parts.append("")
    return "\n".join(parts)


def groups() -> dict[str, list[str]]:
    """The fields under the comments that head them in the class."""
    source = inspect.getsource(module).splitlines()
    tree = next(
        node
        for node in ast.parse("\n".join(source)).body
        if isinstance(node, ast.ClassDef) and node.name == "Settings"
    )
    found: dict[str, list[str]] = {}
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            heading = next(
                line.strip().removeprefix("# ")
                for line in reversed(source[: node.lineno - 1])
                if line.startswith("    # ")
            )
            found.setdefault(heading, []).append(node.target.id)
    return found


def row(name: str, field: FieldInfo) -> str:
    cells = [f"`BASISCONV_{name.upper()}`", default(field), allowed(field), field.description or ""]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "**required**"
    if field.default in {None, ""}:
        return "unset"
    return f"`{field.default}`"


def allowed(field: FieldInfo) -> str:
    annotation = next((kind for kind in get_args(field.annotation) if kind is SecretStr), field.annotation)
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    words = [getattr(annotation, "__name__", str(annotation)).replace("SecretStr", "secret")]
    words += [text for bound in field.metadata if (text := limit(bound))]
    return ", ".join(words)


def limit(bound: Any) -> str:
    if isinstance(bound, MinLen):
        return f"{bound.min_length} characters or more"
    for kind, sign in BOUNDS.items():
        if isinstance(bound, kind):
            return f"{sign} {getattr(bound, kind.__name__.lower())}"
    return ""


def main() -> int:
    wanted = page()
    if "--check" in sys.argv:
        if TARGET.read_text() == wanted:
            return 0
        sys.stderr.write("docs/settings.md is not what the code says: make settings-doc\n")
        return 1
    TARGET.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
