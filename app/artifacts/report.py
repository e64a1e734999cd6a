"""A job as one HTML file that needs nothing else: what was asked, what came out, layer by layer."""

import base64
import hashlib
import json
from datetime import datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader

from app.datasets.tables import Dataset
from app.jobs.tables import Job
from app.models.tables import Model

TEMPLATE: Final = Path(__file__).parent / "report.html.j2"
_ROWS: Final = (  # key of result.original …, label, formatter
    ("accuracy", "Accuracy", "percent"),
    ("agreement", "Agreement with the original", "percent"),
    ("macs", "Multiply-accumulates", "count"),
    ("params", "Stored parameters", "count"),
    ("learnable_params", "Learnable parameters", "count"),
    ("bytes", "File size in bytes", "count"),
)

_OF_TRAINING: Final = {"original": "as it came", "truncated": "untrained", "compressed": "trained"}


def render_report(job: Job, model: Model, dataset: Dataset | None, now: datetime) -> str:
    """The HTML; everything that users named is escaped."""
    result = job.result or {}
    names = _OF_TRAINING if job.kind == "train" else {name: name for name in _OF_TRAINING}
    networks = [(label, result[name]) for name, label in names.items() if result.get(name)]
    html: str = _template().render(
        job=job,
        model=model,
        dataset=dataset,
        result=result,
        networks=networks,
        rows=_ROWS,
        latencies=sorted({key for _, figures in networks for key in figures.get("latency_ms") or {}}),
        options=json.dumps(job.options, indent=2, ensure_ascii=False),
        versions={"basisconv": _version()} | dict(result.get("versions") or {}),
        now=now,
    )
    return html


@cache
def content_policy() -> str:
    """The report holds names that users chose: nothing runs or is loaded, and only its own style applies."""
    style = TEMPLATE.read_text().partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'; sandbox"
    )


@cache
def _template() -> Any:
    environment = Environment(loader=FileSystemLoader(TEMPLATE.parent), autoescape=True)
    environment.filters.update(percent=_percent, count=_count, number=_number)
    return environment.get_template(TEMPLATE.name)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f} %"


def _count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _version() -> str:
    try:
        return version("basisconv")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "unknown"
