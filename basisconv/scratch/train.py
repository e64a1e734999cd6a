"""Learning from labels, from the first weights on.

Apart from fine-tuning because nearly every choice is another: batch norms learn their statistics, steps
are large, and there is no original to agree with.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from basisconv.errors import InvalidRequest
from basisconv.finetune.data import Augment, TrainingData
from basisconv.finetune.loop import choose_learnable_
from basisconv.finetune.losses import label_loss
from basisconv.finetune.steps import (
    State,
    Step,
    decayed_groups,
    descend_,
    draws,
    finite,
    part,
    precision,
    restore_,
    saved,
    schedule,
    seeded,
)
from basisconv.outputs import output_tensors

LEARNING_RATE = 0.1  # at batches of 128; in proportion for others
USUAL_BATCH = 128
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4  # on weights with two or more dimensions


@dataclass(frozen=True)
class TrainConfig:
    """`learning_rate`: the peak; None: 0.1 per 128 images of a batch."""

    epochs: int = 30
    batch_size: int = 128
    learning_rate: float | None = None
    augment: Augment = "flip_crop"
    seed: int = 0


class ScratchTraining:
    """An iterator over Steps that trains `module` in place: SGD with Nesterov momentum, cross-entropy.

    Linear warm-up, then a cosine to 0. Fixed filters stay as they are; all else learns, batch norms with
    their statistics. The last, incomplete batch of an epoch is left out. `state_dict()` after any step,
    loaded by `resume()` into a run with the same arguments, continues to bit-identical weights on the CPU
    (at the same number of threads). The module is in train mode while it runs and in eval mode afterwards.

    Raises InvalidRequest for data without labels, a network that is no classifier, or batches of one image
    for batch norms, and MethodError when the loss stops being finite.
    """

    def __init__(
        self,
        module: nn.Module,
        data: TrainingData,
        config: TrainConfig,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        _check(module, data, config)
        self._module, self._data, self._config, self._clock = module, data, config, clock
        self._device = next(module.parameters()).device
        self._batch = min(config.batch_size, len(data))
        self._per_epoch = len(data) // self._batch
        self._steps = config.epochs * self._per_epoch
        self._done = 0
        self._peak = config.learning_rate or LEARNING_RATE * self._batch / USUAL_BATCH
        self._learning = choose_learnable_(module, "mixing")
        groups = decayed_groups(self._learning.values(), WEIGHT_DECAY)
        self._optimizer = torch.optim.SGD(groups, lr=self._peak, momentum=MOMENTUM, nesterov=True)
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a quarter faster on CPUs too

    @property
    def steps(self) -> int:
        return self._steps

    @property
    def learning(self) -> dict[str, nn.Parameter]:
        """What learns, by name."""
        return self._learning

    def __iter__(self) -> Iterator[Step]:
        return self

    def __next__(self) -> Step:
        if self._done >= self._steps:
            self._module.eval()
            raise StopIteration
        started = self._clock()
        loss, rate = self._step()
        self._done += 1
        speed = self._batch / max(self._clock() - started, 1e-9)
        epoch = (self._done - 1) // self._per_epoch + 1
        return Step(epoch, self._config.epochs, self._done, self._steps, loss, rate, speed)

    def _step(self) -> tuple[float, float]:
        rate = self._peak * schedule(self._done, self._steps)
        loss = self._loss()
        value = finite(loss, self._done + 1, self._steps, self._peak)
        descend_(self._optimizer, loss, rate)
        return value, rate

    def _loss(self) -> Tensor:
        draw = draws(self._config.seed, self._done)
        images, labels = self._data.batch(self._rows(), self._device, self._config.augment, draw)
        images = images.contiguous(memory_format=torch.channels_last)
        self._module.train()
        with precision(self._device), seeded(self._config.seed, self._done, self._device):
            outputs = output_tensors(self._module(images))
        return label_loss(outputs, labels)

    def _rows(self) -> Tensor:
        epoch, at = divmod(self._done, self._per_epoch)
        order = torch.randperm(len(self._data), generator=draws(self._config.seed, -1 - epoch))
        return order[at * self._batch : (at + 1) * self._batch]

    def state_dict(self) -> State:
        """Everything a resumed run needs, as copies on the CPU: a flat dict, for safetensors."""
        state = {f"network.{name}": value for name, value in self._module.state_dict().items()}
        for name, parameter in self._learning.items():
            momentum = self._optimizer.state.get(parameter, {}).get("momentum_buffer")
            if momentum is not None:
                state[f"momentum.{name}"] = momentum
        state["done"] = torch.tensor(self._done)
        return saved(state)

    def resume(self, state: State) -> None:
        """Continue after the step at which state_dict() was taken.

        Raises InvalidRequest for a state of another network.
        """
        restore_(self._module, part(state, "network."))
        for name, parameter in self._learning.items():
            if f"momentum.{name}" in state:
                buffer = state[f"momentum.{name}"].clone().to(parameter)
                self._optimizer.state[parameter] = {"momentum_buffer": buffer}
        self._done = int(state["done"])


def _check(module: nn.Module, data: TrainingData, config: TrainConfig) -> None:
    if len(data) == 0:
        raise InvalidRequest("there are no training images")
    if data.labels is None:
        raise InvalidRequest("training from scratch needs labels")
    if config.epochs < 1:
        raise InvalidRequest(f"training from scratch needs at least 1 epoch, got {config.epochs}")
    norms = any(isinstance(child, nn.modules.batchnorm._BatchNorm) for child in module.modules())  # noqa: SLF001
    if norms and min(config.batch_size, len(data)) < 2:
        raise InvalidRequest(
            "batch norms cannot learn from batches of one image",
            hint="Export the network with a dynamic batch size, or a fixed one above 1.",
        )
