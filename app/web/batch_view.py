"""Batches as their pages show them: how far they are in words, and their results as points."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from app.web import job_view
from app.web.formatting import whole

Document = Mapping[str, Any]
_ENDED: Final = ("succeeded", "failed", "cancelled")


def summary(batch: Document) -> dict[str, Any]:
    """What the list and the page's head show of a batch."""
    counts = batch["counts"]
    valid = counts["total"] - counts["invalid"]
    ended = sum(counts[name] for name in _ENDED)
    over = batch["status"] in {"completed", "cancelled"}
    return {
        **batch,
        "title": batch["name"] or f"{jobs(valid)}",
        "active": not over,
        "valid": valid,
        "ended": ended,
        "fraction": 1.0 if over or not valid else ended / valid,
        "words": _words(counts, valid, ended, over=over),
    }


def _words(counts: Document, valid: int, ended: int, *, over: bool) -> str:
    words = [jobs(valid) if over else f"{whole(ended)} of {jobs(valid)} ended"]
    for name, said in (("running", "running"), ("failed", "failed"), ("cancelled", "cancelled")):
        if counts[name]:
            words.append(f"{whole(counts[name])} {said}")
    if counts["invalid"]:
        words.append(f"{whole(counts['invalid'])} not valid")
    return ", ".join(words)


def jobs(number: int) -> str:
    return f"{whole(number)} job{'' if number == 1 else 's'}"


def points(rows: Iterable[Any], names: Mapping[str, str]) -> list[dict[str, Any]]:
    """What static/js/pareto.js draws: every finished job, and each network as it came."""
    found: list[dict[str, Any]] = []
    originals: dict[str, dict[str, Any]] = {}
    for row in rows:
        model = names.get(row.model_id, "network")
        asked = job_view.wish({"kind": row.kind, "compression": {"target": row.target}})
        point = {"id": row.id, "label": row.name or asked, "href": f"/jobs/{row.id}", "note": model}
        found.append(point | _figures(row.compressed, row.synthetic))
        originals.setdefault(
            row.model_id,
            {"id": row.model_id, "label": model, "href": f"/models/{row.model_id}", "note": "as it came"}
            | {"original": True}
            | _figures(row.original, None),
        )
    return [*originals.values(), *found]


def _figures(network: Document | None, synthetic: Document | None) -> dict[str, Any]:
    """Costs and qualities; without images, the agreement to expect stands for the measured one."""
    network = network or {}
    agreement = network.get("agreement")
    if agreement is None and synthetic is not None:
        agreement = synthetic.get("expected_agreement")
    return {
        "macs": network.get("macs"),
        "params": network.get("params"),
        "bytes": network.get("bytes"),
        "latency": (network.get("latency_ms") or {}).get("batch_1"),
        "accuracy": network.get("accuracy"),
        "agreement": agreement,
    }
