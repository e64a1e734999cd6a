"""From a notebook: a module in, a smaller module out. Needs torch, and numpy for images in memory.

small = basisconv_client.torch.compress(net, x[:2], (x, y), macs=0.5).module
"""

import copy
import io
import json
import re
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, Unpack, cast

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor, nn

from basisconv_client.client import Client
from basisconv_client.errors import UnsafeFile
from basisconv_client.resources import Dataset, Event, Job
from basisconv_client.wishes import InputWishes, Wishes

Images = str | Path | Dataset | Tensor | Mapping[str, Any] | tuple[Any, ...]

# What an archive without pickled parts holds; the sample inputs are looked at by themselves.
_RECORDS: Final = re.compile(
    r"(data/(weights/weight|constants/tensor)_\d+|data/(weights|constants)/\w+_config\.json|models/\w+\.json"
    r"|data/sample_inputs/\w+\.pt|archive_format|archive_version|byteorder|\.data/(version|serialization_id)"
    r"|\.format_version|\.storage_alignment|version)"
)
_PLAIN: Final = re.compile(r"(weight|tensor)_\d+")


class Compressed(NamedTuple):
    """The smaller network, ready to run, and the job that made it: `job.result` has every number."""

    module: nn.Module
    job: Job


def compress(
    module: nn.Module,
    example_input: Tensor,
    dataset: Images | None = None,
    *,
    client: Client | None = None,
    output: str | Path | None = None,
    input: InputWishes | None = None,  # noqa: A002 - the contract's name
    show: bool = True,
    **wanted: Unpack[Wishes],
) -> Compressed:
    """Compress a network on the service, and load what comes back.

    `example_input` is a batch (N, C, H, W). `dataset` is a file, an id, images alone, `(x, y)`,
    `(x_train, y_train, x_test, y_test)` or a mapping of these names; float images are what the network takes
    as it is, uint8 ones go through `input` first. The module is not changed. `output` keeps the .pt2 file.

    The file that comes back is loaded only if its SHA-256 is the listed one and nothing in it is pickled
    code. Raises Rejected, JobFailed or UnsafeFile.
    """
    exports = sorted({*wanted.get("exports", ()), "pt2"})
    with _client(client) as used, tempfile.TemporaryDirectory(prefix="basisconv-") as scratch:
        folder = Path(scratch)
        name = wanted.get("name") or type(module).__name__
        network = used.ready_model(
            export(module, example_input, folder / f"{_file_name(name)}.pt2"), name=name, input=input
        )
        images = None if dataset is None else used.ready_dataset(_images(dataset, example_input, folder))
        job = used.create_job(network, images, **cast(Wishes, {**wanted, "exports": exports}))
        with _told(show) as tell:
            job = used.wait_job(job.id, on_event=tell)
        (artifact,) = (found for found in used.artifacts(job.id) if found.format == "pt2")
        file = used.download(artifact, folder / "compressed.pt2" if output is None else Path(output))
        return Compressed(load(file).to(_device(module)), job)


def export(module: nn.Module, example_input: Tensor, file: Path) -> Path:
    """The module as a .pt2 file, with a free batch size where the module allows it."""
    still = copy.deepcopy(module).cpu().eval()
    example = example_input.detach().cpu()
    if len(example) < 2:  # torch.export would take a batch of one for the only one there is
        example = torch.cat([example, example])
    with torch.no_grad():
        try:
            program = torch.export.export(still, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
        except (ValueError, RuntimeError) as error:
            reason = str(error).strip().partition("\n")[0]
            warnings.warn(f"The batch size stays {len(example_input)}: {reason}", stacklevel=3)
            program = torch.export.export(still, (example_input.detach().cpu(),))
    torch.export.save(program, file)
    return file


def load(file: str | Path) -> nn.Module:
    """A .pt2 file of the service as a module. Raises UnsafeFile for one that holds pickled code."""
    _refuse_code(Path(file))
    return torch.export.load(file).module()


def _refuse_code(file: Path) -> None:
    """torch.export.load unpickles some parts of an archive; they may hold tensors and nothing else."""
    try:
        with zipfile.ZipFile(file) as archive:
            for entry in archive.infolist():
                _check_record(archive, entry)
    except (zipfile.BadZipFile, ValueError, KeyError, AttributeError, TypeError) as error:
        raise UnsafeFile(f"{file} is no .pt2 file as the service writes them ({error}).") from error


def _check_record(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    name = entry.filename.partition("/")[2]
    if _RECORDS.fullmatch(name) is None:
        raise UnsafeFile(f"{archive.filename} holds {name!r}, which no plain network needs. It was not read.")
    if name.endswith("_config.json"):
        for tensor, said in json.loads(archive.read(entry))["config"].items():
            if said["use_pickle"] is not False or _PLAIN.fullmatch(said["path_name"]) is None:
                raise UnsafeFile(f"{archive.filename} holds {tensor!r} as a pickle. It was not read.")
    if name.endswith(".pt"):
        try:
            torch.load(io.BytesIO(archive.read(entry)), weights_only=True)
        except Exception as error:
            raise UnsafeFile(
                f"{archive.filename} holds code in its sample inputs. It was not read."
            ) from error


def _images(given: Images, example: Tensor, folder: Path) -> str | Path | Dataset:
    """Images in memory as a file."""
    if isinstance(given, str | Path | Dataset):
        return given
    import numpy as np

    file = folder / "images.npz"
    np.savez(file, **{name: _array(name, part, example) for name, part in _named(given).items()})
    return file


def _named(given: Tensor | Mapping[str, Any] | tuple[Any, ...] | Any) -> Mapping[str, Any]:
    if isinstance(given, Mapping):
        return given
    if not isinstance(given, tuple):
        return {"x": given}
    names = {1: ("x",), 2: ("x", "y"), 4: ("x_train", "y_train", "x_test", "y_test")}.get(len(given))
    if names is None:
        raise ValueError(
            f"images come as x, (x, y) or (x_train, y_train, x_test, y_test); got {len(given)} parts"
        )
    return dict(zip(names, given, strict=True))


def _array(name: str, part: Any, example: Tensor) -> Any:
    """As the service reads it: integers for labels, uint8 images with their channels last."""
    import numpy as np

    array = part.detach().cpu().numpy() if isinstance(part, Tensor) else np.asarray(part)
    if name.startswith("x") and array.dtype == np.uint8 and array.shape[1:] == tuple(example.shape[1:]):
        return np.ascontiguousarray(array.transpose(0, 2, 3, 1))
    return array


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name)[:100]


def _device(module: nn.Module) -> torch.device:
    return next((part.device for part in module.parameters()), torch.device("cpu"))


@contextmanager
def _client(given: Client | None) -> Iterator[Client]:
    """The caller's client stays open, one of our own does not."""
    if given is not None:
        yield given
        return
    with Client() as own:
        yield own


@contextmanager
def _told(show: bool) -> Iterator[Any]:
    """A bar in the terminal or under the notebook's cell."""
    console = Console(stderr=True)
    shown = show and (console.is_terminal or console.is_jupyter)
    columns = (TextColumn("{task.description:<10}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, TimeElapsedColumn(), console=console, disable=not shown) as bars:
        bar = bars.add_task("queued", total=1.0)

        def tell(event: Event) -> None:
            fraction = event.data.get("fraction")
            if event.type in ("stage", "progress"):
                bars.update(bar, description=event.stage or "running")
            if event.type == "progress" and isinstance(fraction, int | float):
                bars.update(bar, completed=float(fraction))
            if event.type == "done":
                bars.update(bar, description="done")

        yield tell
