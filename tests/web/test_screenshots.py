"""The pictures: every page that a browser can open is among them, in each of its looks."""

from collections.abc import Iterator

from fastapi import APIRouter

from app.web import batch_pages, pages, webhook_pages
from scripts.screenshots import ACTS, LOOKS, ROUTES, paths_of, shows

NO_PAGES = {"/favicon.ico", "/batches/{batch_id}/points"}


def page_routes(router: APIRouter) -> Iterator[str]:
    for route in router.routes:
        if "GET" in getattr(route, "methods", ()):
            yield getattr(route, "path", "")


def test_every_page_has_a_picture() -> None:
    there = {path for module in (pages, batch_pages, webhook_pages) for path in page_routes(module.router)}
    assert "/webhooks" in there
    assert there - NO_PAGES - set(ROUTES.values()) == set()
    assert {look.name for look in LOOKS} == {"light", "dark", "phone"}


def test_every_picture_has_an_address_to_begin_at_and_a_page_to_show() -> None:
    begun = paths_of("/jobs/job_1", "model_1", {"failed": "/jobs/job_2", "rejected": "/models/model_2"})
    assert set(begun) == set(ROUTES)
    assert set(ACTS) <= set(ROUTES)
    for name, path in begun.items():
        if name not in ACTS:
            assert shows(ROUTES[name], f"http://127.0.0.1:8000{path}"), name
