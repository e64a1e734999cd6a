"""Every example of the documentation does what its page says, against the real service."""

import re
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, all_pages, links
from tests.docs.running import TUTORIAL, Reader, stands_alone, steps
from tests.docs.sending import Sender, request_bodies
from tests.support.service import Service

PAGES = [page for page in all_pages() if steps(page)]
LONG = ROOT / "docs" / "reference" / "rest.md"  # a call of every operation; the tests of REST have them too
SLOW = [page for page in all_pages() if len(steps(page, slow=True)) > len(steps(page))]


@pytest.fixture(scope="module")
def reader(shared_server: Service, tmp_path_factory: pytest.TempPathFactory) -> Reader:
    return Reader(tmp_path_factory.mktemp("reader"), shared_server)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=pytest.mark.slow if page == LONG else ()) for page in PAGES],
    ids=[str(page.relative_to(ROOT)) for page in PAGES],
)
def test_a_reader_who_pastes_the_examples_gets_what_the_page_says(page: Path, reader: Reader) -> None:
    reader.follow(page)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", SLOW, ids=lambda page: str(page.relative_to(ROOT)))
def test_examples_that_wait_for_jobs_do_too(page: Path, reader: Reader) -> None:
    reader.follow(page, slow=True)


def test_a_page_that_takes_the_tutorials_names_for_granted_leads_there() -> None:
    pages = [page for page in {*PAGES, *SLOW} if not stands_alone(page)]
    lost = [page for page in pages if not any("tutorial.md#" in link.target for link in links(page))]
    assert lost == []


def test_the_readmes_walk_through_is_among_what_runs() -> None:
    assert len(steps(ROOT / "README.md", slow=True)) == 3


def test_the_pages_show_what_the_tutorial_tells_to_press() -> None:
    told = TUTORIAL.read_text().partition("## In the browser")[2].partition("\n## ")[0]
    names = re.findall(r"\*+([^*]+)\*+", told)
    assert len(names) > 8
    shown = "".join(page.read_text() for page in (ROOT / "app" / "web" / "templates").glob("*.html"))
    shown += (ROOT / "app" / "web" / "wording.py").read_text()
    assert [name for name in names if name not in shown] == []


def test_every_request_body_has_an_example_or_is_bytes() -> None:
    lacking = [
        f"{operation}: {media}"
        for operation, media, content in request_bodies()
        if media != "application/offset+octet-stream" and not content.get("examples")
    ]
    assert lacking == [], "add them to app/api/examples.py"


def test_every_example_of_the_openapi_document_is_accepted(shared_server: Service) -> None:
    sender = Sender(shared_server)
    refused = []
    for operation, media, content in request_bodies():
        for name, example in content.get("examples", {}).items():
            answer = sender.send(operation, media, example["value"])
            if answer.status_code not in (200, 201):
                refused.append(f"{operation} {media} {name}: {answer.status_code} {answer.text}")
    sender.clear()
    assert refused == []
