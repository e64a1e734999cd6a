"""No link of ours leads nowhere, and every page can be found from the index."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.docs.pages import ROOT, all_pages, anchors, links

PAGES = all_pages()
INDEX = ROOT / "docs" / "README.md"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading_that_exist(page: Path) -> None:
    broken = []
    for link in links(page):
        parts = urlsplit(link.target)
        if parts.scheme or parts.netloc:
            continue  # another's site: whether it is there today is not ours to test
        target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
        if not target.is_relative_to(ROOT) or not target.exists():
            broken.append(f"line {link.line}: {link.target}: no such file")
        elif parts.fragment and target.suffix == ".md" and unquote(parts.fragment) not in anchors(target):
            broken.append(f"line {link.line}: {link.target}: no such heading")
    assert broken == []


def test_the_pages_have_links_and_headings_that_are_read() -> None:
    assert sum(1 for page in PAGES for _ in links(page)) > 50
    assert {"more-machines", "who-may-take-how-much"} <= anchors(ROOT / "docs" / "operations.md")


def test_the_index_leads_to_every_page_for_users() -> None:
    reached, waiting = set(), [INDEX]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        for link in links(page):
            target = (page.parent / unquote(urlsplit(link.target).path)).resolve()
            if target.suffix == ".md" and target.is_relative_to(ROOT / "docs") and target.exists():
                waiting.append(target)
    unreachable = [
        str(page.relative_to(ROOT)) for page in (ROOT / "docs").rglob("*.md") if page not in reached
    ]
    assert unreachable == []


def test_the_readme_leads_to_the_index() -> None:
    assert INDEX in {(ROOT / urlsplit(link.target).path).resolve() for link in links(ROOT / "README.md")}
