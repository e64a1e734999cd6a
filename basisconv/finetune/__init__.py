"""Recover accuracy: learn the mixing (the paper), or everything, from labels or from the original."""

from basisconv.finetune.data import TrainingData
from basisconv.finetune.loop import Finetune, FinetuneConfig, Step, finetune

__all__ = ["Finetune", "FinetuneConfig", "Step", "TrainingData", "finetune"]
