"""The bytes of artifacts: whole, in ranges, or not again."""

import hashlib

import pytest
from fastapi.testclient import TestClient

from app.artifacts.endpoints import content_disposition
from app.core.unit import Services
from tests.api.seeds import add_artifact, add_job, add_model

DATA = bytes(range(256)) * 10_000


@pytest.fixture
def artifact(services: Services, owner_secret: str) -> str:
    return add_artifact(services, add_job(services, add_model(services), status="succeeded"), DATA)


def test_the_bytes_come_whole_with_their_hash(client: TestClient, artifact: str) -> None:
    answer = client.get(f"/v1/artifacts/{artifact}/content")
    assert answer.content == DATA
    assert answer.headers["etag"] == f'"{hashlib.sha256(DATA).hexdigest()}"'
    assert answer.headers["content-length"] == str(len(DATA))
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["content-disposition"].startswith('attachment; filename="resnet20.onnx"')
    shown = client.get(f"/v1/artifacts/{artifact}").json()
    listed = client.get(f"/v1/jobs/{shown['job']}/artifacts").json()["data"]
    assert listed == [shown]


@pytest.mark.parametrize(
    ("header", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-199", 100, 200),
        ("bytes=2559990-", 2559990, 2560000),
        ("bytes=-5", 2559995, 2560000),
        ("bytes=0-99999999", 0, 2560000),
        ("bytes=-99999999", 0, 2560000),
        ("bytes=1048570-1048580", 1048570, 1048581),
    ],
)
def test_a_range_comes_alone(client: TestClient, artifact: str, header: str, start: int, end: int) -> None:
    answer = client.get(f"/v1/artifacts/{artifact}/content", headers={"Range": header})
    assert answer.status_code == 206
    assert answer.content == DATA[start:end]
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{len(DATA)}"


@pytest.mark.parametrize("header", ["bytes=2560000-", "bytes=-0", "bytes=9999999-99999999"])
def test_a_range_outside_is_416_with_the_size(client: TestClient, artifact: str, header: str) -> None:
    answer = client.get(f"/v1/artifacts/{artifact}/content", headers={"Range": header})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{len(DATA)}"
    assert answer.json()["code"] == "range_not_satisfiable"


@pytest.mark.parametrize("header", ["bytes=5-1", "bytes=a-b", "lines=1-2", "bytes=0-1,5-6", "bytes=-", ""])
def test_what_is_no_single_range_gives_the_whole(client: TestClient, artifact: str, header: str) -> None:
    answer = client.get(f"/v1/artifacts/{artifact}/content", headers={"Range": header})
    assert (answer.status_code, len(answer.content)) == (200, len(DATA))


def test_a_copy_that_is_still_right_is_not_sent_again(client: TestClient, artifact: str) -> None:
    etag = f'"{hashlib.sha256(DATA).hexdigest()}"'
    path = f"/v1/artifacts/{artifact}/content"
    for header in (etag, f'"x", W/{etag}', "*"):
        again = client.get(path, headers={"If-None-Match": header})
        assert (again.status_code, again.content) == (304, b"")
    assert client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


def test_a_range_of_another_version_gives_the_whole(client: TestClient, artifact: str) -> None:
    path, part = f"/v1/artifacts/{artifact}/content", {"Range": "bytes=0-9"}
    assert client.get(path, headers=part | {"If-Range": '"other"'}).status_code == 200
    etag = f'"{hashlib.sha256(DATA).hexdigest()}"'
    assert client.get(path, headers=part | {"If-Range": etag}).status_code == 206


def test_head_tells_the_size_without_the_bytes(client: TestClient, artifact: str) -> None:
    answer = client.head(f"/v1/artifacts/{artifact}/content")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == str(len(DATA))


def test_anothers_bytes_do_not_exist(other_owner: TestClient, artifact: str) -> None:
    assert other_owner.get(f"/v1/artifacts/{artifact}/content").status_code == 404


@pytest.mark.parametrize("name", ['a"b\r\nX: y.onnx', "größe ✓.onnx", "../../x", "..", ""])
def test_a_files_name_cannot_leave_its_header(name: str) -> None:
    header = content_disposition(name)
    header.encode("ascii")
    assert "\r" not in header
    assert "\n" not in header
    assert header.count('"') == 2
    assert "/" not in header.split("filename*")[0]
