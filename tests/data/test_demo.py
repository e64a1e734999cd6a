"""`basisconv demo`: the main job from the command line, and a clear word when it cannot run."""

import hashlib
import json
from pathlib import Path

import onnxruntime
import pytest
from rich.console import Console

from app.demo import Surroundings, answers, main, running_server
from app.embedded.children import NotStarted
from app.embedded.folders import free_port
from basisconv_client import Client
from tests.support.service import Service


def environment(url: str, **more: str) -> dict[str, str]:
    return {"BASISCONV_URL": url, **more}


def test_the_demo_compresses_the_example_and_leaves_verified_files(
    shared_server: Service,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    status = main(environment(shared_server.url, BASISCONV_API_KEY=shared_server.key))
    said = capsys.readouterr().out
    assert status == 0, said
    (folder,) = (tmp_path / "build" / "demo").iterdir()
    job = json.loads((folder / "job.json").read_text())
    assert job["result"]["compressed"]["macs"] <= 0.5 * job["result"]["original"]["macs"]
    assert job["result"]["original"]["accuracy"] == pytest.approx(357 / 360)
    assert job["result"]["compressed"]["accuracy"] > 0.95
    for word in ("Before and after", "accuracy", "latency, batch 1", "99.17%", "build/demo"):
        assert word in said
    exports = {export["format"]: export for export in job["result"]["exports"]}
    (onnx,) = folder.glob("*.onnx")
    assert hashlib.sha256(onnx.read_bytes()).hexdigest() == exports["onnx"]["sha256"]
    assert (
        onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"]).get_inputs()[0].name == "image"
    )


def test_a_server_that_was_named_and_does_not_answer_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    url = f"http://127.0.0.1:{free_port()}"
    assert main(environment(url)) == 1
    assert f"No server answers at {url}" in capsys.readouterr().out


def test_a_missing_key_is_said_with_the_place_it_was_looked_for(
    shared_server: Service,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(environment(shared_server.url, BASISCONV_VAR_DIR="nowhere")) == 1
    assert "nowhere/api-key cannot be read" in capsys.readouterr().out


def test_a_wrong_key_is_said(
    shared_server: Service,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(environment(shared_server.url, BASISCONV_API_KEY="bc_wrong")) == 1
    assert "unauthenticated" in capsys.readouterr().out


def test_without_a_server_one_is_started_and_stopped(tmp_path: Path) -> None:
    port = free_port()
    surroundings = Surroundings.of(
        {"PORT": str(port), "BASISCONV_VAR_DIR": str(tmp_path / "var")}, tmp_path / "demo"
    )
    with running_server(surroundings, Console(quiet=True)) as (url, key), Client(url, key) as client:
        assert url == f"http://127.0.0.1:{port}"
        assert client.get("/v1/jobs")["data"] == []
    assert not answers(url)
    assert "Stopped" in (tmp_path / "demo" / "server.log").read_text()


def test_a_server_that_cannot_start_is_said_with_the_end_of_its_log(tmp_path: Path) -> None:
    (tmp_path / "var").write_text("a file where the folder should be")
    surroundings = Surroundings.of(
        {"PORT": str(free_port()), "BASISCONV_VAR_DIR": str(tmp_path / "var")}, tmp_path / "demo"
    )
    with (
        pytest.raises(NotStarted, match="The server ended with status"),
        running_server(surroundings, Console(quiet=True)),
    ):
        pass
