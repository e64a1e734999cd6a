"""The training loop: one object that yields a report per step and can be stopped and resumed anywhere."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from basisconv.cost import evaluating
from basisconv.errors import InvalidRequest
from basisconv.finetune.data import Augment, TrainingData
from basisconv.finetune.losses import Objective, objective_loss
from basisconv.finetune.norms import batch_norms
from basisconv.finetune.original import Original
from basisconv.finetune.steps import (
    State,
    Step,
    descend_,
    draws,
    finite,
    listening,
    part,
    precision,
    restore_,
    saved,
    schedule,
    seeded,
    sized_groups,
    sizes,
)
from basisconv.nn import Factorized
from basisconv.outputs import is_classifier, output_tensors

# Distillation loss below which steps shrink with it: what is nearly right stands in a narrow valley.
# ResNet-20, 39 steps, on held-back images: at 70 % of its operations 0.102 -> 0.108 at 1e-4, 0.101 at 2e-5;
# at 50 % 0.593 -> 0.621 at 3e-4, 0.561 at 1e-4. (Measured before the first steps only listened.)
NEAR = 3.0
LEARNING_RATES = {"all": 1e-3, "mixing": 2e-3}  # AdamW; fewer weights bear larger steps
BatchNorm = Literal["keep", "follow"]
WEIGHT_DECAY = 1e-4  # on weights with two or more dimensions


@dataclass(frozen=True)
class FinetuneConfig:
    """`update`: "mixing" leaves the basis filters as they are (the paper's way), "all" trains everything.

    `augment`: with "flip_crop" and labels the original is also asked about both sides of each image.
    `learning_rate`: the peak, for weights of root mean square 0.1; others' steps are in proportion to theirs.
    None: 1e-3 for all, 2e-3 for mixing, and less in proportion to the first losses where a classifier that is
    distilled agrees with the original from the start: large steps only shake it.
    `batch_norm`: "keep" the statistics, to which the layers were fitted, or "follow" each batch's, as from
    scratch.
    """

    epochs: int = 1
    update: Literal["mixing", "all"] = "all"
    objective: Objective = "distill"
    batch_size: int = 128
    learning_rate: float | None = None
    augment: Augment = "flip_crop"
    seed: int = 0
    batch_norm: BatchNorm = "keep"


class Finetune:
    """An iterator over Steps that trains `student` in place.

    `state_dict()` after any step, loaded by `resume()` into a run with the same arguments, continues to
    bit-identical weights on the CPU (at the same number of threads). The state is a flat dict of tensors,
    for safetensors. The student is in train mode while it runs and in eval mode afterwards.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | None,
        data: TrainingData,
        config: FinetuneConfig,
        clock: Callable[[], float] = time.monotonic,
        steps: int | None = None,
    ) -> None:
        _check(teacher, data, config)
        self._student, self._teacher, self._data, self._config = student, teacher, data, config
        self._clock = clock
        self._original = Original(teacher, asks_both_sides(config, data))
        self._device = next(student.parameters()).device
        self._batch = min(config.batch_size, len(data))
        self._per_epoch = len(data) // self._batch
        self._steps = config.epochs * self._per_epoch if steps is None else steps
        self._done = 0
        self._learning = choose_learnable_(student, config.update)
        self._listen = listening(self._steps)
        self._losses = 0.0  # sum over the steps that only listen
        self._peak = config.learning_rate  # None until those are over
        self._sizes = sizes(self._learning)
        self._optimizer = self._new_optimizer()
        self._order: tuple[int, Tensor] | None = None
        self._classifies = False
        self._channels_last: bool | None = None  # None until both networks have been tried
        self._boxes: bool | None = None
        student.eval()  # until the first step sets each part's own mode

    @property
    def steps(self) -> int:
        return self._steps

    @property
    def done(self) -> int:
        """The steps that have been taken."""
        return self._done

    @property
    def peak(self) -> float | None:
        """The highest learning rate; None before the first losses tell it."""
        return self._peak

    @property
    def batch_size(self) -> int:
        return self._batch

    def __iter__(self) -> Iterator[Step]:
        return self

    def __next__(self) -> Step:
        if self._done >= self._steps:
            self.finish()
            raise StopIteration
        started = self._clock()
        loss, learning_rate = self._step()
        self._done += 1
        seconds = max(self._clock() - started, 1e-9)
        epoch = (self._done - 1) // self._per_epoch + 1
        return Step(
            epoch, self._config.epochs, self._done, self._steps, loss, learning_rate, self._batch / seconds
        )

    def _new_optimizer(self) -> torch.optim.AdamW:
        groups = sized_groups(self._learning, self._sizes, WEIGHT_DECAY)
        return torch.optim.AdamW(groups, lr=LEARNING_RATES[self._config.update])

    def finish(self) -> None:
        """Leave the student as it was found: in eval mode, its weights in torch's usual layout."""
        self._student.eval()
        self._student.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]

    def _step(self) -> tuple[float, float]:
        draw = draws(self._config.seed, self._done)
        rows = self._rows()
        channels_last, boxes = self._takes_channels_last(rows), self._pastes_boxes(rows)
        images, labels = self._data.batch(rows, self._device, self._augment, draw, boxes)
        if channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        loss = self._loss(images, labels)
        most = self._peak or LEARNING_RATES[self._config.update]
        value = finite(loss, self._done + 1, self._steps, most)
        self._losses += value if self._done < max(1, self._listen) else 0.0
        if self._peak is None and self._done >= self._listen - 1:
            loss_before = self._losses / max(1, self._listen)
            self._peak = default_rate(self._config, loss_before, self._classifies)
        learning_rate = (self._peak or 0.0) * schedule(self._done, self._steps, self._listen)
        descend_(self._optimizer, loss, learning_rate)
        return value, learning_rate

    def _loss(self, images: Tensor, labels: Tensor | None) -> Tensor:
        teacher = None
        with precision(self._device):
            if self._teacher is not None and self._config.objective != "labels":
                teacher = self._original(images)
            if not self._student.training:
                train_mode_(self._student, self._config.batch_norm)
            with seeded(self._config.seed, self._done, self._device):
                student = output_tensors(self._student(images))
        self._classifies = is_classifier(student)
        return objective_loss(self._config.objective, student, teacher, labels)

    def _pastes_boxes(self, rows: Tensor) -> bool:
        """Where classes are distilled: pictures that the original has not learned by heart.

        On its own training images it is sure of everything; what it answers to them says little of what it
        answers to new ones, and a student that comes closer there comes less close here.
        """
        if self._boxes is None:
            wanted = self._config.objective == "distill" and self._config.augment != "none"
            self._boxes = wanted and self._scores_classes(self._data.batch(rows, self._device)[0])
        return self._boxes

    def _scores_classes(self, images: Tensor) -> bool:
        assert self._teacher is not None
        with evaluating(self._teacher):
            return is_classifier(output_tensors(self._teacher(images)))

    def _takes_channels_last(self, rows: Tensor) -> bool:
        """Whether both networks run in this layout, a quarter faster on a CPU; a `view` in one forbids it."""
        if self._channels_last is None:
            images, _ = self._data.batch(rows, self._device)
            networks = [self._student] if self._teacher is None else [self._student, self._teacher]
            self._channels_last = images.dim() == 4 and all(_runs_channels_last(n, images) for n in networks)
            if self._channels_last:
                self._student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self._channels_last

    @property
    def _augment(self) -> Augment:
        """None in the first epoch: an image that the student has not seen teaches best as it is."""
        return self._config.augment if self._done >= self._per_epoch else "none"

    def _rows(self) -> Tensor:
        epoch, at = divmod(self._done, self._per_epoch)
        if self._order is None or self._order[0] != epoch:
            draw = draws(self._config.seed, -1 - epoch)
            self._order = (epoch, torch.randperm(len(self._data), generator=draw))
        return self._order[1][at * self._batch : (at + 1) * self._batch]

    def state_dict(self) -> State:
        """Everything a resumed run needs, as copies on the CPU."""
        state = {f"network.{name}": value for name, value in self._student.state_dict().items()}
        for name, parameter in self._learning.items():
            for key, value in self._optimizer.state.get(parameter, {}).items():
                state[f"optimizer.{key}.{name}"] = value
        state |= {f"size.{name}": torch.tensor(size) for name, size in self._sizes.items()}
        state["done"] = torch.tensor(self._done)
        state["losses"] = torch.tensor(self._losses, dtype=torch.float64)
        if self._peak is not None:
            state["peak"] = torch.tensor(self._peak, dtype=torch.float64)
        return saved(state)

    state = state_dict

    def resume(self, state: State) -> None:
        """Continue after the step at which state_dict() was taken.

        Raises InvalidRequest for a state of another network.
        """
        restore_(self._student, part(state, "network."))
        # those of the network that the run began with
        self._sizes = {name: float(state.get(f"size.{name}", size)) for name, size in self._sizes.items()}
        self._optimizer = self._new_optimizer()
        for name, parameter in self._learning.items():
            marks = {key: f"optimizer.{key}.{name}" for key in ("step", "exp_avg", "exp_avg_sq")}
            found = {key: state[mark].clone() for key, mark in marks.items() if mark in state}
            # AdamW keeps its step counters on the CPU
            self._optimizer.state[parameter] = {
                key: value if key == "step" else value.to(parameter) for key, value in found.items()
            }
        self._done = int(state["done"])
        self._losses = float(state["losses"])
        if 0 < self._done < self._steps:  # the layout decides the last bits of all that follows
            self._takes_channels_last(self._rows())
        self._peak = float(state["peak"]) if "peak" in state else self._config.learning_rate


def finetune(
    student: nn.Module,
    teacher: nn.Module | None,
    data: TrainingData,
    config: FinetuneConfig,
    clock: Callable[[], float] = time.monotonic,
) -> Finetune:
    """Train `student` in place, a Step per iteration; `teacher`: the original (not needed for labels).

    Both are on the same device; on CUDA the run uses bfloat16 and channels-last. The last, incomplete batch
    of an epoch is left out. Raises InvalidRequest for objectives that the data or the network cannot serve
    and MethodError when the loss stops being finite.
    """
    return Finetune(student, teacher, data, config, clock)


def train_mode_(student: nn.Module, batch_norm: BatchNorm) -> None:
    """Dropout draws; batch norms that "keep" go on with the statistics to which the layers were fitted.

    ResNet-20 at 70 % of its operations, 78 steps at 1e-3: the loss ends at 0.15 instead of 0.34 and accuracy
    at 91.45 instead of 91.20. Batches of a single image, which some files fix, are harmless this way too.
    """
    student.train()
    if batch_norm == "keep":
        for norm in batch_norms(student):
            norm.eval()


def choose_learnable_(student: nn.Module, update: Literal["mixing", "all"]) -> dict[str, nn.Parameter]:
    """Set requires_grad: all, or all but the first factors of the paper's form. Returns what learns."""
    pairs = (child for child in student.modules() if isinstance(child, Factorized) and child.freezes_first)
    frozen = {id(pair.first.weight) for pair in pairs} if update == "mixing" else set()
    for parameter in student.parameters():
        parameter.requires_grad_(id(parameter) not in frozen and parameter.is_floating_point())
    return {name: p for name, p in student.named_parameters() if p.requires_grad}


def default_rate(config: FinetuneConfig, loss: float, classifies: bool) -> float:
    """The peak rate for a network that begins with this loss."""
    peak = LEARNING_RATES[config.update]
    near = classifies and config.objective == "distill"
    return peak * min(1.0, loss / NEAR) if near else peak


def asks_both_sides(config: FinetuneConfig, data: TrainingData) -> bool:
    """Whether the original is asked about mirrored images too: where those may be shown and labels judge."""
    return config.objective != "labels" and config.augment == "flip_crop" and data.labels is not None


def _check(teacher: nn.Module | None, data: TrainingData, config: FinetuneConfig) -> None:
    if len(data) == 0:
        raise InvalidRequest("there are no training images")
    if config.objective != "distill" and data.labels is None:
        raise InvalidRequest(
            f"the objective {config.objective} needs labels", hint="Use the objective distill: it needs none."
        )
    if config.objective != "labels" and teacher is None:
        raise InvalidRequest(f"the objective {config.objective} needs the original network")


def _runs_channels_last(network: nn.Module, images_NCHW: Tensor) -> bool:
    try:
        with evaluating(network):
            network(images_NCHW.contiguous(memory_format=torch.channels_last))
    except RuntimeError:
        return False
    return True
