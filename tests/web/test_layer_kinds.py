"""How the model's page names the kinds of layers."""

from typing import Any

import pytest

from app.web.rendering import environment


@pytest.mark.parametrize(
    ("kind", "sides", "stride", "groups", "words"),
    [
        ("conv2d", [3, 3], [1, 1], 1, "3×3"),
        ("conv2d", [7, 7], [2, 2], 1, "7×7, stride 2"),
        ("conv2d", [3, 3], [2, 1], 4, "3×3, stride 2×1, 4 groups"),
        ("linear", [1, 1], [1, 1], 1, "Linear"),
        ("conv1d", [5], [1], 1, "5 (1-D)"),
        ("conv3d", [3, 3, 3], [1, 2, 2], 1, "3×3×3, stride 1×2×2"),
        ("conv_transpose1d", [4], [2], 1, "transposed 4 (1-D), stride 2"),
        ("conv_transpose2d", [2, 2], [2, 2], 1, "transposed 2×2, stride 2"),
        ("conv_transpose3d", [2, 2, 2], [1, 1, 1], 1, "transposed 2×2×2"),
    ],
)
def test_a_layer_is_named_by_what_it_does(
    kind: str, sides: list[int], stride: list[int], groups: int, words: str
) -> None:
    layer: dict[str, Any] = {"kind": kind, "kernel_size": sides, "stride": stride, "groups": groups}
    assert environment().filters["kind"](layer) == words
