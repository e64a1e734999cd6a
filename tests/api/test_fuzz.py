"""Whatever a client sends, the answer is one that the OpenAPI document declares, and never a 5xx.

Every operation of the document is tried, with the ids of things that exist and with invented ones, with files
that pass the first look and with noise. `make test-fuzz` tries many more and keeps a summary.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    missing_required_header,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from app.core.unit import Services
from app.openapi import document
from tests.api.seeds import npz_bytes, onnx_bytes
from tests.api.world import BODIES, TUS, World, make_world

schemathesis.serializer.alias("application/offset+octet-stream", "application/octet-stream")
schemathesis.serializer.alias("application/jsonl", "text/plain")

EXAMPLES = int(os.environ.get("BASISCONV_FUZZ_EXAMPLES", "12"))  # of each operation
SUMMARY = os.environ.get("BASISCONV_FUZZ_SUMMARY")  # a file to write


def broken_requests_are_refused(
    context: schemathesis.CheckContext, answer: schemathesis.Response, case: schemathesis.Case[Any]
) -> bool | None:
    """With any 4xx: the library knows the usual ones, and tus has its own."""
    return None if answer.status_code >= 400 else negative_data_rejection(context, answer, case)


CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    missing_required_header,
    broken_requests_are_refused,
    unsupported_method,
]
DOCUMENT = document()
OPERATIONS = [
    pytest.param(path, method, id=f"{method.upper()} {path}")
    for path, methods in sorted(DOCUMENT["paths"].items())
    for method in methods
]
FILES = {"/v1/models": onnx_bytes, "/v1/datasets": npz_bytes}


@dataclass
class Tally:
    """How often each operation was tried, and what it answered."""

    answers: dict[str, Counter[int]] = field(default_factory=dict)

    def count(self, operation: str, status: int) -> None:
        self.answers.setdefault(operation, Counter())[status] += 1

    def text(self) -> str:
        tried = sum(sum(counts.values()) for counts in self.answers.values())
        rows = [
            f"| `{operation}` | {sum(counts.values()):,} | "
            + " · ".join(f"{status}: {number:,}" for status, number in sorted(counts.items()))
            + " |"
            for operation, counts in sorted(self.answers.items())
        ]
        about = (
            f"`make test-fuzz` on {datetime.now(UTC):%Y-%m-%d}, Schemathesis {schemathesis.__version__}: "
            f"{tried:,} requests to {len(self.answers)} operations, up to {EXAMPLES:,} examples of each. "
            "No answer was a 5xx, and each had a declared status, media type, headers and schema."
        )
        head = "| operation | requests | answers |\n| --- | ---: | --- |"
        return "\n".join(["# Requests made from the OpenAPI document", "", about, "", head, *rows, ""])


@pytest.fixture(scope="module")
def tally(request: pytest.FixtureRequest) -> Iterator[Tally]:
    counted = Tally()
    yield counted
    if SUMMARY is not None and request.session.testsfailed == 0:
        Path(SUMMARY).write_text(counted.text())


@pytest.fixture
def own(app: FastAPI, services: Services, new_key: Callable[..., str]) -> World:
    return make_world(app, services, new_key, "fuzz")


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_every_answer_is_a_declared_one(
    app: FastAPI, own: World, tally: Tally, path: str, method: str
) -> None:
    operation = schemathesis.openapi.from_asgi("/openapi.json", app)[path][method]

    valid = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
    broken = operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)

    @given(case=valid | broken, chosen=st.data())
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=SUMMARY is None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def run(case: schemathesis.Case[Any], chosen: st.DataObject) -> None:
        _make_likely(case, own, chosen)
        headers = {"Authorization": f"Bearer {own.secret}"}
        if path.endswith("/events") and chosen.draw(st.booleans()):
            headers["Accept"] = "text/event-stream"  # of an ended job: the stream ends
        answer = case.call(headers=headers)
        tally.count(f"{method.upper()} {path}", answer.status_code)
        case.validate_response(answer, checks=CHECKS)

    run()


def _make_likely(case: schemathesis.Case[Any], own: World, chosen: st.DataObject) -> None:
    """Mostly ids of things that are there and likely bodies: noise alone ends at the first 404."""
    for name in case.path_parameters:
        if chosen.draw(st.integers(0, 3)):
            case.path_parameters[name] = own.id_of(name)
    if case.meta is None or case.meta.generation.mode is GenerationMode.NEGATIVE:
        return  # mending what is broken on purpose would only hide it
    if isinstance(case.body, dict) and case.path in BODIES and chosen.draw(st.booleans()):
        likely = BODIES[case.path](own)
        case.body |= {name: likely[name] for name in ("model", "dataset", "upload") if name in likely}
    if (
        isinstance(case.body, dict)
        and "file" in case.body
        and case.path in FILES
        and chosen.draw(st.booleans())
    ):
        case.body["file"] = FILES[case.path]()
    if case.path.startswith("/v1/uploads") and case.headers and chosen.draw(st.booleans()):
        likely_headers = TUS | {"Upload-Length": "4096"}
        case.headers.update({name: likely_headers[name] for name in case.headers if name in likely_headers})
