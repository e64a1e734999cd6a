"""Training from scratch in compressed form: fixed random filters, learned mixing (arXiv 1906.04509)."""

from basisconv.scratch.config import ScratchConfig
from basisconv.scratch.initialise import unit_variance_
from basisconv.scratch.restructure import check, randomize_
from basisconv.scratch.train import ScratchTraining, TrainConfig

__all__ = ["ScratchConfig", "ScratchTraining", "TrainConfig", "check", "randomize_", "unit_variance_"]
