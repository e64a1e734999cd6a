"""What a job's child says: progress as a share of the whole job, with the time that is left and was spent."""

import copy
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final

from app.jobs.states import Stage
from worker.outcome import Spent
from worker.peaks import Peaks
from worker.work import Message, Said

Report = Callable[[Message], None]
PROGRESS_SECONDS: Final = 0.25


class Teller:
    """Passes messages on: progress as a share of the whole job, with the time that is left."""

    def __init__(self, report: Report, first: Stage) -> None:
        self._report = report
        self._began = self._stage_began = time.monotonic()
        self._told = 0.0
        self._stage = first  # the child has said so already
        self._first: float | None = None  # the fraction at which this attempt began
        self._from = self._share = 0.0
        self._peaks = Peaks()
        self._peaks.begin()
        self.spent = self._before = Spent()

    def begin(self, stage: Stage, done: float, share: float) -> None:
        """Enter a stage, or set the share of the one that we are in."""
        self._from, self._share = done, share
        if stage is self._stage:
            return
        self.end()
        self._peaks.begin()
        self._stage, self._stage_began = stage, time.monotonic()
        self._report({"type": "stage", "stage": stage.value})

    def end(self) -> None:
        self.spent = Spent(**self.so_far())
        self._before = Spent()

    def so_far(self) -> dict[str, Any]:
        """What all stages took, with the present one up to now and what earlier attempts had done of it."""
        stage, before, spent = self._stage.value, self._before, copy.deepcopy(self.spent)
        seconds = before.seconds.get(stage, 0.0) + time.monotonic() - self._stage_began
        spent.seconds[stage] = round(seconds, 3)
        spent.peak_bytes[stage] = max(before.peak_bytes.get(stage, 0), self._peaks.resident())
        if (allocated := self._peaks.allocated()) is not None:
            most = max(before.peak_device_bytes.get(stage, 0), allocated)
            spent.peak_device_bytes[stage] = most
        return asdict(spent)

    def take_up(self, spent: dict[str, Any]) -> None:
        """Add what an earlier attempt spent on what is not done again."""
        self._before = Spent(**spent)
        self.spent = Spent(**{kind: _without(values, self._stage) for kind, values in spent.items()})

    def say_all(self, messages: Said) -> None:
        for said in messages:
            self.say(said)

    def say(self, said: Message) -> None:
        if said["type"] != "progress":
            self._report(said)
            return
        now = time.monotonic()
        if now - self._told < PROGRESS_SECONDS and said["fraction"] > 0:
            return
        self._told = now
        fraction = min(self._from + self._share * said["fraction"], 1.0)
        message = said | {"fraction": round(fraction, 4)}
        self._first = fraction if self._first is None else self._first
        if fraction - self._first > 0.02:
            left = (1 - fraction) / (fraction - self._first)
            message["eta_seconds"] = round((now - self._began) * left, 1)
        self._report(message)


def _without(values: dict[str, Any], stage: Stage) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != stage.value}
