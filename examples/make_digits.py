"""Makes the example: a small CNN trained on scikit-learn's digits, as ONNX and .pt2, and its images as .npz.

    python examples/make_digits.py [FOLDER]

The images are the 1,797 scanned digits that scikit-learn brings (8×8, 17 grey levels, here 0 to 255). Seeds
are fixed and training runs on one thread, so the same versions of torch and scikit-learn give the same files.
Needs torch, onnx, onnxscript, onnxruntime and scikit-learn; takes about 20 seconds.
"""

import argparse
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

SEED = 0
EPOCHS = 30
BATCH = 64
INPUT_MEAN, INPUT_STD = 0.3054, 0.3760  # of the training images after division by 255; printed for checking


class Residual(nn.Module):
    """Two 3x3 convolutions with batch norm around a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(x + self.bn2(self.conv2(y)))


class DigitsCNN(nn.Module):
    """1×8×8 to 10 scores: stem, residual block, stride 2, residual block, mean, linear. 74,986 parameters."""

    def __init__(self, width: int = 32, wide: int = 48) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.stem_bn = nn.BatchNorm2d(width)
        self.block1 = Residual(width)
        self.down = nn.Conv2d(width, wide, 3, stride=2, padding=1, bias=False)
        self.down_bn = nn.BatchNorm2d(wide)
        self.block2 = Residual(wide)
        self.classifier = nn.Linear(wide, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem_bn(self.stem(x)))
        x = F.relu(self.down_bn(self.down(self.block1(x))))
        return self.classifier(self.block2(x).mean(dim=(2, 3)))


def load() -> dict[str, np.ndarray]:
    """The digits as uint8 images, 20 % of every class kept for testing."""
    digits = load_digits()
    x = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    y = digits.target.astype(np.int64)
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.2, stratify=y, random_state=SEED)
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}


def to_input(x: np.ndarray) -> Tensor:
    return (torch.from_numpy(x).permute(0, 3, 1, 2).float() / 255 - INPUT_MEAN) / INPUT_STD


def shifted(x: Tensor, generator: torch.Generator) -> Tensor:
    """Every image moved by up to one pixel: a scan is never quite centred."""
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    dy, dx = torch.randint(0, 3, (2, len(x)), generator=generator)
    rows = dy[:, None] + torch.arange(8)
    columns = dx[:, None] + torch.arange(8)
    return padded[torch.arange(len(x))[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(
        0, 3, 1, 2
    )


def train(data: dict[str, np.ndarray]) -> DigitsCNN:
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    x, y = to_input(data["x_train"]), torch.from_numpy(data["y_train"])
    model = DigitsCNN()
    optimizer = torch.optim.SGD(model.parameters(), momentum=0.9, nesterov=True, weight_decay=5e-4, lr=0.1)
    steps = EPOCHS * (len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=steps)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x), generator=generator).split(BATCH)[: len(x) // BATCH]:
            loss = F.cross_entropy(model(shifted(x[rows], generator)), y[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def export(model: DigitsCNN) -> tuple[onnx.ModelProto, torch.export.ExportedProgram]:
    """Both forms with a dynamic batch, without the stack traces that would tell where this file lay.

    torch's exporter folds batch norms into convolutions on the way to ONNX; the .pt2 keeps them.
    """
    batch = torch.export.Dim("batch", min=1, max=4096)
    program = torch.export.export(model, (torch.zeros(2, 1, 8, 8),), dynamic_shapes={"x": {0: batch}})
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    names = {"input_names": ["image"], "output_names": ["scores"]}
    exported = torch.onnx.export(program, dynamo=True, optimize=True, verbose=False, **names)
    proto = exported.model_proto
    tidy(proto, model)
    onnx.checker.check_model(proto, full_check=True)
    return proto, program


def tidy(proto: onnx.ModelProto, model: DigitsCNN) -> None:
    """Layers called as in the module, the batch axis called batch, and no traces of the making."""
    graph = proto.graph
    values = [*graph.input, *graph.output, *graph.value_info]
    for item in [*graph.node, *values, *graph.initializer, graph]:
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    layers = [name for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    nodes = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
    for node, name in zip(nodes, layers, strict=True):  # both in the order of execution
        node.name = name
    for value in values:
        for side in value.type.tensor_type.shape.dim:
            if side.HasField("dim_param"):
                side.dim_param = "batch"


def save_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """As numpy.savez_compressed, but with one fixed date, so that equal arrays make equal files."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, array in arrays.items():
            with file.open(zipfile.ZipInfo(f"{name}.npy", (2020, 1, 1, 0, 0, 0)), "w") as member:
                np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=Path(__file__).parent)
    folder = parser.parse_args().folder
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    data = load()
    pixels = data["x_train"] / 255
    print(f"training images: mean {pixels.mean():.4f}, std {pixels.std():.4f}")
    model = train(data)
    proto, program = export(model)
    onnx.save(proto, folder / "digits_cnn.onnx")
    torch.export.save(program, folder / "digits_cnn.pt2")
    save_npz(
        folder / "digits.npz",
        data | {"y_train": data["y_train"].astype(np.uint8), "y_test": data["y_test"].astype(np.uint8)},
    )
    report(folder, model, data)


def report(folder: Path, model: DigitsCNN, data: dict[str, np.ndarray]) -> None:
    """Accuracy of the written file in ONNX Runtime, beside torch's."""
    session = onnxruntime.InferenceSession(folder / "digits_cnn.onnx", providers=["CPUExecutionProvider"])
    for part in ("train", "test"):
        x, y = to_input(data[f"x_{part}"]), data[f"y_{part}"]
        (scores,) = session.run(None, {"image": x.numpy()})
        with torch.no_grad():
            torch_accuracy = float((model(x).argmax(1).numpy() == y).mean())
        print(
            f"{part}: {len(y)} images, accuracy {(scores.argmax(1) == y).mean():.4f}, "
            f"in torch {torch_accuracy:.4f}"
        )
    print(f"parameters: {sum(parameter.numel() for parameter in model.parameters()):,}")
    for name in ("digits_cnn.onnx", "digits_cnn.pt2", "digits.npz"):
        print(f"{name}: {(folder / name).stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
