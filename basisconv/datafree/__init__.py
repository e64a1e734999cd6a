"""Calibration without images: noise, and noise fitted to what a network's batch norms remember."""

from basisconv.datafree.config import SynthesisConfig, Synthetic
from basisconv.datafree.noise import Pixels, natural_noise
from basisconv.datafree.synthesize import synthesize

__all__ = ["Pixels", "SynthesisConfig", "Synthetic", "natural_noise", "synthesize"]
