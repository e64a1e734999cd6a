"""Spatial SVD with greedy selection (AIMET's package): k x 1 then 1 x k, ranks from measured accuracies.

Its documented rule: for every layer alone, nine shares of its MACs are tried and the network's score on
images is measured; every layer then goes as far as one common score allows. The score is the top-1 accuracy
on 256 of the calibration images, as in AIMET's own examples. Scores are measured once and serve all budgets.
"""

import copy
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import torch
from aimet_torch.common.comp_ratio_rounder import RankRounder
from aimet_torch.common.comp_ratio_select import GreedyCompRatioSelectAlgo
from aimet_torch.common.cost_calculator import SpatialSvdCostCalculator
from aimet_torch.common.defs import CostMetric
from aimet_torch.layer_database import LayerDatabase
from aimet_torch.layer_selector import ConvNoDepthwiseLayerSelector
from aimet_torch.svd.svd_pruner import SpatialSvdPruner
from torch import nn

from benchmarks.peers.task import PeerTask

CANDIDATES = 10  # AIMET's own default
SCORED = 256  # images of each of the 9 evaluations per layer: ResNet-56 has 55 layers
TOLERANCE = Decimal("0.001")  # of its bisection: a budget is aimed at from below by this much


class Greedy(GreedyCompRatioSelectAlgo):  # type: ignore[misc]
    """AIMET's selection, with the scores kept in memory instead of in its pickle."""

    def _pickle_eval_scores_dict(self, eval_scores_dict: Any) -> None:
        self.scores = copy.deepcopy(eval_scores_dict)

    def _construct_eval_dict(self) -> Any:
        if not hasattr(self, "scores"):
            super()._construct_eval_dict()
        return copy.deepcopy(self.scores)

    def aim(self, share: Decimal) -> None:
        self._target_comp_ratio = share


def compress(task: PeerTask) -> Iterator[tuple[float, nn.Module]]:
    """One network for each budget of the task."""
    layers = LayerDatabase(copy.deepcopy(task.original), task.example)
    ConvNoDepthwiseLayerSelector().select(layers, [])
    pruner = SpatialSvdPruner()
    greedy = _greedy(task, layers, pruner)
    for cut in task.cuts:
        greedy.aim(Decimal(1) - Decimal(str(cut)) - TOLERANCE)
        pairs, _ = greedy.select_per_layer_comp_ratios()
        yield cut, pruner.prune_model(layers, pairs, CostMetric.mac, trainer=None).model.eval()


def _greedy(task: PeerTask, layers: LayerDatabase, pruner: SpatialSvdPruner) -> Greedy:
    def score(model: nn.Module, *_: object, **__: object) -> float:
        with torch.no_grad():
            answers = torch.cat([model(x).argmax(1) for x in task.images[:SCORED].split(128)])
        return float((answers == task.labels[:SCORED]).double().mean())

    costs = SpatialSvdCostCalculator()
    return Greedy(
        layers,
        pruner,
        costs,
        score,
        None,
        CostMetric.mac,
        Decimal("0.5"),
        CANDIDATES,
        True,
        None,
        RankRounder(1, costs),
        False,
        bokeh_session=None,
    )
