"""Charts drawn by the server: shares of a frame, with the same numbers in words."""

from typing import Any

from app.web import figures
from app.web.rendering import environment

NAMES = {"original": "Original", "compressed": "Compressed"}


def _layer(name: str, rank: int | None, error: float | None = None) -> dict[str, Any]:
    return {"name": name, "replaced": rank is not None, "rank": rank, "max_rank": 16, "error": error}


def test_a_layers_bar_is_its_share_of_the_full_rank_and_its_mark_what_is_kept() -> None:
    chart = figures.layer_chart([_layer("a", 4, 0.03), _layer("b", None)], "activations")
    assert chart is not None
    first, second = chart.columns
    assert (first.rank, first.kept, first.replaced) == (25.0, 97.0, True)
    assert first.about == "a: rank 4 of 16, 97.0\xa0% response kept"
    assert (second.replaced, second.kept, second.about) == (False, None, "b: left whole")
    assert chart.kept_label == "Response kept"


def test_without_a_fit_or_a_replaced_layer_nothing_is_claimed() -> None:
    random = figures.layer_chart([_layer("a", 4)], "random")
    assert random is not None
    assert (random.kept_label, random.columns[0].kept) == ("", None)
    assert figures.layer_chart([_layer("a", None)], "weights") is None


def test_the_slower_network_with_its_spread_fills_the_frame() -> None:
    result = {
        "original": {"latency_ms": {"batch_1": 1.0, "batch_32": None}, "latency_spread_ms": {"batch_1": 0.1}},
        "compressed": {
            "latency_ms": {"batch_1": 1.8, "batch_32": None},
            "latency_spread_ms": {"batch_1": 0.2},
        },
    }
    [group] = figures.latency_chart(result, NAMES)
    before, after = group.bars
    assert group.label == "One image at a time"
    assert (after.width, after.low, after.high) == (90.0, 80.0, 100.0)
    assert before.width == 50.0
    assert after.text == "1.80 ± 0.20\xa0ms"
    assert after.note == "0.56× as fast"


def test_times_of_a_version_that_kept_no_spread_are_shown_without_one() -> None:
    result = {name: {"latency_ms": {"batch_3": 2.0}} for name in ("original", "compressed")}
    [group] = figures.latency_chart(result, NAMES)
    assert (group.label, group.bars[0].text) == ("3 images at once", "2.00\xa0ms")
    assert "whisker" not in environment().get_template("figures.html").module.bars([group])  # type: ignore[attr-defined]


def test_a_curve_stays_in_its_frame_with_its_reference_and_is_thinned() -> None:
    points = [(step, 0.5 + step / 10_000) for step in range(2_000)]
    chart = figures.curve("Accuracy", points, shares=True, reference=0.9)
    assert chart is not None
    drawn = [tuple(map(float, pair.split(","))) for pair in chart.line.split()]
    assert len(drawn) <= figures.MOST_POINTS + 1
    assert drawn[-1][0] == 100
    assert all(0 <= value <= 100 for pair in drawn for value in pair)
    assert chart.reference is not None
    assert 0 < chart.reference < drawn[-1][1]  # above the line: the original was better
    assert (chart.low, chart.high, chart.latest) == ("50.0\xa0%", "90.0\xa0%", "70.0\xa0%")
    assert figures.curve("Accuracy", points[:1], shares=True) is None


def test_names_of_layers_are_escaped_in_the_drawing() -> None:
    chart = figures.layer_chart([_layer("</title><script>x</script>", 4, 0.1)], "weights")
    drawn = environment().get_template("figures.html").module.layers(chart)  # type: ignore[attr-defined]
    assert "<script" not in drawn
    assert "&lt;script" in drawn
