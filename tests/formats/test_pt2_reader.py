""".pt2 files become modules of real layers under the names that their authors gave them."""

import copy
import io

import pytest
import torch
from torch import Tensor, nn

from basisconv.errors import MethodError
from basisconv.formats import pt2_reader
from basisconv.formats.compare import check_import
from tests.formats.nets import Small, answers, images, pt2_of, read_pt2, small, small_pt2

PATHS = ["stem", "block.0", "deep", "down", "fc1", "fc2"]


@pytest.mark.parametrize("batch", [None, 1, 2])
def test_layers_keep_their_module_paths(batch: int | None) -> None:
    original = small()
    network = read_pt2(small_pt2(batch))
    assert list(network.layers) == PATHS
    assert (network.batch, network.module_batch) == (batch, None)
    assert isinstance(network.module.get_submodule("block.0"), nn.Conv2d)
    assert isinstance(network.module.get_submodule("block.1"), nn.BatchNorm2d)
    assert check_import(network) == 0.0
    torch.testing.assert_close(network.module(images(5)), original(images(5)))


def test_the_state_keeps_the_authors_names() -> None:
    own = {name for name in small().state_dict() if not name.endswith("num_batches_tracked")}
    assert own <= set(read_pt2(small_pt2()).module.state_dict())


def test_a_clean_archive_read_again_is_the_same_network() -> None:
    network = read_pt2(small_pt2())
    again, twice = io.BytesIO(), io.BytesIO()
    pt2_reader.canonicalise(io.BytesIO(small_pt2()), again)
    again.seek(0)
    pt2_reader.canonicalise(again, twice)
    twice.seek(0)
    torch.testing.assert_close(pt2_reader.load(twice).module(images(3)), network.module(images(3)))


def test_the_senders_paths_and_sample_inputs_are_gone() -> None:
    clean = io.BytesIO()
    pt2_reader.canonicalise(io.BytesIO(pt2_of(small(), x=torch.full((2, 3, 12, 12), 7.5))), clean)
    assert b"nets.py" not in clean.getvalue()
    clean.seek(0)
    (sample,), _ = pt2_reader.load_program(clean).example_inputs
    assert not sample.any()


def test_decomposed_programs_are_read() -> None:
    """Core ATen: convolution, addmm over a transposed weight, batch norm with three outputs."""
    program = torch.export.export(small(), (images(2),)).run_decompositions()
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    network = read_pt2(buffer.getvalue())
    assert list(network.layers) == PATHS
    assert sum(isinstance(module, nn.BatchNorm2d) for module in network.module.modules()) == 2
    assert check_import(network) < 1e-6


def test_open_image_sizes_are_read() -> None:
    program = torch.export.export(
        small(), (images(2, side=16),), dynamic_shapes=({2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO},)
    )
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    network = read_pt2(buffer.getvalue())
    assert network.input_shape == (3, 16, 16)
    assert network.module(images(2, side=20)).shape == (2, 5)


def test_several_outputs_come_as_a_tuple() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            y = self.conv(x)
            return {"map": y, "mean": y.mean((2, 3))}

    network = read_pt2(pt2_of(Two().eval()))
    assert [tuple(value.shape) for value in network.module(images(2))] == [(2, 4, 10, 10), (2, 4)]
    assert len(network.output_names) == 2


def test_a_module_used_twice_is_one_layer() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)
            self.scale = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(torch.relu(self.conv(x)) * self.scale)

    network = read_pt2(pt2_of(Twice().eval()))
    assert list(network.layers) == ["conv"]
    assert isinstance(network.module.get_parameter("scale"), nn.Parameter)
    assert check_import(network) == 0.0


@pytest.mark.parametrize("training", ["batch norm", "dropout"])
def test_a_network_exported_in_training_mode_is_refused(training: str) -> None:
    class Dropping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.drop = nn.Dropout(0.5)

        def forward(self, x: Tensor) -> Tensor:
            return self.drop(self.conv(x))

    network = copy.deepcopy(small()).train() if training == "batch norm" else Dropping().train()
    with pytest.raises(MethodError) as refused:
        read_pt2(pt2_of(network))
    assert refused.value.code == "malformed_model"
    assert "eval()" in str(refused.value.hint)


def test_a_wrong_copy_is_refused_and_its_layer_named() -> None:
    network = read_pt2(small_pt2())
    with torch.no_grad():
        network.module.get_submodule("deep").weight[0] += 1  # type: ignore[operator]
    with pytest.raises(MethodError) as refused:
        check_import(network)
    assert (refused.value.code, refused.value.layer) == ("import_mismatch", "deep")


def test_the_module_is_a_copy_of_its_own() -> None:
    network = read_pt2(small_pt2())
    before = answers(network.module, images(2))
    with torch.no_grad():
        network.module.get_submodule("fc2").weight.zero_()  # type: ignore[operator]
    assert (answers(network.source.module(), images(2)) == before).all()  # type: ignore[union-attr]
    assert isinstance(small(), Small)
