"""`basisconv_client.torch`: a module in, a smaller module out, by the real service."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import basisconv_client.torch as notebook
from basisconv_client import Client, UnsafeFile


class Small(nn.Module):
    """Two convolutions with room to shrink, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(),
            nn.Conv2d(24, 32, 3, padding=1, stride=2), nn.BatchNorm2d(32), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).mean((2, 3)))


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return Small()


def test_a_module_comes_back_smaller_and_answers_as_the_original(client: Client, net: nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(200, 3, 12, 12, generator=generator)
    y = torch.randint(0, 5, (200,), generator=generator)
    net.train()
    small, job = notebook.compress(net, x[:1], (x, y), macs=0.6, client=client, show=False)
    assert net.training, "the caller's module is left as it was"
    assert job.result is not None
    assert job.result.compressed.macs <= 0.6 * job.result.original.macs
    kernels = [parameter for parameter in small.parameters() if parameter.ndim == 4]
    assert len(kernels) > 2  # each convolution that was replaced is two
    net.eval()
    with torch.no_grad():
        before, after = net(x[:7]), small(x[:7])  # a batch of another size than the example's
    assert after.shape == before.shape
    assert float((after - before).norm() / before.norm()) < 0.5


def test_pixels_as_bytes_are_sent_with_their_channels_last(tmp_path: Path) -> None:
    x = torch.arange(2 * 3 * 4 * 5, dtype=torch.uint8).reshape(2, 3, 4, 5)
    made = notebook._images((x, torch.tensor([0, 1])), x, tmp_path)
    assert isinstance(made, Path)
    with np.load(made) as found:
        assert found["x"].shape == (2, 4, 5, 3)
        assert (found["x"].transpose(0, 3, 1, 2) == x.numpy()).all()
        assert found["y"].tolist() == [0, 1]
    with pytest.raises(ValueError, match="got 3 parts"):
        notebook._images((x, x, x), x, tmp_path)


def exported(net: nn.Module, folder: Path) -> Path:
    return notebook.export(net, torch.rand(2, 3, 12, 12), folder / "net.pt2")


def rewritten(file: Path, change: dict[str, bytes]) -> Path:
    """The archive with these records put in or replaced."""
    target = file.with_name("changed.pt2")
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(target, "w") as new:
        top = old.namelist()[0].partition("/")[0]
        for name in old.namelist():
            new.writestr(name, change.pop(name.partition("/")[2], None) or old.read(name))
        for name, content in change.items():
            new.writestr(f"{top}/{name}", content)
    return target


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return (Path.write_text, (Path("/nowhere/never"), "run"))


def test_a_plain_archive_is_loaded(net: nn.Module, tmp_path: Path) -> None:
    x = torch.rand(3, 3, 12, 12)
    loaded = notebook.load(rewritten(exported(net, tmp_path), {}))
    assert torch.allclose(loaded(x), net.eval()(x), atol=1e-5)


def test_an_archive_with_code_in_it_is_not_read(net: nn.Module, tmp_path: Path) -> None:
    file = exported(net, tmp_path)
    bad = io.BytesIO()
    torch.save(((Evil(),), {}), bad)
    with zipfile.ZipFile(file) as archive:
        sample = next(n for n in archive.namelist() if n.endswith(".pt")).partition("/")[2]
        config = next(n for n in archive.namelist() if "weights_config" in n)
        said = json.loads(archive.read(config))
    next(iter(said["config"].values()))["use_pickle"] = True
    for change in (
        {sample: bad.getvalue()},
        {config.partition("/")[2]: json.dumps(said).encode()},
        {"data/constants/custom_obj_0": bad.getvalue()},
        {"data.pkl": bad.getvalue()},
    ):
        with pytest.raises(UnsafeFile, match="It was not read"):
            notebook.load(rewritten(file, change))
    (tmp_path / "no.pt2").write_bytes(b"PK but not really")
    with pytest.raises(UnsafeFile):
        notebook.load(tmp_path / "no.pt2")
