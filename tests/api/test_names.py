"""Names that users give: refused where they do not show what they are, and nothing but text where they do."""

import json
from typing import Any
from urllib.parse import unquote

import pytest
from fastapi.testclient import TestClient

from app.artifacts.endpoints import content_disposition
from app.core.unit import Services
from tests.api.seeds import (
    FIGURES,
    RESULT,
    add_artifact,
    add_dataset,
    add_job,
    add_model,
    onnx_bytes,
)

MARKUP = "<img src=x onerror=alert(1)>\"'&lt;{{7*7}}</script><!--"
TURNED = "resnet\u202egpj.exe"
REFUSED = [
    "line\nbreak",
    "carriage\rreturn",
    "bell\x07",
    "escape\x1b[31m",
    "delete\x7f",
    "next\x85line",
    "paragraph\u2029",
    TURNED,
    "isolate\u2066",
    "mark\u200f",
    "x" * 10_000,
    "   ",
    "nul\0",
    "half\ud800",
]
JSON = {"Content-Type": "application/json"}
KEPT = [MARKUP, "Größe 20 µm", "模型", "שלום", "👩‍💻 models", "a/b\\c", "%0d%0aSet-Cookie: x=1"]


def _post(client: TestClient, path: str, services: Services, name: str) -> Any:
    """Make something with this name at each address that takes one."""
    if path == "/v1/jobs":
        body = {"kind": "compress", "model": add_model(services), "compression": {"target": {"macs": 0.5}}}
        return client.post(path, content=json.dumps(body | {"name": name}), headers=JSON)
    if path == "/v1/keys":
        return client.post(path, content=json.dumps({"name": name}), headers=JSON)
    data = onnx_bytes()
    boundary = b"--b\r\nContent-Disposition: form-data; name="
    body_bytes = (
        boundary + b'"name"\r\n\r\n' + name.encode("utf-8", "surrogatepass") + b"\r\n"
        + boundary + b'"file"; filename="n.onnx"\r\n\r\n' + data + b"\r\n--b--\r\n"
    )  # fmt: skip
    return client.post(path, content=body_bytes, headers={"Content-Type": "multipart/form-data; boundary=b"})


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/keys", "/v1/models"])
def test_a_name_that_hides_what_it_is_is_refused(client: TestClient, services: Services, path: str) -> None:
    for name in REFUSED:
        answer = _post(client, path, services, name)
        if name.isspace() and path == "/v1/models":
            assert (
                answer.json()["name"] == "n"
            )  # browsers send unfilled fields: the file's name stands for it
            continue
        assert answer.status_code == 422, f"{name[:20]!r}: {answer.text[:300]}"
        assert "name" in answer.text or "surrogate" in answer.text
        assert len(answer.content) < 2_000
        assert all(c.isprintable() for c in answer.json()["detail"])


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/keys", "/v1/models"])
def test_any_other_name_is_given_back_as_it_was(client: TestClient, services: Services, path: str) -> None:
    for name in KEPT:
        answer = _post(client, path, services, name)
        assert answer.status_code == 201, answer.text
        assert answer.json()["name"] == name


@pytest.mark.parametrize("given", ["../../etc/passwd.onnx", "C:\\nets\\a.onnx", "a\u202eb.onnx", "<b>.onnx"])
def test_a_files_own_name_becomes_one_that_is_only_a_name(client: TestClient, given: str) -> None:
    made = client.post("/v1/models", files={"file": (given, onnx_bytes())})
    assert made.status_code == 201
    name = made.json()["name"]
    assert "/" not in name
    assert "\\" not in name
    assert name.isprintable()


@pytest.mark.parametrize("name", [*KEPT, 'quo"te.onnx', "semi;colon.onnx", "new\r\nline.onnx", "..", ""])
def test_a_download_has_a_name_that_every_client_can_save(name: str) -> None:
    """RFC 6266: one of plain ASCII, and beside it the exact one in RFC 5987's form."""
    header = content_disposition(name)
    assert header.isascii()
    assert header.isprintable()
    plain, _, exact = header.removeprefix('attachment; filename="').partition("\"; filename*=UTF-8''")
    assert not set(plain) & set('"\\/;%\r\n')
    assert plain not in {"", ".", ".."}
    assert unquote(exact) == name
    assert set(exact) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~%")


@pytest.fixture
def hostile_job(services: Services) -> str:
    """A job whose every text is markup: names, layers as a file may name them, warnings, errors."""
    layer = {"name": MARKUP, "form": "basis", "rank": 8, "replaced": True, "reason": None, "error": 0.1}
    kept = layer | {"name": "k" * 10_000, "replaced": False, "reason": MARKUP}
    table = {
        "name": MARKUP, "kind": "conv2d", "in_channels": 1, "out_channels": 1, "kernel_size": [3, 3],
        "stride": [1, 1], "groups": 1, "output_size": [1, 1], "macs": 9, "params": 9, "max_rank": 1,
        "break_even_rank": 1, "compressible": True, "reason": MARKUP,
    }  # fmt: skip
    model = add_model(services, name=MARKUP, layers=[table], details={"input": MARKUP})
    dataset = add_dataset(services, name=MARKUP, details={"class_names": [MARKUP]})
    error = {
        "type": "x",
        "title": MARKUP,
        "status": 422,
        "detail": MARKUP,
        "code": "internal",
        "hint": MARKUP,
    }
    return add_job(
        services,
        model,
        dataset_id=dataset,
        name=MARKUP,
        annotations={MARKUP: MARKUP},
        status="failed",
        error=error | {"layer": MARKUP},
        warnings=[{"code": "x", "detail": MARKUP, "layer": MARKUP}],
        result=RESULT | {"layers": [layer, kept], "compressed": FIGURES, "device": MARKUP},
    )


def test_no_page_and_no_report_takes_a_name_for_markup(
    client: TestClient, services: Services, hostile_job: str
) -> None:
    add_artifact(services, hostile_job, b"x", name=MARKUP)
    with_model = client.get(f"/v1/jobs/{hostile_job}").json()["model"]
    for path in (
        f"/v1/jobs/{hostile_job}/report",
        f"/jobs/{hostile_job}",
        f"/models/{with_model}",
        "/",
        "/jobs",
        "/models",
        "/datasets",
    ):
        page = client.get(path, headers={"Accept": "text/html"})
        assert page.status_code == 200, path
        assert "<img src=x" not in page.text, path
        assert "</script><!--" not in page.text, path
        assert "'unsafe-inline'" not in page.headers["content-security-policy"], path


def test_a_problem_repeats_nothing_raw(client: TestClient) -> None:
    for path in ("/v1/jobs/<img src=x>", "/v1/models/%0d%0aX: y", "/nothing/%E2%80%AE", "/" + "y" * 5_000):
        answer = client.get(path)
        assert answer.status_code == 404
        assert len(answer.content) < 2_000, path
        assert all(c.isprintable() for c in answer.json()["detail"]), path
    many = {f"<img {number}\u202e {'x' * 500}": 1 for number in range(2_000)}
    refused = client.post("/v1/keys", json={"name": "a"} | many)
    assert refused.status_code == 422
    assert "1999 more" in refused.json()["detail"]
    assert len(refused.json()["detail"]) < 1_000
    assert all(c.isprintable() for c in refused.json()["detail"])
    assert len(refused.json()["errors"]) == 100
    page = client.get("/nothing/<img src=x onerror=alert(1)>", headers={"Accept": "text/html"})
    assert page.status_code == 404
    assert "<img" not in page.text
