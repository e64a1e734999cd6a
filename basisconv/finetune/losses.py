"""What fine-tuning minimises."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from basisconv.errors import InvalidRequest
from basisconv.outputs import is_classifier, logits

Objective = Literal["labels", "distill", "both"]
TEMPERATURE = 4.0  # Hinton et al. 2015; softens the original's answers
LABEL_SHARE = 0.1  # of the objective "both"; labels added nothing measurable beside distillation


def distillation(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """T^2 KL(teacher || student) at T = 4 for classifiers; for other outputs the relative squared error."""
    if is_classifier(teacher):
        wanted = F.log_softmax(logits(teacher[0].float()) / TEMPERATURE, 1)
        found = F.log_softmax(logits(student[0].float()) / TEMPERATURE, 1)
        return F.kl_div(found, wanted, reduction="batchmean", log_target=True) * TEMPERATURE**2
    parts = [
        (y_hat.float() - y.float()).square().mean() / y.float().square().mean().clamp_min(1e-12)
        for y_hat, y in zip(student, teacher, strict=True)
    ]
    return torch.stack(parts).mean()


def label_loss(student: Sequence[Tensor], labels: Tensor | None) -> Tensor:
    """Cross-entropy; outputs that are probabilities already are taken by their logarithm."""
    if labels is None or not is_classifier(student):
        raise InvalidRequest(
            "the objective needs labels and a classifier", hint="Use the objective distill: it needs neither."
        )
    return F.cross_entropy(logits(student[0].float()), labels)


def objective_loss(
    objective: Objective, student: Sequence[Tensor], teacher: Sequence[Tensor] | None, labels: Tensor | None
) -> Tensor:
    """The objective's loss; "both" is 0.9 distillation + 0.1 cross-entropy."""
    if objective == "labels":
        return label_loss(student, labels)
    if teacher is None:
        raise InvalidRequest(f"the objective {objective} needs the original network beside the student")
    if objective == "distill":
        return distillation(student, teacher)
    return (1 - LABEL_SHARE) * distillation(student, teacher) + LABEL_SHARE * label_loss(student, labels)
