"""One recipe for every network: distillation from the original, AdamW, images mirrored and cropped from the
second epoch on.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from basisconv.finetune import FinetuneConfig, Step, TrainingData, finetune
from basisconv.finetune.losses import Objective


@dataclass(frozen=True)
class Recipe:
    """`images`: the first so many train images, None for all; `learning_rate`: the peak; None: the
    library's own rule, the same for every network: 1e-3, less where the first losses are small."""

    images: int | None
    epochs: int = 1
    batch: int = 128
    learning_rate: float | None = None
    objective: Objective = "distill"

    def config(self, seed: int) -> FinetuneConfig:
        return FinetuneConfig(
            epochs=self.epochs,
            update="all",
            objective=self.objective,
            batch_size=self.batch,
            learning_rate=self.learning_rate,
            augment="flip_crop",
            seed=seed,
        )


def tuned(
    network: nn.Module,
    original: nn.Module,
    data: TrainingData,
    recipe: Recipe,
    seed: int,
    device: str,
    report: Callable[[Step], None] = lambda _: None,
) -> nn.Module:
    """A tuned copy of `network`, on the CPU: the last step's weights, nothing chosen on any images."""
    student = copy.deepcopy(network).to(device)
    teacher = copy.deepcopy(original).to(device)
    for step in finetune(student, teacher, data, recipe.config(seed)):
        report(step)
    return student.cpu().eval()
