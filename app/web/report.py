"""A job as one HTML file that needs nothing else: what was asked, what came out, layer by layer.

The same contents as the job's page, from the same views; everything that users named is escaped.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Final

from app.web import figures, job_view, result_view
from app.web.assets import STATIC
from app.web.rendering import environment, service_version

Document = Mapping[str, Any]
Series = Mapping[str, Sequence[tuple[int, float]]]  # of a metric: step and value
MOST_RECIPE_BYTES: Final = 200_000  # a longer recipe is named by its sum alone
_STYLES: Final = ("tokens", "figures", "report")
_CURVES: Final = (  # metric, label, whether its values are shares, the metric of the original
    ("train_loss", "Training loss", False, None),
    ("accuracy", "Accuracy", True, "original_accuracy"),
    ("agreement", "Same answers as the original", True, None),
)


@dataclass(frozen=True)
class Contents:
    """All that a report tells, as REST shows it."""

    job: Document
    model: Document
    layers: Sequence[Document]
    dataset: Document | None
    files: Sequence[Document]
    metrics: Series
    recipe: str | None


def render_report(contents: Contents, now: datetime) -> str:
    job, model = contents.job, contents.model
    result = job["result"]
    html: str = (
        environment()
        .get_template("report.html")
        .render(
            policy=inner_policy(),
            style=style(),
            job=job_view.summary(job, model["name"]),
            model=model,
            dataset=contents.dataset,
            result=None if result is None else result_view.show(job, contents.layers),
            exact=[] if result is None else result_view.rows(result, exact=True),
            curves=_curves(contents.metrics),
            files=job_view.files(contents.files, result),
            made=_made(contents),
            spent=_spent(job),
            request=job_view.in_lines(job_view.request_body(job)),
            recipe=_recipe(contents.recipe),
            now=now,
        )
    )
    return html


def content_policy() -> str:
    """The report holds names that users chose: nothing runs or is loaded, and only its own style applies."""
    return f"{inner_policy()}; frame-ancestors 'none'; sandbox"


@cache
def inner_policy() -> str:
    """What the file says of itself, wherever it is opened; a page may set no more than this from within."""
    digest = base64.b64encode(hashlib.sha256(style().encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


@cache
def style() -> str:
    return "".join((STATIC / "css" / f"{name}.css").read_text() for name in _STYLES)


def _curves(metrics: Series) -> list[figures.Curve]:
    drawn = []
    for name, label, shares, original in _CURVES:
        known = metrics.get(original or "") or []
        reference = known[-1][1] if known else None
        drawn.append(figures.curve(label, metrics.get(name) or [], shares=shares, reference=reference))
    return [curve for curve in drawn if curve is not None]


def _made(contents: Contents) -> list[tuple[str, str]]:
    """What one needs to make it again: files by their sums, seed, versions."""
    job, model, dataset = contents.job, contents.model, contents.dataset
    found = [("Network", f"{model['name']} ({model['format']}), {model['id']}"), ("", model["sha256"])]
    if dataset is None:
        found.append(("Data set", "none"))
    else:
        found += [("Data set", f"{dataset['name']}, {dataset['id']}"), ("", dataset["sha256"])]
        if dataset.get("examples"):
            counts = dataset["examples"]
            found.append(("Images", f"{counts['train']} to learn from, {counts['test']} to judge by"))
    found = [(label or "its SHA-256", value) for label, value in found]
    found += [("Seed", str(job["training"]["seed"])), ("Attempt", str(job["attempt"]))]
    versions = (job["result"] or {}).get("versions") or {"basisconv": service_version()}
    return [*found, ("Versions", ", ".join(f"{name} {number}" for name, number in sorted(versions.items())))]


def _recipe(text: str | None) -> str | None:
    """recipe.json with a line for each layer; as it is, should it be no JSON object."""
    try:
        document = json.loads(text or "")
    except ValueError:
        return text
    return job_view.in_lines(document) if isinstance(document, dict) else text


def _spent(job: Document) -> list[dict[str, Any]]:
    """Each stage that was run, under the name that the page gives it."""
    result = job["result"] or {}
    seconds = result.get("seconds") or {}
    return [
        {
            "label": label,
            "seconds": seconds[name],
            "bytes": (result.get("peak_bytes") or {}).get(name),
            "device_bytes": (result.get("peak_device_bytes") or {}).get(name),
        }
        for name, label in job_view.stage_labels(job).items()
        if name in seconds
    ]
