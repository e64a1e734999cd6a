"""Rows as months of use leave them, written in bulk by the database itself."""

from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Engine, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from app.core.ids import new_id
from app.jobs.states import JobStatus
from tests.api import seeds

LAYERS: Final = 20  # as ResNet-20
EVENTS: Final = 12  # of each old job


def layers() -> list[dict[str, Any]]:
    return [seeds.LAYERS[0] | {"name": f"layer{number}.conv"} for number in range(LAYERS)]


def result() -> dict[str, Any]:
    return {
        "original": seeds.FIGURES,
        "truncated": seeds.FIGURES | {"bytes": None} | seeds.UNTIMED,
        "compressed": seeds.FIGURES,
        "target_met": True,
        "device": "cpu",
        "seconds": {"calibrate": 1.5, "decompose": 20.0, "evaluate": 3.0, "export": 1.0, "verify": 4.0},
        "layers": [
            {"name": f"layer{number}.conv", "form": "basis", "rank": 8, "replaced": True, "error": 0.03}
            for number in range(LAYERS)
        ],
        "exports": [],
    }


def options() -> dict[str, Any]:
    return {"compression": {"target": {"macs": 0.5}, "basis": "weights", "forms": "basis"}}


def seed_model(engine: Engine, owner_id: str) -> str:
    """A ready network, so that jobs can be created on it."""
    now = datetime.now(UTC)
    model_id = new_id("model", now)
    values = {
        "id": model_id,
        "owner": owner_id,
        "now": now,
        "sha": "a" * 64,
        "input": seeds.INPUT,
        "summary": {
            "macs": 40_551_040,
            "params": 269_722,
            "layers": LAYERS,
            "compressible": LAYERS,
            "outputs": [10],
        },
        "layers": layers(),
    }
    statement = text(
        "INSERT INTO models (id, owner_id, name, format, status, bytes, sha256, canonical_sha256,"
        " requested_input, input, summary, layers, details, created_at, attempt)"
        " VALUES (:id, :owner, 'resnet', 'onnx', 'ready', 1096000, :sha, :sha,"
        " '{}', :input, :summary, :layers, '{}', :now, 1)"
    ).bindparams(*_json("input", "summary", "layers"))
    with engine.begin() as connection:
        connection.execute(statement, values)
    return model_id


def seed_jobs(
    engine: Engine, owner_id: str, model_id: str, count: int, status: JobStatus, events: int = EVENTS
) -> None:
    """So many jobs of this owner, a minute apart, ended ones with a result and events."""
    ended = status is JobStatus.SUCCEEDED
    jobs = text(
        "INSERT INTO jobs (id, owner_id, kind, model_id, options, annotations, status, progress, warnings,"
        " result, created_at, started_at, finished_at, attempt, rung_at)"
        # 00…: before every id of today, as an id begins with its time
        " SELECT 'job_' || :prefix || lpad(n::text, 24, '0'), :owner, 'compress', :model, :options, '{}',"
        " :status, '{}', '[]', CASE WHEN :ended THEN CAST(:result AS jsonb) END,"
        " now() - n * interval '1 minute', now(),"
        " CASE WHEN :ended THEN now() - n * interval '1 minute' END, 1, now()"
        " FROM generate_series(1, :count) AS n"
    ).bindparams(*_json("options", "result"))
    told = text(
        "INSERT INTO job_events (id, job_id, seq, type, stage, message, data, created_at)"
        " SELECT 'event_' || :prefix || lpad((n * 100 + s)::text, 24, '0'), 'job_' || :prefix ||"
        " lpad(n::text, 24, '0'), s, CASE WHEN :ended AND s = :events THEN 'done' ELSE 'progress' END,"
        " 'finetune', 'Waiting for a worker', '{\"fraction\": 0.5}', now()"
        " FROM generate_series(1, :count) AS n, generate_series(1, :events) AS s"
    )
    values = {
        "prefix": "00" if ended else "01",
        "owner": owner_id,
        "model": model_id,
        "options": options(),
        "status": status.value,
        "ended": ended,
        "result": result(),
        "count": count,
    }
    with engine.begin() as connection:
        connection.execute(jobs, values)
        connection.execute(told, values | {"events": events if ended else 1})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE jobs, job_events"))


def _json(*names: str) -> list[Any]:
    return [bindparam(name, type_=JSONB) for name in names]
