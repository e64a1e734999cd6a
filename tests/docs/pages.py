"""The project's Markdown pages: their links, headings and fenced blocks, as CommonMark reads them."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("docs", "client", "examples", "benchmarks", ".")
_MARKDOWN = MarkdownIt("commonmark").enable("table")


def all_pages() -> list[Path]:
    """Every page that a reader may come to; generated tables of results too."""
    found = {path for folder in FOLDERS for path in (ROOT / folder).glob("*.md")}
    found |= {path for folder in ("docs", "benchmarks/results") for path in (ROOT / folder).rglob("*.md")}
    return sorted(found)


@dataclass(frozen=True)
class Link:
    """Where a page leads to: a page or file, and a heading in it."""

    target: str
    line: int


@dataclass(frozen=True)
class Block:
    """A fenced block: ```` ```sh run ```` has the language `sh` and the words `("run",)`."""

    language: str
    words: tuple[str, ...]
    text: str
    line: int


@cache
def tokens(page: Path) -> tuple[Token, ...]:
    return tuple(_MARKDOWN.parse(page.read_text()))


def links(page: Path) -> Iterator[Link]:
    """Links and pictures, also those of raw HTML."""
    for token in tokens(page):
        line = (token.map or [0])[0] + 1
        for child in token.children or []:
            target = child.attrGet("href") or child.attrGet("src")
            if target:
                yield Link(str(target), line)
            if child.type == "html_inline":
                yield from (Link(found, line) for found in _in_html(child.content))
        if token.type == "html_block":
            yield from (Link(found, line) for found in _in_html(token.content))


def _in_html(text: str) -> list[str]:
    return re.findall(r"""(?:href|src)=["']([^"']+)""", text)


def blocks(page: Path) -> list[Block]:
    """The page's fenced blocks, from top to bottom."""
    found = []
    for token in tokens(page):
        if token.type == "fence":
            language, *words = token.info.split() or [""]
            found.append(Block(language, tuple(words), token.content, (token.map or [0])[0] + 1))
    return found


@cache
def anchors(page: Path) -> frozenset[str]:
    """What can stand behind `#`: the headings as GitHub names them, and explicit ids."""
    found: set[str] = set()
    stream = tokens(page)
    for before, token in pairwise(stream):
        if before.type == "heading_open":
            name = _anchor(token)
            found.add(_free(name, found))
        if token.type == "html_block":
            found |= set(re.findall(r"""(?:id|name)=["']([^"']+)""", token.content))
    for token in stream:
        for child in token.children or []:
            if child.type == "html_inline":
                found |= set(re.findall(r"""(?:id|name)=["']([^"']+)""", child.content))
    return frozenset(found)


def _anchor(heading: Token) -> str:
    """Letters, digits, hyphens and underscores of the heading's words, in lower case; blanks as hyphens."""
    shown = (c.content for c in heading.children or [] if c.type in {"text", "code_inline"})
    kept = (c for c in "".join(shown).lower() if c in " -_" or unicodedata.category(c)[0] in "LN")
    return "".join(kept).replace(" ", "-")


def _free(name: str, taken: set[str]) -> str:
    """A second heading of the same words gets a number."""
    number, free = 0, name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free
