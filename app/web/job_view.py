"""A job as its page shows it: names, stages with times, the table of before and after, and its files.

Everything here reads the contract's documents (plain JSON), so the page shows what REST tells.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from app.jobs.checks import most_rank
from app.web import figures, wording
from app.web.formatting import (
    count,
    decibels,
    duration,
    milliseconds,
    percent,
    points,
    ratio,
    size,
    times,
    whole,
)

Document = Mapping[str, Any]
ACTIVE: Final = frozenset({"queued", "running", "cancelling"})
_ORDER: Final = ("onnx", "pt2", "safetensors", "recipe", "report")  # of files: what is used first
_COSTS: Final = (("macs", count), ("params", count), ("bytes", size))
_COLUMNS: Final = ("original", "truncated", "compressed")


@dataclass(frozen=True)
class Cell:
    text: str
    note: str = ""


@dataclass(frozen=True)
class Row:
    label: str
    cells: list[Cell]


@dataclass(frozen=True)
class Fact:
    label: str
    value: str
    note: str


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
        return f"at most {_points(value)} of accuracy lost"
    words = wording.TARGETS.get(kind, wording.plain(kind))
    if kind == "ranks":
        asked = words.capitalize()
    else:
        asked = f"{value:g} {words}" if kind == "expansion" else f"{percent(value, 0)} {words}"
    return f"From scratch, {asked[0].lower()}{asked[1:]}" if job.get("kind") == "train" else asked


def _points(share: float) -> str:
    text = f"{100 * share:.3g}"
    return f"{text} point" if text == "1" else f"{text} points"


def outcome(result: Document | None) -> str:
    """What came out, for lists: ``58 % of the operations, −0.12 points``."""
    if not result:
        return ""
    original, compressed = result["original"], result["compressed"]
    share = ratio(compressed.get("macs"), original.get("macs"))
    words = [] if share is None else [f"kept {percent(share, 0)}"]
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


def result_view(job: Document, model_layers: Sequence[Document]) -> dict[str, Any]:
    """The job's result with everything formatted."""
    result: Document = job["result"]
    before = {layer["name"]: layer for layer in model_layers}
    layers = [_layer(layer, before.get(layer["name"], {})) for layer in result.get("layers") or []]
    basis = (job.get("compression") or {}).get("basis")
    names = wording.NETWORKS.get(str(job.get("kind")), wording.NETWORKS["compress"])
    return {
        "facts": facts(result),
        "rows": rows(result),
        "search": search(result),
        "layers": layers,
        "layer_chart": figures.layer_chart(layers, basis),
        "kept_label": figures.kept_label(basis),
        "latency": figures.latency_chart(result, names),
        "latency_repeats": result.get("latency_repeats") or {},
        "replaced": sum(1 for layer in layers if layer["replaced"]),
        "device": {"cpu": "the CPU", "cuda": "the GPU"}.get(str(result.get("device")), result.get("device")),
        "threads": result.get("threads"),
    }


def _layer(layer: Document, before: Document) -> dict[str, Any]:
    """A layer's outcome beside what it was, with the full rank of the form that it got."""
    most = most_rank(before, str(layer.get("form"))) if before and layer.get("replaced") else None
    return {
        **layer,
        "max_rank": most,
        "macs_before": before.get("macs"),
        "kept": ratio(layer.get("macs"), before.get("macs")),
        "fit": None if layer.get("error") is None else max(0.0, 1 - layer["error"]),
    }


def facts(result: Document) -> list[Fact]:
    """The few numbers that a reader came for."""
    original, compressed = result["original"], result["compressed"]
    found = []
    if compressed.get("accuracy") is not None:
        lost = compressed["accuracy"] - (original.get("accuracy") or 0)
        found.append(Fact("Accuracy", percent(compressed["accuracy"]), points(lost)))
    elif compressed.get("agreement") is not None:
        found.append(Fact("Same answers", percent(compressed["agreement"]), "as the original"))
    elif (expected := _expected(result)) is not None:
        found.append(Fact("Same answers, expected", expected, "judged on made-up images"))
    for label, key, show in (
        ("Operations", "macs", count),
        ("Stored parameters", "params", count),
        ("File", "bytes", size),
    ):
        share = ratio(compressed.get(key), original.get(key))
        if share is not None:
            found.append(Fact(label, percent(share, 0), f"{show(original[key])} → {show(compressed[key])}"))
    speed = ratio(_latency(original, "batch_1"), _latency(compressed, "batch_1"))
    if speed is not None:
        note = "no faster on this machine" if speed < 1.02 else "as fast, one image at a time"
        found.append(Fact("Speed", times(speed), note))
    return found


def _expected(result: Document) -> str | None:
    """Of a job without images: how alike the networks answer on those made from the network."""
    made = result.get("synthetic") or {}
    if made.get("expected_agreement") is not None:
        return percent(made["expected_agreement"], 0)
    figures = made.get("expected_agreement_db") or {}
    return decibels(min(figures.values())) if figures else None


def rows(result: Document, *, exact: bool = False) -> list[Row]:
    """Original, truncated and compressed side by side; measures that nobody took are left out.

    exact: every digit that was measured, for a reader who compares reports.
    """
    columns = [result.get(name) or {} for name in _COLUMNS]
    share = _finely if exact else percent
    number, bytes_ = (whole, whole) if exact else (count, size)
    found = [
        _row("Accuracy", [c.get("accuracy") for c in columns], share, _point_note),
        _row("Same answers as the original", [c.get("agreement") for c in columns], share, None),
        _row("Distance from the original", [_decibels(c) for c in columns], decibels, None),
        _row("Operations (MACs)", [c.get("macs") for c in columns], number, _share_note),
        _row("Parameters stored", [c.get("params") for c in columns], number, _share_note),
        _row("Parameters that learn", [c.get("learnable_params") for c in columns], number, _share_note),
        _row("File in bytes" if exact else "File", [c.get("bytes") for c in columns], bytes_, _share_note),
    ]
    found += [_latency_row(columns, key) for key in _timed(columns)]
    return [row for row in found if row is not None]


FINAL: Final = ("Accuracy", "Same answers", "Operations", "Parameters", "File", "Time, one image")


def final_cells(result: Document) -> list[Cell]:
    """The finished network alone, in the order of `FINAL`; a dash for what nobody measured."""
    first, last = result["original"], result["compressed"]
    pairs = [
        (last.get("accuracy"), first.get("accuracy"), percent, _point_note),
        (last.get("agreement"), None, percent, None),
        *((last.get(name), first.get(name), show, _share_note) for name, show in _COSTS),
        (_latency(last, "batch_1"), _latency(first, "batch_1"), milliseconds, _speed_note),
    ]
    return [
        Cell(show(value), note(value, before) if note and before and value is not None else "")
        for value, before, show, note in pairs
    ]


def _finely(value: float | None) -> str:
    return percent(value, 2)


def _timed(columns: Sequence[Document]) -> list[str]:
    """The batch sizes at which anything was timed."""
    return list(dict.fromkeys(key for column in columns for key in column.get("latency_ms") or {}))


def _latency_row(columns: Sequence[Document], key: str) -> Row | None:
    words = figures.batch_words(key)
    values = [_latency(column, key) for column in columns]
    return _row(f"Time, {words[0].lower()}{words[1:]}", values, milliseconds, _speed_note)


def search(result: Document) -> dict[str, Any] | None:
    """The networks tried on the way to a loss of accuracy, the smallest first."""
    found = result.get("search")
    if not found:
        return None
    macs = result["original"]["macs"]
    tries = [
        {"kept": percent(tried["macs"] / macs, 1), "lost": points(-tried["loss"]), "passed": tried["passed"]}
        for tried in sorted(found["tries"], key=lambda tried: tried["macs"])
    ]
    return {**found, "tries": tries, "allowed": _points(found["allowed"])}


def _row(label: str, values: list[float | None], show: Any, note: Any) -> Row | None:
    if all(value is None for value in values):
        return None
    first = values[0]
    cells = [
        Cell(show(value), note(value, first) if note and index and value is not None and first else "")
        for index, value in enumerate(values)
    ]
    return Row(label, cells)


def _point_note(value: float, first: float) -> str:
    return points(value - first)


def _share_note(value: float, first: float) -> str:
    return percent(value / first, 1)


def _speed_note(value: float, first: float) -> str:
    return f"{times(first / value)} as fast" if value else ""


def _latency(column: Document, key: str) -> float | None:
    value: float | None = (column.get("latency_ms") or {}).get(key)
    return value


def _decibels(column: Document) -> float | None:
    """One number for a network without classes: the worst output."""
    value = column.get("agreement_db")
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        known = [item for item in value if item is not None]
        return min(known) if known else None
    return value if isinstance(value, int | float) else None


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
