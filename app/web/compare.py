"""Runs beside each other: each a point of cost against quality, and a row with all its figures."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.web import figures, job_view, result_view, wording

Document = Mapping[str, Any]


def points(jobs: Sequence[Document], names: Mapping[str, str]) -> list[dict[str, Any]]:
    """What static/js/pareto.js draws: every run's network, and what each was made from once per data set."""
    found: dict[tuple[str, str | None], dict[str, Any]] = {}
    for job in jobs:
        if job["kind"] == "compress":  # of a trained network the original's weights were not used
            found.setdefault((job["model"], job["dataset"]), _original(job, names))
    several = len({model for model, _ in found}) > 1
    return [*found.values(), *(_run(job, names, several) for job in jobs)]


def _original(job: Document, names: Mapping[str, str]) -> dict[str, Any]:
    name = names.get(job["model"], "the network")
    key = f"original-{job['model']}-{job['dataset']}"
    about = {
        "id": key,
        "label": f"Original: {name}",
        "href": f"/models/{job['model']}",
        "note": "",
        "original": True,
    }
    return about | _figures(job["result"]["original"])


def _run(job: Document, names: Mapping[str, str], several: bool) -> dict[str, Any]:
    wish, name = job_view.wish(job), names.get(job["model"], "a network")
    note = f"{wish} of {name}" if several else wish
    if note == label(job):
        note = ""
    about = {
        "id": job["id"],
        "label": label(job),
        "href": f"/jobs/{job['id']}",
        "note": note,
        "original": False,
    }
    return about | _figures(job["result"]["compressed"])


def label(job: Document) -> str:
    return str(job.get("name") or job_view.wish(job))


def _figures(network: Document) -> dict[str, float | None]:
    time, _ = figures.latency(network, "batch_1")
    measured = {name: network.get(name) for name in ("macs", "params", "bytes", "accuracy", "agreement")}
    return measured | {"latency": time or None}


def rows(jobs: Sequence[Document]) -> list[dict[str, Any]]:
    """One line a run, with every figure beside the share of the original's."""
    return [
        {
            "id": job["id"],
            "label": label(job),
            "wish": job_view.wish(job),
            "epochs": job["training"]["epochs"],
            "warnings": [wording.warning(warning["code"]) for warning in job["warnings"]],
            "cells": result_view.final_cells(job["result"]),
        }
        for job in jobs
    ]
