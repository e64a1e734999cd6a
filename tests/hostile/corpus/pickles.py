"""Pickles as networks and as data sets, under every name."""

import gzip
import io
import tarfile
import zipfile

import torch

from tests.hostile.corpus import Traps, add
from tests.hostile.corpus.payloads import by_hand, object_array, pickled, torch_saved

NAMES = (
    "model.onnx",
    "model.pt2",
    "model.pt",
    "model.pth",
    "model.safetensors",
    "model.bin",
    "model.ckpt",
    "m",
)
UNSAFE = "unsafe_serialization"

for _name in NAMES:
    add(
        "pickles",
        f"protocol 2 as {_name}",
        lambda traps: pickled(traps, 2),
        UNSAFE,
        filename=_name,
    )
for _protocol in (0, 1, 3, 4, 5):
    add("pickles", f"protocol {_protocol}", lambda traps, p=_protocol: pickled(traps, p), UNSAFE)
    add(
        "pickles",
        f"protocol {_protocol} as a data set",
        lambda traps, p=_protocol: pickled(traps, p),
        UNSAFE,
        to="datasets",
        filename="images.npz",
    )


def inside(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def in_tar(traps: Traps) -> bytes:
    """How torch saved before 0.2: a tar of pickles."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("sys_info", "pickle", "tensors"):
            data = pickled(traps, 2)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def torchscript(traps: Traps) -> bytes:
    """A traced network whose constants were replaced by a bomb."""
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(torch.nn.Conv2d(3, 4, 3).eval(), torch.zeros(1, 3, 8, 8)), buffer)
    changed = io.BytesIO()
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            new.writestr(name, pickled(traps, 2) if name.endswith(".pkl") else old.read(name))
    return changed.getvalue()


add("pickles", "opcodes written by hand", by_hand, "unsafe_serialization unsupported_format")
add("pickles", "white space in front", lambda t: b"\n\n" + pickled(t, 2), "unsupported_format")
add("pickles", "compressed as joblib does", lambda t: gzip.compress(pickled(t, 4)), "unsupported_format")
add("pickles", "whole module of torch.save", torch_saved, UNSAFE, filename="model.pt")
add(
    "pickles",
    "whole module of torch.save, said to be weights",
    torch_saved,
    UNSAFE,
    filename="model.pt",
    fields={"architecture": "resnet18"},
)
add("pickles", "whole module of torch.save as .pt2", torch_saved, UNSAFE, filename="model.pt2")
add("pickles", "whole module of an old torch.save", lambda t: torch_saved(t, zipped=False), UNSAFE)
add(
    "pickles",
    "tar of an older torch",
    in_tar,
    "unsupported_format unsafe_serialization",
    filename="model.pth",
)
add("pickles", "TorchScript", torchscript, "unsupported_format unsafe_serialization", filename="model.pt")
add("pickles", "object array as a network", object_array, "unsupported_format", filename="model.npy")
add(
    "pickles",
    "joblib in a zip",
    lambda t: inside("model.joblib", pickled(t, 4)),
    "unsafe_serialization malformed_model unsupported_format",
)
add("pickles", "torch.save as a data set", torch_saved, UNSAFE, to="datasets", filename="data.pt")
add(
    "pickles",
    "object array as a data set",
    object_array,
    "unsupported_format",
    to="datasets",
    filename="x.npy",
)
