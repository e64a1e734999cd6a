"""A page of another site in the same browser, where somebody is signed in here: a real cross-site attack."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from tests.e2e.conftest import sign_in
from tests.support.service import Service

# Loaded from localhost, which is another site than 127.0.0.1.
PAGE = """<!doctype html><title>evil</title>
<form id="post" method="post" action="{target}/example" target="out"></form>
<form id="text" method="post" enctype="text/plain" action="{target}/v1/keys" target="out">
  <input name='{{"name":"stolen","x":"' value='"}}'></form>
<iframe name="out"></iframe><iframe id="framed" src="{target}/jobs"></iframe>
<a id="page" href="{target}/jobs">jobs</a> <a id="data" href="{target}/v1/models">models</a>
<script>
  window.results = {{}};
  async function attack() {{
    for (const [name, options] of Object.entries({{
      read: {{ credentials: "include" }},
      blind: {{ method: "POST", credentials: "include", mode: "no-cors", body: "{{}}" }},
    }})) {{
      try {{ const a = await fetch("{target}/v1/keys", options); window.results[name] = a.type; }}
      catch (error) {{ window.results[name] = "refused"; }}
    }}
    document.getElementById("post").submit();
    document.getElementById("text").submit();
  }}
</script>"""


@pytest.fixture
def evil(shared_server: Service) -> Iterator[str]:
    """The address of a site that means harm."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = PAGE.format(target=shared_server.url).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nobody needs to know."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://localhost:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture
def victim(browser: Browser, shared_server: Service) -> Iterator[BrowserContext]:
    """A browser whose user is signed in here."""
    context = browser.new_context()
    sign_in(context, shared_server)
    page = context.new_page()
    assert page.goto(f"{shared_server.url}/jobs").status == 200  # type: ignore[union-attr]
    yield context
    context.close()


def _visit(victim: BrowserContext, address: str) -> Page:
    page = victim.new_page()
    page.goto(address)
    return page


def test_it_makes_nothing_and_learns_nothing(
    victim: BrowserContext, evil: str, shared_server: Service
) -> None:
    keys = shared_server.client.get("/v1/keys").json()["data"]
    models = shared_server.client.get("/v1/models").json()["data"]
    answers: list[tuple[str, str, int]] = []
    page = victim.new_page()
    page.on("response", lambda got: answers.append((got.request.method, got.url, got.status)))
    page.goto(evil)
    page.evaluate("attack()")
    page.wait_for_timeout(1_000)
    here = [answer for answer in answers if answer[1].startswith(shared_server.url)]
    assert here
    assert {status for _, _, status in here} <= {200, 401, 403}
    assert all(status in {401, 403} for method, _, status in here if method == "POST")
    assert page.evaluate("window.results.read") == "refused"
    assert shared_server.client.get("/v1/keys").json()["data"] == keys
    assert shared_server.client.get("/v1/models").json()["data"] == models


def test_it_can_show_none_of_our_pages_in_a_frame(
    victim: BrowserContext, evil: str, shared_server: Service
) -> None:
    page = _visit(victim, evil)
    page.wait_for_load_state("networkidle")
    for frame in page.frames[1:]:
        assert "Jobs" not in frame.content()


def test_its_links_lead_to_our_pages_but_not_to_data(
    victim: BrowserContext, evil: str, shared_server: Service
) -> None:
    page = _visit(victim, evil)
    with page.expect_navigation() as followed:
        page.click("#page")
    assert followed.value is not None
    assert followed.value.status == 200
    assert page.title().startswith("Jobs")
    page.goto(evil)
    with page.expect_navigation() as data:
        page.click("#data")
    assert data.value is not None
    assert data.value.status == 403
