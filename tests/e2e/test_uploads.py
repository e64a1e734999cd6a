"""Uploads from the form that break off: the browser goes on at the last byte that the server has."""

import hashlib
import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import CDPSession, Page, Request, Response, expect

from app.embedded.children import wait_ready
from tests.data.making import encode, picture
from tests.e2e.conftest import EXAMPLES, OpenPage
from tests.support.processes import wait_until
from tests.support.service import Service

BYTES_PER_SECOND = 6_000_000
SECONDS = 60_000  # milliseconds; two cores may be busy with other tests


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zip of class folders, large enough to be cut in the middle."""
    path = tmp_path_factory.mktemp("images") / "noise.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(16):  # 39 MB: more than the browser sends in one request
            pixels = picture(900, 900, seed=number)
            archive.writestr(f"{'odd' if number % 2 else 'even'}/{number}.png", encode(pixels))
    return path


@dataclass
class Line:
    """The browser's connection: slow, so that there is a middle, and what is sent over it."""

    page: Page
    cdp: CDPSession
    begun_at: list[int] = field(default_factory=list)  # Upload-Offset of every PATCH, in order
    told: list[int] = field(default_factory=list)  # what HEAD answered, in order

    def __post_init__(self) -> None:
        self.page.on("request", self._on_request)
        self.page.on("response", self._on_response)

    def _on_request(self, request: Request) -> None:
        if request.method == "PATCH":
            self.begun_at.append(int(request.headers["upload-offset"]))

    def _on_response(self, response: Response) -> None:
        if response.request.method == "HEAD" and response.ok:
            self.told.append(int(response.headers["upload-offset"]))

    def be(self, *, offline: bool = False, bytes_per_second: int = BYTES_PER_SECOND) -> None:
        conditions = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": bytes_per_second}
        self.cdp.send("Network.emulateNetworkConditions", {"offline": offline, **conditions})


@pytest.fixture
def line(open_page: OpenPage) -> Line:
    page = open_page()
    cdp = page.context.new_cdp_session(page)
    cdp.send("Network.enable")
    line = Line(page, cdp)
    line.be()
    return line


def _choose_and_send(page: Page, images: Path) -> None:
    page.set_input_files("#model", EXAMPLES / "digits_cnn.onnx")
    page.set_input_files("#dataset", images)
    page.get_by_role("button", name="Compress").click()


def _upload(service: Service) -> dict[str, object] | None:
    """The data set's upload as the server has it."""
    rows = service.client.get("/v1/uploads").raise_for_status().json()["data"]
    return next((row for row in rows if row["filename"] == "noise.zip"), None)


def _until_some_came(service: Service, page: Page, at_least: int = 1_000_000) -> int:
    """So many bytes that count, seen while the page goes on."""
    received = 0
    for _ in range(600):
        row = _upload(service)
        received = int(str(row["received"])) if row else 0
        if received >= at_least:
            return received
        page.wait_for_timeout(50)
    raise AssertionError(f"only {received} bytes came")


def _check_arrived(service: Service, page: Page, images: Path) -> None:
    """The file became a data set, byte for byte, and the upload is gone."""
    sha256 = hashlib.sha256(images.read_bytes()).hexdigest()

    def has_arrived() -> bool:
        rows = service.client.get("/v1/datasets").json()["data"]
        return sha256 in {row["sha256"] for row in rows}

    for _ in range(1200):
        if has_arrived():
            break
        page.wait_for_timeout(50)
    assert has_arrived()
    assert _upload(service) is None


def _check_resumed(line: Line, images: Path) -> None:
    """What went on did so where the server said, and not at the first byte."""
    size = images.stat().st_size
    beginnings = [offset for offset in line.begun_at if offset > 0]
    assert beginnings, (line.begun_at, line.told)
    _until_told(line, beginnings[0])
    assert 0 < beginnings[0] < size
    assert line.begun_at.count(0) == 2  # each file's first byte went out once: the network's and the images'


def _until_told(line: Line, offset: int) -> None:
    """What the browser heard reaches us a little after the bytes that it sent then."""
    for _ in range(100):
        if offset in line.told:
            return
        line.page.wait_for_timeout(50)
    raise AssertionError((offset, line.begun_at, line.told))


def _forget_data(service: Service) -> None:
    for row in service.client.get("/v1/datasets").json()["data"]:
        if row["name"] == "noise":
            service.client.delete(f"/v1/datasets/{row['id']}")


@pytest.fixture(autouse=True)
def fresh(shared_server: Service) -> None:
    """Each test sends the file anew."""
    _forget_data(shared_server)


def test_a_connection_that_goes_and_comes_back_goes_on(
    line: Line, shared_server: Service, images: Path
) -> None:
    page = line.page
    _choose_and_send(page, images)
    _until_some_came(shared_server, page)
    line.be(offline=True)
    expect(page.locator("[data-run=dataset]")).to_contain_text("Interrupted at", timeout=SECONDS)
    page.wait_for_timeout(1500)
    cut_at = int(str((_upload(shared_server) or {})["received"]))
    assert cut_at > 0
    line.be(bytes_per_second=-1)
    _check_arrived(shared_server, page, images)
    _check_resumed(line, images)
    assert cut_at in line.told  # not one byte less than what had come


def test_a_web_process_that_is_killed_and_comes_back_goes_on(
    line: Line, shared_server: Service, images: Path
) -> None:
    page, web = line.page, shared_server.web
    _choose_and_send(page, images)
    _until_some_came(shared_server, page)
    assert web.process is not None
    web.process.kill()
    web.process.wait()
    expect(page.locator("[data-run=dataset]")).to_contain_text("Interrupted at", timeout=SECONDS)
    web.start()
    wait_ready(web)
    line.be(bytes_per_second=-1)
    _check_arrived(shared_server, page, images)
    _check_resumed(line, images)


def test_after_a_reload_the_same_file_goes_on(line: Line, shared_server: Service, images: Path) -> None:
    page = line.page
    _choose_and_send(page, images)
    _until_some_came(shared_server, page)
    page.reload()
    expect(page.locator("#dataset-rest")).to_contain_text("noise.zip was interrupted at")
    wait_until(lambda: _upload(shared_server) is not None, 5)
    line.be(bytes_per_second=-1)
    _choose_and_send(page, images)
    _check_arrived(shared_server, page, images)
    beginnings = [offset for offset in line.begun_at if offset > 0]
    assert beginnings
    assert beginnings[0] in line.told


def test_a_pickle_is_refused_beside_its_field(line: Line, tmp_path: Path) -> None:
    pickle = tmp_path / "net.onnx"
    pickle.write_bytes(b"\x80\x04\x95" + b"x" * 5_000_000)
    line.be(bytes_per_second=-1)
    line.page.set_input_files("#model", pickle)
    line.page.get_by_role("button", name="Compress").click()
    expect(line.page.locator("#model-problem")).to_contain_text(re.compile("pickle"))
    line.page.reload()
    expect(line.page.locator("#model-rest")).to_be_hidden()
