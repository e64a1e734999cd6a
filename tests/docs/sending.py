"""Sends the examples of the OpenAPI document, with ids of things that exist in place of its placeholders."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from app.api.examples import DATASET, FORM, MODEL, UPLOAD
from app.openapi import document
from tests.docs.pages import ROOT
from tests.support.processes import wait_until
from tests.support.service import Service

NETWORK = ROOT / "examples" / "digits_cnn.onnx"
IMAGES = ROOT / "examples" / "digits.npz"


def request_bodies() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Operation, media type and description of every request body."""
    for path, methods in document()["paths"].items():
        for method, operation in methods.items():
            for media, content in operation.get("requestBody", {}).get("content", {}).items():
                yield f"{method.upper()} {path}", media, content


class Sender:
    """Somebody with a network and images on the server, who sends one example after another."""

    def __init__(self, service: Service) -> None:
        self._client = service.client
        self._model = self._made("/v1/models", NETWORK)
        self._dataset = self._made("/v1/datasets", IMAGES)
        wait_until(lambda: self._is_ready(f"/v1/models/{self._model}"), 60)
        wait_until(lambda: self._is_ready(f"/v1/datasets/{self._dataset}"), 60)

    def _is_ready(self, address: str) -> bool:
        return bool(self._client.get(address).json()["status"] == "ready")

    def _made(self, address: str, file: Path) -> str:
        with file.open("rb") as opened:
            answer = self._client.post(address, files={"file": (file.name, opened)})
        return str(answer.raise_for_status().json()["id"])

    def send(self, operation: str, media: str, value: Any) -> httpx.Response:
        """The answer to an example."""
        method, path = operation.split()
        text = value if isinstance(value, str) else json.dumps(value)
        text = text.replace(MODEL, self._model).replace(DATASET, self._dataset)
        file = IMAGES if "datasets" in path else NETWORK
        if UPLOAD in text:
            text = text.replace(UPLOAD, self._uploaded(file))
        if "{key_id}" in path:
            key = self._client.post("/v1/keys", json={"name": "to be changed"}).raise_for_status().json()
            path = path.replace("{key_id}", key["id"])
        if media == FORM:
            return self._send_form(path, json.loads(text), file)
        return self._client.request(method, path, content=text, headers={"Content-Type": media})

    def _send_form(self, path: str, fields: dict[str, str], file: Path) -> httpx.Response:
        """The document cannot hold a file; the reader chooses one."""
        name, content = file.name, file.read_bytes()
        if path == "/v1/batches":
            line = {"model": self._model, "compression": {"basis": "weights", "target": {"macs": 0.5}}}
            name, content = "jobs.jsonl", json.dumps(line).encode()
        return self._client.post(path, data=fields, files={"file": (name, content)})

    def _uploaded(self, file: Path) -> str:
        """A complete upload by tus."""
        filename = base64.b64encode(file.name.encode()).decode()
        answer = self._client.post(
            "/v1/uploads",
            content=file.read_bytes(),
            headers={
                "Tus-Resumable": "1.0.0",
                "Upload-Length": str(file.stat().st_size),
                "Upload-Metadata": f"filename {filename}",
                "Content-Type": "application/offset+octet-stream",
            },
        ).raise_for_status()
        return answer.headers["Location"].rsplit("/", 1)[1]

    def clear(self) -> None:
        """Cancel what the examples queued: that they are accepted is all that is asked here."""
        for status in ("queued", "running"):
            for job in self._client.get("/v1/jobs", params={"status": status, "limit": 100}).json()["data"]:
                self._client.post(f"/v1/jobs/{job['id']}/cancel")
