"""The example alert rules: expressions that parse, each explained in the manual.

That every figure they name is told by the real processes is seen where those run: tests/run/test_observed.py.
"""

import re
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((ROOT / "docker" / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
NAMED = re.compile(r"\bbasisconv_\w+")
MANUAL = (ROOT / "docs" / "operations.md").read_text()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_a_rule_parses_and_is_explained(rule: dict[str, Any]) -> None:
    promql_parser.parse(rule["expr"])
    assert rule["annotations"]["summary"]
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert f"**{rule['alert']}**" in MANUAL, "docs/operations.md says what to do"


def test_the_document_explains_no_rule_that_does_not_exist() -> None:
    table = MANUAL.partition("## Alerts")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| \*\*(\w+)\*\*", table, re.MULTILINE)) == {rule["alert"] for rule in RULES}
