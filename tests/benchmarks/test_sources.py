"""A row is measured again when something that decides it has changed, and only then."""

import shutil
from pathlib import Path

import pytest

from benchmarks import sources
from benchmarks.methods import METHODS
from benchmarks.networks import MLPERF

FOLDERS = ("basisconv", "benchmarks", "tests/support")


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The code in a place where it may be changed."""
    for folder in FOLDERS:
        shutil.copytree(sources.ROOT / folder, tmp_path / folder)
    monkeypatch.setattr(sources, "ROOT", tmp_path)
    return tmp_path


def changed_by(copied: Path, name: str) -> set[tuple[str, bool]]:
    """The kinds of rows that another letter in this file asks to be measured again."""
    kinds = [(method, tuned) for method in METHODS for tuned in (False, True)]
    before = {kind: sources.row_code("net", *kind, {}) for kind in kinds}
    with (copied / name).open("a") as file:
        file.write("#")
    return {kind for kind in kinds if sources.row_code("net", *kind, {}) != before[kind]}


PEERS = {"tucker", "spatial_svd", "pruning"}
OURS = {"weights", "basisconv", "basisconv_basis", "basisconv_datafree"}
TUNED = {(method, True) for method in METHODS}


@pytest.mark.parametrize("name", ["basisconv/options.py", "basisconv/front_to_back.py"])
def test_the_method_decides_our_rows_and_all_that_is_tuned_but_no_peers_own(copied: Path, name: str):
    assert changed_by(copied, name) == TUNED | {(method, False) for method in OURS}


def test_fine_tuning_decides_what_is_tuned(copied: Path):
    assert changed_by(copied, "basisconv/finetune/loop.py") == TUNED


@pytest.mark.parametrize("name", ["benchmarks/peers/tucker.py", "benchmarks/peers/requirements.txt"])
def test_what_peers_run_decides_the_peers(copied: Path, name: str):
    assert changed_by(copied, name) == {(method, tuned) for method in PEERS for tuned in (False, True)}


@pytest.mark.parametrize("name", ["benchmarks/measure.py", "tests/support/networks.py", "basisconv/cost.py"])
def test_what_judges_decides_everything(copied: Path, name: str):
    assert changed_by(copied, name) == {(method, tuned) for method in METHODS for tuned in (False, True)}


@pytest.mark.parametrize("name", ["basisconv/formats/export.py", "benchmarks/suites.py"])
def test_what_no_row_depends_on_decides_nothing(copied: Path, name: str):
    assert changed_by(copied, name) == set()


def test_how_a_row_was_measured_is_part_of_its_code():
    few, many = (sources.row_code("net", "tucker", False, {"calibration": n}) for n in (512, 1024))
    assert few != many


def test_a_network_of_its_own_code_depends_on_that(copied: Path):
    before = {name: sources.row_code(name, "weights", False, {}) for name in ("net", MLPERF)}
    with (copied / "benchmarks/networks/mlperf.py").open("a") as file:
        file.write("#")
    changed = {name for name in before if sources.row_code(name, "weights", False, {}) != before[name]}
    assert changed == {MLPERF}


def test_every_named_file_is_there():
    named = (*sources.JUDGING, *sources.PEERS, *sources.TUNING, *sources.LIBRARY, *sources.NETWORKS[MLPERF])
    assert all((sources.ROOT / name).exists() for name in named)
