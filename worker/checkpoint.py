"""What a job's child leaves behind so that another can go on, and how that one takes it up.

Two parts, each one safetensors file with JSON in its header: `network` stands at the beginning of a stage
(its structure and weights, and all that was found before), `training` somewhere in the middle of fine-tuning.
The supervisor carries them to the object storage (carrier.py); nothing here knows of it.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from app.jobs.states import Stage

Part = Literal["network", "training"]
State = dict[str, Tensor]
About = dict[str, Any]
Message = dict[str, Any]

VERSION: Final = 1  # of what the parts hold; files of another version are not taken up
EVERY_SECONDS: Final = 120.0
SHARE: Final = 0.1  # of the time, at most, that writing at the ends of short epochs may take


class Unusable(ValueError):  # noqa: N818 - says what the file is
    """A checkpoint that this version or this job cannot go on from."""


@dataclass(frozen=True)
class Saved:
    """A part as it was read back."""

    tensors: State
    about: About


@dataclass
class Keeper:
    """Writes parts into the scratch folder. `kept` are the files that an earlier attempt left, by part."""

    folder: Path
    kept: Mapping[str, str] = field(default_factory=dict)
    spent: Callable[[], About] = dict  # what the stages took so far
    clock: Callable[[], float] = time.monotonic
    _number: int = 0
    _at: float = 0.0
    _cost_seconds: float = 0.0
    _full: bool = False

    def __post_init__(self) -> None:
        self._at = self.clock()

    def taken_up(self, part: Part) -> Saved | None:
        """What an earlier attempt kept, if it did. Raises Unusable."""
        name = self.kept.get(part)
        return None if name is None else read(self.folder / name, part)

    def spent_before(self) -> About:
        """What earlier attempts took for what this one need not do again. Raises Unusable."""
        part: Part = "training" if "training" in self.kept else "network"
        spent: About = _header(self.folder / self.kept[part], part)["spent"]
        return spent

    def is_due(self, *, epoch_ended: bool) -> bool:
        """After every epoch, but of very short ones not all; and whenever two minutes have passed."""
        waited = self.clock() - self._at
        return waited >= (self._cost_seconds / SHARE if epoch_ended else EVERY_SECONDS)

    def keep(
        self, part: Part, tensors: State, about: About, stage: Stage, *, epoch: int = 0, step: int = 0
    ) -> Iterator[Message]:
        """Write a part and say so; `stage` is where another attempt goes on.

        A full disk costs the checkpoint, not the job.
        """
        began = self.clock()
        self._number += 1
        name = f"checkpoint-{self._number}.safetensors"
        try:
            write(self.folder / name, part, tensors, about | {"stage": stage.value, "spent": self.spent()})
        except (OSError, SafetensorError) as error:
            (self.folder / name).unlink(missing_ok=True)
            yield from self._missed(error)
        else:
            position = {"stage": stage.value, "epoch": epoch, "step": step}
            yield {"type": "checkpoint", "part": part, "file": name} | position
        self._at = self.clock()
        self._cost_seconds = self._at - began

    def _missed(self, error: Exception) -> Iterator[Message]:
        if not self._full:
            self._full = True
            detail = (
                f"A checkpoint could not be written ({type(error).__name__}); a lost worker costs more now."
            )
            yield {"type": "warning", "code": "checkpoint_not_written", "detail": detail}


def write(path: Path, part: Part, tensors: State, about: About, version: int = VERSION) -> None:
    """One file, whole on the disk when this returns: the supervisor reads it while we go on."""
    metadata = {"basisconv": json.dumps({"version": version, "part": part, "about": about})}
    save_file({name: _plain(value) for name, value in tensors.items()}, path, metadata=metadata)


def read(path: Path, part: Part) -> Saved:
    """Raises Unusable for anything but a file of this version's `write`."""
    about = _header(path, part)
    try:
        with safe_open(path, "pt") as file:
            return Saved({name: file.get_tensor(name) for name in file.keys()}, about)  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise Unusable(f"{type(error).__name__}: {error}") from error


def _header(path: Path, part: Part) -> About:
    try:
        with safe_open(path, "pt") as file:
            told = json.loads((file.metadata() or {})["basisconv"])
            version, found, about = told["version"], told["part"], told["about"]
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise Unusable(f"{type(error).__name__}: {error}") from error
    if (version, found) != (VERSION, part):
        raise Unusable(f"it is the part {found} of version {version}, not the part {part} of {VERSION}")
    return dict(about)


def _plain(value: Tensor) -> Tensor:
    return value.detach().cpu().contiguous()
