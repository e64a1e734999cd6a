"""Whatever a client sends, the answer is one that the OpenAPI document declares, and never a 5xx."""

from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from app.core.unit import Services
from tests.api.seeds import add_dataset, add_job, add_model, add_upload

schemathesis.serializer.alias("application/offset+octet-stream", "application/octet-stream")

EXAMPLES = 20  # an operation; 80 of each of the 26 operations were run once, without a finding
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
OPERATIONS = [  # those that read a body, and one of each kind that reads queries or headers
    ("/v1/models", "post"),
    ("/v1/datasets", "post"),
    ("/v1/uploads", "post"),
    ("/v1/uploads/{upload_id}", "patch"),
    ("/v1/plans", "post"),
    ("/v1/jobs", "post"),
    ("/v1/jobs", "get"),
    ("/v1/jobs/{job_id}/events", "get"),
    ("/v1/keys", "post"),
]


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_every_answer_is_a_declared_one(
    app: FastAPI, services: Services, owner_secret: str, path: str, method: str
) -> None:
    model, dataset = add_model(services), add_dataset(services)
    upload = add_upload(services)
    job = add_job(services, model, dataset_id=dataset)
    operation = schemathesis.openapi.from_asgi("/openapi.json", app)[path][method]

    @given(case=operation.as_strategy())
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def run(case: schemathesis.Case[Any]) -> None:
        if "upload_id" in case.path_parameters:
            case.path_parameters["upload_id"] = upload
        if "job_id" in case.path_parameters:
            case.path_parameters["job_id"] = job  # past the 404
        if isinstance(case.body, dict) and "model" in case.body:
            case.body |= {"model": model, "dataset": dataset}
        case.call_and_validate(headers={"Authorization": f"Bearer {owner_secret}"}, checks=CHECKS)

    run()
