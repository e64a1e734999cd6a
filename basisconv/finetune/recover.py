"""Fine-tuning that judges itself on held-back images: what to try, which network to keep, when to stop.

untuned -> batch norms re-estimated, if closer -> trials of learning rates -> epochs, each judged -> the best
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from basisconv.errors import MethodError
from basisconv.finetune.data import TrainingData
from basisconv.finetune.held_back import Judge, Judgement
from basisconv.finetune.loop import BatchNorm, Finetune, FinetuneConfig, asks_both_sides, default_rate
from basisconv.finetune.norms import batch_norms, reestimate_
from basisconv.finetune.steps import State, Step, part, restore_, saved
from basisconv.finetune.trials import RATES, Trial, best, next_rate, trial_steps

Stopped = Literal["accuracy_drop", "patience"]
FORWARD_SHARE = 1 / 4  # of a training step's work is a forward pass: the student's, the original's, two back
NORM_BATCHES = 8  # for the batch norms' statistics: 1024 images as a rule


@dataclass(frozen=True)
class StopWhen:
    """After an epoch, and only then. `accuracy_drop`: when the best network so far has lost no more of the
    original's accuracy on the held-back images (without labels: when its top-1 differs on no larger a share
    of them). The original answers nearly all images right that it was trained on, so on those this is
    stricter than on new ones. `patience`: after so many epochs in a row that brought nothing better.
    """

    accuracy_drop: float | None = None
    patience: int | None = None


@dataclass(frozen=True)
class Judged:
    """The network after `epoch` epochs and `step` steps, 0 for the untuned; `best`: of all so far."""

    epoch: int
    step: int
    judgement: Judgement
    best: bool


@dataclass(frozen=True)
class Trying:
    """A step of a trial, whose network is thrown away: told so that a caller can stop in the middle."""

    step: int
    steps: int


Item = Trying | Trial | Step | Judged


class Recovery:
    """An iterator over Trials with their steps (before the first real one), Steps and Judgements.

    It trains `student` in place.

    At its end the student is the network that was closest to the original on the held-back images, which
    may be the untuned one: nothing gets worse by their measure. Without held-back images it is the last.
    `state_dict()` after any item, given to `resume()` of a run with the same arguments, continues to the
    same bits on the CPU; a trial that was under way is begun again.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | None,
        data: TrainingData,
        held_back: TrainingData | None,
        config: FinetuneConfig,
        stop: StopWhen = StopWhen(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._student, self._teacher, self._data = student, teacher, data
        self._config, self._stop, self._clock = config, stop, clock
        self._device = next(student.parameters()).device
        first = self._finetune(config)  # refuses what cannot be served
        self.steps, self.per_epoch = first.steps, first.steps // max(config.epochs, 1)
        self._judge: Judge | None = None
        if held_back is not None and len(held_back):
            size, both_sides = first.batch_size, asks_both_sides(config, data)
            self._judge = Judge(teacher, held_back, config.objective, size, self._device, both_sides)
        self.judged: list[Judged] = []
        self.trials: list[Trial] = []
        self.stopped: Stopped | None = None
        self.norms_reestimated = False
        self._best: State = {}
        self._run: Finetune | None = None
        self._items = self._go()

    @property
    def held_back(self) -> int:
        """How many images judge."""
        return 0 if self._judge is None else len(self._judge)

    @property
    def epochs_done(self) -> int:
        return self._run.done // self.per_epoch if self._run else 0

    @property
    def learning_rate(self) -> float | None:
        """The peak; None before it is known."""
        return self._run.peak if self._run else self._chosen().learning_rate

    @property
    def batch_norm(self) -> BatchNorm:
        return self._chosen().batch_norm

    @property
    def kept(self) -> Judged | None:
        """The best so far; None without held-back images."""
        return next((j for j in reversed(self.judged) if j.best), None)

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        return next(self._items)

    def _go(self) -> Iterator[Item]:
        """Reads all that has happened from the fields, so that it can start anywhere."""
        if self._judge is not None and not self.judged:
            yield self._judge_untuned(self._judge)
        yield from self._try()
        self._run = self._run or self._finetune(self._chosen())
        while not self.stopped:
            done = self._run.done
            epoch = done // self.per_epoch
            if self._judge is not None and done == epoch * self.per_epoch and epoch > self.judged[-1].epoch:
                judged = self._note(epoch, done, self._judge(self._student))
                self.stopped = self._reason() if epoch < self._config.epochs else None
                yield judged
                continue
            step = next(self._run, None)
            if step is None:
                break
            yield step
        self._run.finish()
        if self._best:
            self._student.load_state_dict(self._best)

    def _finetune(self, config: FinetuneConfig, steps: int | None = None) -> Finetune:
        return Finetune(self._student, self._teacher, self._data, config, self._clock, steps)

    def _note(self, epoch: int, step: int, judgement: Judgement) -> Judged:
        kept = self.kept
        better = kept is None or judgement.loss < kept.judgement.loss
        if better:
            self._best = _copy(self._student)
        self.judged.append(Judged(epoch, step, judgement, better))
        return self.judged[-1]

    def _judge_untuned(self, judge: Judge) -> Judged:
        """As it is, and with its batch norms' statistics measured anew: the closer one is the start."""
        found, start = judge(self._student), _copy(self._student)
        if batch_norms(self._student) and self._batch > 1:
            reestimate_(self._student, self._norm_batches())
            again = judge(self._student)
            if again.loss < found.loss:
                found, self.norms_reestimated = again, True
            else:
                self._student.load_state_dict(start)
        return self._note(0, 0, found)

    @property
    def _batch(self) -> int:
        return min(self._config.batch_size, len(self._data))

    def _norm_batches(self) -> Iterator[Tensor]:
        rows = torch.arange(len(self._data))[:: max(1, len(self._data) // (NORM_BATCHES * self._batch))]
        for chunk in rows.split(self._batch)[:NORM_BATCHES]:
            if len(chunk) == self._batch:
                yield self._data.batch(chunk, self._device)[0]

    def _try(self) -> Iterator[Trying | Trial]:
        """Trials, until enough is known; each starts from the untuned network and leaves it as it was."""
        if self._judge is None or self._run is not None or self._config.learning_rate is not None:
            return
        untuned = self.judged[0].judgement.loss
        looks = 2 if self._config.objective == "distill" and self._classifies else 1  # boxed images too
        cost = FORWARD_SHARE * looks * len(self._judge) / self._batch
        default = default_rate(self._config, untuned, classifies=self._classifies)
        if length := trial_steps(self.steps, cost, RATES):
            while (rate := next_rate(default, self.trials)) is not None:
                yield from self._trial(self._judge, replace(self._config, learning_rate=rate), length)
        if batch_norms(self._student) and trial_steps(self.steps, cost, RATES + 1) and self._follows_untried:
            wanted = replace(self._chosen(), batch_norm="follow")
            yield from self._trial(self._judge, wanted, length)

    @property
    def _classifies(self) -> bool:
        return self.judged[0].judgement.disagreement is not None

    @property
    def _follows_untried(self) -> bool:
        return self._batch > 1 and all(trial.batch_norm == "keep" for trial in self.trials)

    def _trial(self, judge: Judge, config: FinetuneConfig, length: int) -> Iterator[Trying | Trial]:
        assert config.learning_rate is not None
        run = self._finetune(config, length)
        try:
            for step in run:
                yield Trying(step.step, length)
            loss = judge(self._student).loss
        except MethodError:  # the loss stopped being a number
            loss = math.inf
        run.finish()
        self._student.load_state_dict(self._best)
        self.trials.append(Trial(config.learning_rate, config.batch_norm, loss))
        yield self.trials[-1]

    def _chosen(self) -> FinetuneConfig:
        """The request, completed by what the trials found."""
        if self.trials:
            found = best(self.trials)
            return replace(self._config, learning_rate=found.learning_rate, batch_norm=found.batch_norm)
        return self._config

    def _reason(self) -> Stopped | None:
        """Why to stop after the epoch just judged, by the network that would be kept."""
        wanted, kept = self._stop, self.kept
        assert kept is not None
        found = kept.judgement
        lost = found.disagreement if found.accuracy_drop is None else found.accuracy_drop
        if wanted.accuracy_drop is not None and lost is not None and lost <= wanted.accuracy_drop:
            return "accuracy_drop"
        if wanted.patience is not None and self.judged[-1].epoch - kept.epoch >= wanted.patience:
            return "patience"
        return None

    def state_dict(self) -> State:
        """Everything a resumed run needs, as copies on the CPU; a flat dict for safetensors."""
        if self._run:
            run = self._run.state_dict()
        else:  # in the middle of a trial the student is its network, not ours
            run = {f"network.{k}": v for k, v in (self._best or _copy(self._student)).items()}
        state = {f"run.{name}": value for name, value in run.items()}
        state |= {f"best.{name}": value for name, value in self._best.items()}
        state["judged"] = torch.tensor([_row(judged) for judged in self.judged], dtype=torch.float64)
        rows = [(t.learning_rate, float(t.batch_norm == "follow"), t.loss) for t in self.trials]
        state["trials"] = torch.tensor(rows, dtype=torch.float64)
        state["norms_reestimated"] = torch.tensor(self.norms_reestimated)
        return saved(state)

    def resume(self, state: State) -> None:
        """Continue after the item at which state_dict() was taken.

        Raises InvalidRequest for a state of another network.
        """
        run, self._best = part(state, "run."), part(state, "best.")
        restore_(self._student, part(run, "network."))
        self.judged = [_judged(row) for row in state["judged"].tolist()]
        self.trials = [
            Trial(rate, "follow" if f else "keep", loss) for rate, f, loss in state["trials"].tolist()
        ]
        self.norms_reestimated = bool(state["norms_reestimated"])
        if "done" in run:
            self._run = self._finetune(self._chosen())
            self._run.resume(run)
        last = self.judged[-1] if self.judged else None
        if last is not None and 0 < last.epoch < self._config.epochs:
            self.stopped = self._reason()
        self._items = self._go()


def _copy(network: nn.Module) -> State:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def _row(judged: Judged) -> tuple[float, ...]:
    found = judged.judgement
    shares = (math.nan if v is None else v for v in (found.disagreement, found.accuracy_drop))
    return (judged.epoch, judged.step, judged.best, found.loss, *shares)


def _judged(row: list[float]) -> Judged:
    epoch, step, is_best, loss, *shares = row
    disagreement, drop = (None if math.isnan(share) else share for share in shares)
    return Judged(int(epoch), int(step), Judgement(loss, disagreement, drop), bool(is_best))
