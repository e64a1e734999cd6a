"""Batches as a client sends them, and their jobs ended as a worker would."""

from collections.abc import Iterable
from typing import Any

from fastapi.testclient import TestClient

from app.core.errors import Internal
from app.core.unit import Services
from app.jobs import leases
from app.jobs.leases import Lease
from tests.api.seeds import RESULT


def body(model: str, **changed: Any) -> dict[str, Any]:
    return {"kind": "compress", "model": model, "compression": {"target": {"macs": 0.6}}} | changed


def post(client: TestClient, jobs: Iterable[Any], **more: Any) -> dict[str, Any]:
    answer = client.post("/v1/batches", json={"jobs": list(jobs)} | more)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def end(services: Services, job_id: str, how: str = "succeeded") -> None:
    """As a worker would: claim, then end."""
    now, lease = services.clock.now(), Lease(f"worker of {job_id}", 60)
    with services.sessions.begin() as session:
        assert leases.claim_job(session, job_id, lease, now) is not None
    with services.sessions.begin() as session:
        if how == "succeeded":
            assert leases.succeed_job(session, job_id, lease.owner, RESULT, now)
        else:
            assert leases.fail_job(session, job_id, lease.owner, Internal("no").document(), now)


def jobs_of(client: TestClient, batch: str) -> list[dict[str, Any]]:
    listed = client.get("/v1/jobs", params={"batch": batch, "order": "asc", "limit": 100})
    found: list[dict[str, Any]] = listed.json()["data"]
    return found
