"""The OpenAPI document is complete and the one in the repository."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.core.settings import Settings
from app.openapi import document, text

FILE = Path(__file__).parents[2] / "docs" / "openapi.json"
DOCUMENT = document()
OPERATIONS = [
    pytest.param(operation, id=f"{method} {path}")
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
]
UNGUARDED = {"/livez", "/readyz"}


def test_the_file_in_the_repository_is_this_document() -> None:
    assert FILE.read_text() == text(), "run: python -m app.openapi > docs/openapi.json"


def test_the_service_serves_it(stranger: TestClient) -> None:
    assert stranger.get("/openapi.json").json() == json.loads(text())


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_is_described_with_its_problems(operation: dict[str, Any]) -> None:
    assert operation.get("description"), "a docstring"
    assert operation["tags"]
    problems = {status for status in operation["responses"] if int(status) >= 400}
    guarded = "security" in operation
    assert {"401", "403", "422", "500", "503"} <= problems or not guarded
    for status in problems - {"503"} if not guarded else problems:
        assert list(operation["responses"][status]["content"]) == ["application/problem+json"]


def test_a_body_that_may_be_too_large_is_answered_as_described(
    client: TestClient, settings: Settings
) -> None:
    most = max(settings.max_json_bytes, settings.max_batch_bytes)
    body = b'{"name": "' + b"a" * most + b'"}'
    for path, methods in DOCUMENT["paths"].items():
        if "application/json" in methods.get("post", {}).get("requestBody", {}).get("content", {}):
            answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
            assert (answer.status_code, answer.json()["code"]) == (413, "upload_too_large"), path
            assert "413" in methods["post"]["responses"], path


def test_everything_but_the_health_checks_needs_a_key() -> None:
    for path, methods in DOCUMENT["paths"].items():
        for operation in methods.values():
            assert ("security" in operation) == (path not in UNGUARDED), path


def test_every_reference_leads_somewhere() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    for name in re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(DOCUMENT)):
        assert name in schemas
    assert "HTTPValidationError" not in schemas


def test_the_contracts_addresses_are_there() -> None:
    expected = {
        "/v1/models": {"get", "post"},
        "/v1/models/{model_id}": {"get", "delete"},
        "/v1/models/{model_id}/layers": {"get"},
        "/v1/datasets": {"get", "post"},
        "/v1/datasets/{dataset_id}": {"get", "delete"},
        "/v1/uploads": {"get", "post", "options"},
        "/v1/uploads/{upload_id}": {"get", "head", "patch", "post", "delete"},
        "/v1/plans": {"get", "post"},
        "/v1/plans/{plan_id}": {"get", "delete"},
        "/v1/jobs": {"get", "post"},
        "/v1/jobs/{job_id}": {"get", "delete"},
        "/v1/jobs/{job_id}/cancel": {"post"},
        "/v1/jobs/{job_id}/events": {"get"},
        "/v1/jobs/{job_id}/metrics": {"get"},
        "/v1/jobs/{job_id}/artifacts": {"get"},
        "/v1/jobs/{job_id}/report": {"get"},
        "/v1/artifacts/{artifact_id}/content": {"get"},
        "/v1/keys": {"get", "post"},
    }
    for path, methods in expected.items():
        assert methods <= set(DOCUMENT["paths"][path])


def test_the_docs_page_loads_only_our_own_files(stranger: TestClient) -> None:
    page = stranger.get("/docs")
    assert page.status_code == 200
    assert re.findall(r'(?:src|href)="(?![/#])', page.text) == []
    assert re.findall(r"<script(?![^>]* src=)", page.text) == []
