"""The script that users check a file with never counts less than there is."""

from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from basisconv import count
from benchmarks import onnx_file
from scripts.check_onnx import UnknownSizeError, count_macs
from tests.support.networks import CifarResNet

IMAGE = (3, 32, 32)


def test_a_plain_network_is_counted_as_the_library_counts_it(tmp_path: Path):
    network = nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 15 * 15, 4))
    file = onnx_file.export(network, tmp_path / "network.onnx")
    assert count_macs(onnx.load(file), IMAGE) == count(network, torch.zeros(1, *IMAGE)).macs


def test_layers_whose_size_only_a_run_can_tell_are_refused_instead_of_left_out(tmp_path: Path):
    file = onnx_file.export(CifarResNet(8, 10, "A"), tmp_path / "padded.onnx")
    with pytest.raises(UnknownSizeError, match="no size before the file runs"):
        count_macs(onnx.load(file), IMAGE)
