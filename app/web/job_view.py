"""A job as its page shows it: names, stages with times, its files, and the request that repeats it.

Everything here reads the contract's documents (plain JSON), so the page shows what REST tells.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from app.web import wording
from app.web.formatting import duration, lost_points, percent, points, ratio, share, size

Document = Mapping[str, Any]
ACTIVE: Final = frozenset({"queued", "running", "cancelling"})
_ORDER: Final = ("onnx", "pt2", "safetensors", "recipe", "report")  # of files: what is used first


@dataclass(frozen=True)
class StageView:
    label: str
    hint: str
    state: str  # done | current | stopped | todo
    time: str
    since: str | None  # when the current one began: the page counts on


def wish(job: Document) -> str:
    """What was asked, in a few words: ``60 % of the operations``."""
    target = {name: value for name, value in job["compression"]["target"].items() if value is not None}
    kind, value = next(iter(target.items()))
    if kind == "accuracy_drop":
        return f"at most {lost_points(value)} of accuracy lost"
    words = wording.TARGETS.get(kind, wording.plain(kind))
    if kind == "ranks":
        asked = words.capitalize()
    else:
        asked = f"{value:g} {words}" if kind == "expansion" else f"{share(value)} {words}"
    return f"From scratch, {asked[0].lower()}{asked[1:]}" if job.get("kind") == "train" else asked


def outcome(result: Document | None) -> str:
    """What came out, for lists: ``58 % of the operations, −0.12 points``."""
    if not result:
        return ""
    original, compressed = result["original"], result["compressed"]
    kept = ratio(compressed.get("macs"), original.get("macs"))
    words = [] if kept is None else [f"kept {percent(kept, 0)}"]
    if compressed.get("accuracy") is not None and original.get("accuracy") is not None:
        words.append(points(compressed["accuracy"] - original["accuracy"]))
    return ", ".join(words)


def summary(job: Document, model_name: str | None) -> dict[str, Any]:
    """What every list and the page's head show of a job."""
    progress = job.get("progress") or {}
    status = job["status"]
    ended = {"succeeded": 1.0}.get(status)
    stage = job.get("stage")
    return {
        **job,
        "title": job.get("name") or model_name or "Job",
        "wish": wish(job),
        "outcome": outcome(job.get("result")),
        "active": status in ACTIVE,
        "fraction": ended if ended is not None else float(progress.get("fraction") or 0.0),
        "stage_label": _stages_of(job)[stage][0] if stage in wording.STAGES else "",
        "networks": wording.NETWORKS.get(str(job.get("kind")), wording.NETWORKS["compress"]),
        "timing": _timing(job, progress),
    }


def _timing(job: Document, progress: Document) -> str:
    if job["status"] == "running" and progress.get("eta_seconds") is not None:
        return f"about {duration(progress['eta_seconds'])} left"
    if job.get("started_at") and job.get("finished_at"):
        seconds = (_moment(job["finished_at"]) - _moment(job["started_at"])).total_seconds()
        return f"took {duration(seconds)}"
    return ""


def _stages_of(job: Document) -> Mapping[str, tuple[str, str]]:
    return wording.STAGES_OF_TRAINING if job.get("kind") == "train" else wording.STAGES


def stage_labels(job: Document) -> dict[str, str]:
    return {name: label for name, (label, _) in _stages_of(job).items()}


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def stages(job: Document, events: Sequence[Document]) -> list[StageView]:
    """The six stages with their times, of the last attempt alone: an earlier one's work is gone."""
    begun = _begun(events)
    ended_at = job.get("finished_at")
    order = list(begun)
    views = []
    for name, (label, hint) in _stages_of(job).items():
        if name not in begun:
            passed = job["status"] == "succeeded"  # such as fine-tuning for 0 epochs
            views.append(StageView(label, hint, "todo", "not needed" if passed else "", None))
            continue
        following = order[order.index(name) + 1 :]
        until = begun[following[0]] if following else ended_at
        if until is not None:
            last = not following and job["status"] in {"failed", "cancelled"}
            spent = duration((_moment(until) - _moment(begun[name])).total_seconds())
            peak = ((job.get("result") or {}).get("peak_bytes") or {}).get(name)
            spent = spent if peak is None else f"{spent}, {size(peak)}"
            views.append(StageView(label, hint, "stopped" if last else "done", spent, None))
        else:
            views.append(StageView(label, hint, "current", "", begun[name]))
    return views


def _begun(events: Sequence[Document]) -> dict[str, str]:
    begun: dict[str, str] = {}
    for event in events:
        if event["type"] == "stage" and event.get("stage"):
            begun.setdefault(event["stage"], event["created_at"])
        elif event["type"] == "progress" and "fraction" not in event["data"]:
            begun = {}  # a new attempt
    return begun


def files(artifacts: Sequence[Document], result: Document | None) -> list[dict[str, Any]]:
    """The job's files, each with what its check found."""
    checks = {export["artifact"]: export for export in (result or {}).get("exports") or []}
    ordered = sorted(
        artifacts,
        key=lambda artifact: _ORDER.index(artifact["format"]) if artifact["format"] in _ORDER else 99,
    )
    return [{**artifact, "checked": _checked(checks.get(artifact["id"]))} for artifact in ordered]


def _checked(export: Document | None) -> str:
    if export is None:
        return ""
    words = ["Run on the validation images and compared"]
    if export.get("max_abs_diff") is not None:
        words.append(_difference(export["max_abs_diff"]))
    if export.get("accuracy") is not None:
        words.append(f"accuracy {percent(export['accuracy'], 2)}")
    return ", ".join(words)


def _difference(value: float) -> str:
    return "no difference at all" if value == 0 else f"largest difference {value:.1e}".replace("e-0", "e-")


def request_body(job: Document) -> dict[str, Any]:
    """The body of ``POST /v1/jobs`` that repeats this job."""
    body = {"kind": job["kind"], "model": job["model"]}
    if job.get("dataset"):
        body["dataset"] = job["dataset"]
    if job.get("name"):
        body["name"] = job["name"]
    body |= {name: _without_none(job[name]) for name in ("compression", "training", "limits", "exports")}
    return {name: value for name, value in body.items() if value}


def in_lines(document: Document) -> str:
    """JSON as one reads it: a line for each member, and for each item of a list of objects."""
    lines = (f"  {json.dumps(name)}: {_member(value)}" for name, value in document.items())
    return "{\n" + ",\n".join(lines) + "\n}"


def _member(value: Any) -> str:
    if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        items = ",\n".join(f"    {json.dumps(item, ensure_ascii=False)}" for item in value)
        return f"[\n{items}\n  ]"
    return json.dumps(value, ensure_ascii=False)


def request_text(public_url: str, job: Document) -> str:
    """The request that repeats this job, for a shell."""
    body = request_body(job)
    quoted = in_lines(body).replace("'", "'\\''")
    return (
        f"curl {public_url}/v1/jobs \\\n"
        '  -H "Authorization: Bearer $(cat var/api-key)" \\\n'
        "  -H 'Content-Type: application/json' \\\n"
        f"  -d '{quoted}'"
    )


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_none(item) for name, item in value.items() if item is not None}
    return value
