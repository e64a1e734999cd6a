"""The example alert rules: expressions that parse, over figures that exist, each explained in the manual."""

import re
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client import CollectorRegistry

from app.core.metrics import Metrics

ROOT = Path(__file__).resolve().parents[2]
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((ROOT / "docker" / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
MANUAL = (ROOT / "docs" / "operations.md").read_text()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_a_rule_parses_and_is_explained(rule: dict[str, Any]) -> None:
    promql_parser.parse(rule["expr"])
    assert rule["annotations"]["summary"]
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert f"**{rule['alert']}**" in MANUAL, "docs/operations.md says what to do"


def test_every_figure_that_a_rule_or_the_document_names_is_told_by_some_process() -> None:
    named = {name for rule in RULES for name in re.findall(r"\bbasisconv_\w+", rule["expr"])}
    named |= set(re.findall(r"`(basisconv_\w+)", MANUAL))
    assert named - _told() == set()


def test_the_document_explains_no_rule_that_does_not_exist() -> None:
    table = MANUAL.partition("## Alerts")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| \*\*(\w+)\*\*", table, re.MULTILINE)) == {rule["alert"] for rule in RULES}


def _told() -> set[str]:
    """All samples' names, as far as they can be known without servers."""
    from app.core.settings import Settings  # noqa: F401 - the collectors below need none
    from worker.telemetry import Telemetry

    names = {f"basisconv_{name}" for name in LOOKED_UP}
    for registry in (Metrics().registry, Telemetry().registry):
        names |= _samples(registry)
    return names


# Looked up at the scrape, so no registry knows them; tests/api/test_metrics.py sees each.
LOOKED_UP = {
    "up",
    "jobs",
    "queue_length",
    "queue_oldest_seconds",
    "database_bytes",
    "disk_bytes",
    "disk_free_bytes",
    "worker_seen_seconds_ago",
    "gpu_memory_bytes",
    "gpu_memory_used_bytes",
}


def _samples(registry: CollectorRegistry) -> set[str]:
    found = set()
    for family in registry.collect():
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
        found |= {family.name, *(family.name + suffix for suffix in suffixes.get(family.type, ()))}
    return found
