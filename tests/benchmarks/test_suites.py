"""What a run has to measure, and what it may leave out."""

import pytest

from benchmarks.methods import METHODS
from benchmarks.raw import Key
from benchmarks.suites import CPU, SUITES, Part, small
from benchmarks.tuning import Recipe

PART = Part(
    "net",
    (0.5, 0.7),
    8,
    seeds=(0, 1, 2),
    recipe=Recipe(None),
    tuned=(0.5,),
    once=("spatial_svd",),
    untuned=("basisconv_basis",),
)


def test_what_depends_on_images_is_measured_with_every_seed_and_the_rest_once():
    assert PART.seeds_of(METHODS["basisconv"]) == (0, 1, 2)
    assert PART.seeds_of(METHODS["weights"]) == (0,)
    assert PART.seeds_of(METHODS["spatial_svd"]) == (0,)


def test_one_start_without_chance_is_tuned_with_every_seed():
    keys = PART.keys(METHODS["weights"], 0, 0.5)
    assert [(key.seed, key.tuned) for key in keys] == [(0, False), (0, True), (1, True), (2, True)]


def test_a_start_of_its_own_seed_is_tuned_with_that_seed():
    keys = PART.keys(METHODS["basisconv"], 2, 0.5)
    assert [(key.seed, key.tuned) for key in keys] == [(2, False), (2, True)]


def test_only_the_chosen_cuts_are_tuned_and_the_network_as_it_came():
    assert len(PART.keys(METHODS["basisconv"], 0, 0.7)) == 1
    assert PART.tunes(METHODS["uncompressed"], 0.0)


def test_what_is_measured_once_may_be_tuned_and_what_is_left_untuned_is_not():
    once = PART.keys(METHODS["spatial_svd"], 0, 0.5)
    assert [(key.seed, key.tuned) for key in once] == [(0, False), (0, True)]
    assert [key.tuned for key in PART.keys(METHODS["basisconv_basis"], 0, 0.5)] == [False]


def test_only_cuts_with_a_row_missing_are_compressed_again():
    method, measured = METHODS["basisconv"], set[Key]()
    assert PART.missing(method, 0, measured.__contains__) == (0.5, 0.7)
    measured |= {Key("net", "basisconv", 0.5, 0, tuned=False), Key("net", "basisconv", 0.7, 0, tuned=False)}
    assert PART.missing(method, 0, measured.__contains__) == (0.5,)
    measured.add(Key("net", "basisconv", 0.5, 0, tuned=True))
    assert PART.missing(method, 0, measured.__contains__) == ()
    assert PART.missing(method, 1, measured.__contains__) == (0.5, 0.7)


def test_the_uncompressed_network_has_one_cut_of_nothing():
    assert PART.missing(METHODS["uncompressed"], 0, lambda _: False) == (0.0,)


@pytest.mark.parametrize("suite", SUITES.values(), ids=SUITES)
def test_every_suite_tunes_cuts_that_it_measures_and_names_known_methods(suite):
    for part in suite.parts:
        assert set(part.tuned) <= set(part.cuts)
        assert {*part.methods, *part.once, *part.untuned} <= set(METHODS)


def test_the_small_suite_walks_the_same_way():
    for part, short in zip(CPU.parts, small(CPU).parts, strict=True):
        assert short.methods == part.methods
        assert (short.recipe is None) == (part.recipe is None)
        assert set(short.tuned) <= set(short.cuts)
