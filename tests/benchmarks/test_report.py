"""Tables say what the raw rows say."""

import statistics
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.raw import Key, RawFile, Row, about, read
from benchmarks.report.summary import MEANS, binomial_error, summarise
from benchmarks.report.tables import accuracies, aims, details, page

ABOUT = {
    "suite": "cpu",
    "started": "2026-01-01T00:00:00+00:00",
    "processor": "a processor",
    "threads": 1,
    "device": "cpu",
    "python": "3.11",
    "packages": {"torch": "2.13.0"},
    "peers": {"tensorly": "0.10.0"},
}


def row(accuracy: float, seed: int = 0, method: str = "basisconv", cut: float = 0.5, **values: float) -> Row:
    key = Key("cifar10_resnet20_a", method, cut, seed, bool(values.pop("tuned", False)))
    figures = dict.fromkeys(MEANS, 1 - cut) | {"accuracy": accuracy, "cpu_seconds": 2.0}
    return Row(key, "code", figures | values)


def test_seeds_become_their_mean_and_sample_standard_deviation():
    (line,) = summarise([row(0.90, 0), row(0.91, 1), row(0.95, 2)])
    assert (line.count, line.accuracy) == (3, pytest.approx(92.0))
    assert line.spread == pytest.approx(statistics.stdev([90.0, 91.0, 95.0]))


def test_a_single_seed_has_no_spread():
    (line,) = summarise([row(0.9)])
    assert line.spread is None
    assert "90.00 |" in accuracies([line], tuned=False, floor={})


def test_cuts_methods_and_tuning_are_never_averaged_together():
    rows = [row(0.9), row(0.8, cut=0.7), row(0.7, method="weights"), row(0.6, tuned=True)]
    assert len(summarise(rows)) == len(rows)


def test_accuracy_before_norms_were_measured_again_stands_in_brackets():
    lines = summarise([row(0.6, method="weights", accuracy_as_given=0.1)])
    assert "60.00 (10.00)" in accuracies(lines, tuned=False, floor={})


def test_the_floor_stands_under_the_cuts_it_is_known_for():
    lines = summarise([row(0.9), row(0.8, cut=0.7)])
    last = accuracies(lines, tuned=False, floor={0.5: 90.29}).splitlines()[-1]
    assert last == "| the prototype (floor) | 90.29 | – |"


def test_what_is_lost_stands_beside_what_was_aimed_for():
    lines = summarise([row(0.9173, method="uncompressed", cut=0.0), row(0.91), row(0.88, cut=0.7)])
    assert "0.73 at −50 % (at most 1.2)." in aims(lines, {0.5: 1.2})
    assert aims(lines, {0.6: 1.2}) == aims(lines[1:], {0.5: 1.2}) == ""


def test_a_method_without_a_row_at_a_cut_has_a_dash_there():
    lines = summarise([row(0.9), row(0.7, method="weights", cut=0.7)])
    table = accuracies(lines, tuned=False, floor={}).splitlines()
    assert table[2].endswith("| – | 70.00 |")
    assert table[3].endswith("| 90.00 | – |")


def test_every_line_of_the_details_shows_shares_beside_the_latency():
    lines = summarise([row(0.9, latency_ratio_1=0.8, macs_kept=0.49)])
    cells = [cell.strip() for cell in details(lines).splitlines()[2].strip("|").split("|")]
    assert cells[5] == "0.490"
    assert cells[8] == "0.800"


def test_the_page_of_a_raw_file_holds_all_its_parts(tmp_path: Path):
    raw = RawFile(tmp_path / "raw.json", ABOUT)
    raw.add(row(0.9173, method="uncompressed", cut=0.0))
    raw.add(row(0.917, method="uncompressed", cut=0.0, tuned=True))
    raw.add(row(0.9))
    raw.add(row(0.905, tuned=True))
    text = page(about(tmp_path / "raw.json"), summarise(read(tmp_path / "raw.json")))
    assert "Uncompressed: 91.73 %; after the same fine-tuning 91.70 %." in text
    assert text.count("### ") == 3
    assert "tensorly 0.10.0" in text


def test_rows_of_different_code_are_called_so():
    mixed = [row(0.9), replace(row(0.91, 1), code="other")]
    assert "by the same code" in page(ABOUT, summarise(mixed[:1]))
    assert "different versions of the code**: BasisConv on ResNet-20" in page(ABOUT, summarise(mixed))


def test_the_binomial_error_is_a_third_of_a_point_at_ninety_percent_of_ten_thousand():
    assert binomial_error(90.0, 10_000) == pytest.approx(0.3)
