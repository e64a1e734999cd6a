"""Random filters: orthogonal, the same everywhere, told by a seed."""

import hashlib

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from basisconv.basis.random import GRID, Drawn, random_basis

FEW = settings(max_examples=40, deadline=None)


def basis(rank: int, inputs: int, groups: int = 1, seed: int = 0, key: str = "layer") -> torch.Tensor:
    return random_basis(Drawn(seed, key), groups, rank, inputs)


@FEW
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 3), st.integers(0, 2**31 - 1))
def test_the_filters_of_every_block_are_orthonormal(rank, inputs, groups, seed):
    found = basis(rank, inputs, groups, seed)
    assert found.shape == (groups, rank, inputs)
    for group in found:
        for block in group.split(inputs):
            torch.testing.assert_close(
                block @ block.T, torch.eye(len(block), dtype=torch.float64), atol=1e-5, rtol=0
            )


def test_whole_blocks_together_are_a_tight_frame():
    (frame,) = basis(3 * 9, 9)
    torch.testing.assert_close(frame.T @ frame, 3 * torch.eye(9, dtype=torch.float64), atol=1e-5, rtol=0)


@FEW
@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 20))
def test_a_larger_basis_begins_with_the_smaller_one(rank, more, inputs):
    # nothing is exact but the grid: where rounding falls on an edge, an entry may be one step off
    assert (basis(rank + more, inputs)[:, :rank] - basis(rank, inputs)).abs().max() <= GRID


def test_seed_key_and_group_each_give_other_filters():
    found = [basis(4, 9), basis(4, 9, seed=1), basis(4, 9, key="other"), basis(4, 9, groups=2)[1:]]
    for i, one in enumerate(found):
        for other in found[:i]:
            assert (one - other).abs().max() > 0.1
    assert torch.equal(basis(4, 9, groups=2)[:1], found[0])


def test_what_the_program_drew_before_does_not_matter_nor_does_the_drawing_change_it():
    first = basis(5, 27)
    torch.manual_seed(123)
    expected = torch.rand(3)
    torch.manual_seed(123)
    assert torch.equal(basis(5, 27), first)
    assert torch.equal(torch.rand(3), expected)


def test_float32_holds_the_filters_exactly():
    found = basis(64, 576)
    assert torch.equal(found.float().double(), found)


def test_directions_are_uniform():
    rows = torch.cat([basis(1, 6, seed=seed)[0] for seed in range(2000)])
    spread = rows.T @ rows / len(rows)
    torch.testing.assert_close(spread, torch.eye(6, dtype=torch.float64) / 6, atol=0.02, rtol=0)
    assert rows.mean(0).abs().max() < 0.04


def test_files_written_today_are_read_for_ever():
    # The one stored number here: a change of it breaks every recipe that was ever written.
    found = basis(16, 27, groups=2, seed=7, key="layer1.0.conv1").float()
    digest = hashlib.sha256(found.numpy().astype("<f4").tobytes()).hexdigest()
    assert digest == "4fda5dd25a970f346370e5385ba9df93f35adbdc1bbd8ff5b2a9a20c845d4a5e"
