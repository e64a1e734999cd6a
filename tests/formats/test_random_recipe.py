"""Networks trained from scratch: what their files hold, and what comes back."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import fx, nn

from basisconv import Factorized, InvalidRequest, count
from basisconv.formats import onnx_reader, weights
from basisconv.formats.network import Network
from basisconv.scratch import ScratchConfig, randomize_
from tests.formats.nets import images, small_onnx


def untrained(expansion: float = 2.0) -> tuple[Network, fx.GraphModule]:
    """The network as it came, and another copy of it in from-scratch form with batch norms of some use."""
    network, module = onnx_reader.load(small_onnx()), onnx_reader.load(small_onnx()).module
    randomize_(module, images(1), ScratchConfig(expansion=expansion, seed=9), images(16))
    module.train()
    module(images(32))
    return network, module.eval()


def write(network: Network, module: fx.GraphModule, folder: Path) -> dict[str, Any]:
    recipe = weights.write(network, module, folder / "w.safetensors")
    (folder / "recipe.json").write_text(json.dumps(recipe))
    return recipe


def read(network: Network, folder: Path) -> fx.GraphModule:
    return weights.read(network, folder / "w.safetensors", folder / "recipe.json")


def pairs(module: nn.Module) -> dict[str, Factorized]:
    return {path: child for path, child in module.named_modules() if isinstance(child, Factorized)}


def test_the_rebuilt_network_has_the_same_bits_everywhere(tmp_path: Path) -> None:
    network, module = untrained()
    write(network, module, tmp_path)
    rebuilt = read(network, tmp_path)
    told, found = module.state_dict(), rebuilt.state_dict()
    assert told.keys() == found.keys()
    assert all(torch.equal(told[name], found[name]) for name in told)
    with torch.no_grad():
        assert torch.equal(module(images(4)), rebuilt(images(4)))
    assert all(pair.is_as_drawn for pair in pairs(rebuilt).values())


def test_the_file_holds_what_was_learned_and_the_norms_statistics_only(tmp_path: Path) -> None:
    network, module = untrained()
    write(network, module, tmp_path)
    stored = load_file(tmp_path / "w.safetensors")
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    learned = sum(v.numel() for name, v in stored.items() if not name.endswith(statistics))
    costs = count(module, images(1))
    assert learned == costs.learnable_params < costs.params
    fixed = sum(pair.first.weight.numel() for pair in pairs(module).values())
    whole = 4 * sum(value.numel() for value in module.state_dict().values())
    assert (tmp_path / "w.safetensors").stat().st_size < whole - 4 * fixed + 4096  # names and shapes


def test_filters_that_learned_after_all_are_stored(tmp_path: Path) -> None:
    network, module = untrained()
    path, pair = next(iter(pairs(module).items()))
    pair.first.weight.data += 0.01
    recipe = write(network, module, tmp_path)
    assert [entry["path"] for entry in recipe["layers"] if "random" not in entry] == [path]
    with torch.no_grad():
        assert torch.equal(module(images(4)), read(network, tmp_path)(images(4)))


@pytest.mark.parametrize(
    ("changed", "words"),
    [({"seed": 10}, "not those of the recipe"), ({"scheme": "basisconv-random-0"}, "scheme must be")],
)
def test_other_filters_than_the_written_ones_are_refused(
    tmp_path: Path, changed: dict[str, Any], words: str
) -> None:
    network, module = untrained()
    recipe = write(network, module, tmp_path)
    recipe["layers"][0]["random"] |= changed
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    with pytest.raises(InvalidRequest, match=words):
        read(network, tmp_path)
