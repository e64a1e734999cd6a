"""Recover accuracy: learn the mixing (the paper), or everything, from labels or from the original."""

from basisconv.finetune.data import TrainingData
from basisconv.finetune.held_back import Judgement, hold_back
from basisconv.finetune.loop import Finetune, FinetuneConfig, finetune
from basisconv.finetune.recover import Item, Judged, Recovery, StopWhen, Trying
from basisconv.finetune.steps import Step
from basisconv.finetune.trials import Trial

__all__ = [
    "Finetune",
    "FinetuneConfig",
    "Item",
    "Judged",
    "Judgement",
    "Recovery",
    "Step",
    "StopWhen",
    "TrainingData",
    "Trial",
    "Trying",
    "finetune",
    "hold_back",
]
