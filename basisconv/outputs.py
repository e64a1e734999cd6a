"""What a network answers: one tensor or several, logits or probabilities or anything else."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

_SMALLEST = 1e-7  # probability: below it a softmax output's logarithm is rounding noise


def output_tensors(outputs: Any) -> tuple[Tensor, ...]:
    """The floating-point tensors among a forward pass' results, however tuples, lists and dicts nest them."""
    return tuple(z for z in _leaves(outputs) if isinstance(z, Tensor) and z.is_floating_point())


def _leaves(outputs: Any) -> Iterator[Any]:
    if isinstance(outputs, Mapping):
        outputs = tuple(outputs.values())
    if isinstance(outputs, tuple | list):
        for part in outputs:
            yield from _leaves(part)
    else:
        yield outputs


def widened(values: Tensor) -> Tensor:
    """Half precision as float32, in which sums of products neither overflow nor lose all digits."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def is_classifier(outputs: Sequence[Tensor]) -> bool:
    """One output of N x K scores, K >= 2 (N x K x 1 x 1 counts)."""
    return len(outputs) == 1 and outputs[0].dim() >= 2 and outputs[0].shape[1] == outputs[0][0].numel() > 1


def logits(scores: Tensor) -> Tensor:
    """Scores N x K before the softmax: outputs that are probabilities already are taken back to logs."""
    scores = scores.flatten(1)
    with torch.no_grad():
        likely = bool((scores >= 0).all() and ((scores.sum(1) - 1).abs() < 1e-3).all())
    return scores.clamp_min(_SMALLEST).log() if likely else scores


def responses(outputs: Sequence[Tensor]) -> list[Tensor]:
    """Outputs in the form in which errors are compared: a classifier's logits up to a constant per image."""
    outputs = [widened(z) for z in outputs]
    if not is_classifier(outputs):
        return outputs
    z = logits(outputs[0])
    return [z - z.mean(1, keepdim=True)]
