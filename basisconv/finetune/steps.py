"""What every kind of training shares: the report of a step, its rate and randomness, and what is saved.

All randomness of a step follows from (seed, epoch, step), so a resumed run needs no generator's state.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn

from basisconv.errors import InvalidRequest, MethodError

WARM_UP = 0.05  # share of all steps
LISTEN = 0.1  # share of all steps, at most
LISTEN_MOST = 10  # of them
USUAL_SIZE = 0.1  # root mean square of a CIFAR ResNet's weights, for which the usual rates were found
State = dict[str, Tensor]


@dataclass(frozen=True)
class Step:
    """One optimiser step. `epoch` and `step` count from 1, `step` over all epochs; `loss` of its batch."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    learning_rate: float
    images_per_second: float


def listening(steps: int) -> int:
    """How many steps at the start only fill Adam's averages, at a rate of 0.

    Without them its first steps are of full size in every weight, whatever the images say of it, and in a
    network that is nearly right already it takes dozens of steps to repair that.
    """
    return min(LISTEN_MOST, int(LISTEN * steps))


def schedule(done: int, steps: int, listen: int = 0) -> float:
    """0 for `listen` steps, linear warm-up over 5 % of the others, then a cosine down to 0."""
    if done < listen:
        return 0.0
    done, steps = done - listen, steps - listen
    warm = max(1, round(WARM_UP * steps))
    if done < warm:
        return (done + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (done - warm) / max(1, steps - warm)))


def decayed_groups(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """An optimiser's groups: weights with two or more dimensions decay, the others do not."""
    found = list(parameters)
    groups: list[dict[str, Any]] = [
        {"params": [p for p in found if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in found if p.dim() < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def sizes(parameters: dict[str, nn.Parameter]) -> dict[str, float]:
    """How large each tensor's steps are to be, by its own size: 1 for weights of root mean square 0.1.

    Adam's steps are of one size whatever the weights are: a basis of 1/24 per weight would be shaken by what
    hardly moves a mixing of 1. Rounded to powers of two, so that few groups remain; 1 for vectors and zeros.
    """
    return {name: _size(parameter) if parameter.dim() >= 2 else 1.0 for name, parameter in parameters.items()}


def _size(weight: nn.Parameter) -> float:
    rms = float(weight.detach().double().square().mean().sqrt())
    return 2.0 ** round(math.log2(rms / USUAL_SIZE)) if 0 < rms < math.inf else 1.0


def sized_groups(
    parameters: dict[str, nn.Parameter], size_of: dict[str, float], weight_decay: float
) -> list[dict[str, Any]]:
    """decayed_groups, apart by the size of their steps: `descend_` multiplies the rate by it."""
    groups: list[dict[str, Any]] = []
    for size in sorted(set(size_of.values())):
        alike = [parameter for name, parameter in parameters.items() if size_of[name] == size]
        groups += [group | {"size": size} for group in decayed_groups(alike, weight_decay)]
    return groups


def finite(loss: Tensor, step: int, steps: int, rate: float) -> float:
    """The loss of the step (counted from 1) as a number. Raises MethodError when it is none."""
    value = float(loss.detach())
    if not math.isfinite(value):
        raise MethodError(
            "internal",
            f"The loss became {value} at step {step} of {steps}.",
            hint=f"Use a learning rate below {rate:g}.",
        )
    return value


def descend_(optimizer: torch.optim.Optimizer, loss: Tensor, rate: float) -> None:
    """One step down the loss at this rate, times the size of each group that has one."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("size", 1.0)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def precision(device: torch.device) -> AbstractContextManager[object]:
    """bfloat16 where it is fast; float32 on the CPU, where a run must be repeatable to the bit."""
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()


def draws(seed: int, step: int) -> Generator:
    """A generator of its own for each step (>= 0) and epoch (< 0)."""
    return Generator().manual_seed((seed * 1_000_003 + step) % (1 << 63))


@contextmanager
def seeded(seed: int, step: int, device: torch.device) -> Iterator[None]:
    """Dropout draws from torch's global generator: seed it for the step and put it back afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed * 1_000_003 + step)
        yield


def saved(state: State) -> State:
    """Copies on the CPU, for safetensors."""
    return {name: value.detach().cpu().clone().contiguous() for name, value in state.items()}


def part(state: State, prefix: str) -> State:
    """What stands under the prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def restore_(module: nn.Module, network: State) -> None:
    """Load saved weights. Raises InvalidRequest for those of another network."""
    if network.keys() != module.state_dict().keys():
        raise InvalidRequest("the saved state belongs to a network of another structure")
    module.load_state_dict(network)
