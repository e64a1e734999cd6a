"""Resources for templates: as REST shows them, and a list's links to more of it."""

from typing import Any

from pydantic import BaseModel

Document = dict[str, Any]


def plain(shown: BaseModel) -> Document:
    """As JSON has it: what the templates and REST's clients see is the same."""
    return shown.model_dump(mode="json")


def pager(path: str, rows: list[Document], has_more: bool, after: str | None) -> Document:
    """What the macro under a list needs."""
    return {
        "this_url": f"{path}?after={after}" if after else path,
        "more_url": f"{path}?after={rows[-1]['id']}" if has_more else None,
        "first_url": path if after else None,
    }
