"""Pixels become floats exactly as the contract's formula says, batch by batch."""

import numpy as np
import pytest
import torch

from app.core.errors import DatasetMismatch
from tests.data.making import picture
from worker.data.preprocess import batches, in_file_layout, preprocess
from worker.data.spec import InputSpec

RESNET = {"shape": [3, 5, 4], "scale": 255, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
X = np.stack([picture(5, 4, seed=n) for n in range(7)])


def test_scale_then_mean_then_std_for_every_channel() -> None:
    out = preprocess(X, InputSpec.parse(RESNET))
    assert out.shape == (7, 3, 5, 4)
    assert out.dtype == torch.float32
    for channel in range(3):
        expected = (X[..., channel] / 255.0 - RESNET["mean"][channel]) / RESNET["std"][channel]  # type: ignore[index]
        np.testing.assert_allclose(out[:, channel].numpy(), expected, rtol=1e-5, atol=1e-6)


def test_raw_pixels_stay_raw() -> None:
    out = preprocess(X, InputSpec.parse({"shape": [3, 5, 4], "scale": 1}))
    np.testing.assert_array_equal(out.numpy(), X.transpose(0, 3, 1, 2).astype(np.float32))


def test_one_value_stands_for_all_channels() -> None:
    one = InputSpec.parse({"shape": [3, 5, 4], "mean": [0.5], "std": [0.25]})
    three = InputSpec.parse({"shape": [3, 5, 4], "mean": [0.5] * 3, "std": [0.25] * 3})
    assert torch.equal(preprocess(X, one), preprocess(X, three))
    with pytest.raises(DatasetMismatch, match="mean has 2 values; the network takes 3 channels"):
        InputSpec.parse({"shape": [3, 5, 4], "mean": [0.5, 0.5]})


def test_floats_pass_as_they_are() -> None:
    x = torch.randn(2, 3, 5, 4)
    assert torch.equal(preprocess(x, InputSpec.parse(RESNET)), x)


def test_a_file_with_channels_last_is_fed_channels_last() -> None:
    x = torch.randn(2, 3, 5, 4)
    last = in_file_layout(x, InputSpec.parse({**RESNET, "layout": "NHWC"}))
    assert last.is_contiguous()
    assert torch.equal(last, x.permute(0, 2, 3, 1))
    assert torch.equal(in_file_layout(x, InputSpec.parse(RESNET)), x)


def test_a_pass_gives_every_image_once_in_order() -> None:
    spec, y = InputSpec.parse(RESNET), np.arange(7)
    passed = list(batches(X, y, spec, batch_size=3))
    assert [batch.valid for batch in passed] == [3, 3, 1]
    assert torch.equal(torch.cat([batch.x for batch in passed]), preprocess(X, spec))
    assert torch.cat([batch.y for batch in passed if batch.y is not None]).tolist() == y.tolist()


def test_a_baked_in_batch_size_is_kept_and_the_filling_does_not_count() -> None:
    spec = InputSpec.parse(RESNET)
    passed = list(batches(X, np.arange(7), spec, batch_size=4, fixed=True))
    assert [len(batch.x) for batch in passed] == [4, 4]
    assert [batch.valid for batch in passed] == [4, 3]
    assert torch.equal(torch.cat([batch.x[: batch.valid] for batch in passed]), preprocess(X, spec))
    assert [batch.y.tolist() for batch in passed if batch.y is not None] == [[0, 1, 2, 3], [4, 5, 6, 6]]
