"""Make the files of the README's walk-through from the shared networks and images.

Writes `resnet20.onnx`, `resnet20.pt2` and `cifar10.npz` (all train images that there are, 10,000 test
images) into a folder.

    python scripts/prepare_cifar.py build/cifar
"""

import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.support import networks


def save_network(module: torch.nn.Module, folder: Path) -> None:
    example = torch.zeros(2, 3, 32, 32)
    batch = {0: torch.export.Dim("batch", min=1, max=4096)}
    program = torch.export.export(module, (example,), dynamic_shapes=(batch,))
    torch.export.save(program, folder / "resnet20.pt2")
    torch.onnx.export(
        module, (example,), dynamo=True, dynamic_shapes=(batch,), external_data=False, verbose=False
    ).save(folder / "resnet20.onnx")  # type: ignore[union-attr]


def save_images(folder: Path, train: int | None = None, test: int = 10_000) -> None:
    x_train, y_train = networks.cifar10_images("train", train)
    x_test, y_test = networks.cifar10_images("test", test)
    np.savez(folder / "cifar10.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)


def main(folder: Path, name: str = "cifar10_resnet20_a") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_network(networks.load(name).eval(), folder)
    save_images(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/cifar"))
