"""AIMET's greedy selection for spatial SVD: every layer at nine shares of its MACs, each one evaluated.

Measured on some layers, spread evenly over the network, and some of the shares, and scaled by their number.
The decomposition of the whole network that follows is not counted. Runs in the peers' environment.
"""

from decimal import Decimal

import torch
from aimet_torch.common.defs import CostMetric, LayerCompRatioPair
from aimet_torch.layer_database import LayerDatabase
from aimet_torch.layer_selector import ConvNoDepthwiseLayerSelector
from aimet_torch.svd.svd_pruner import SpatialSvdPruner

from benchmarks.networks.resnet50 import resnet50
from benchmarks.speed.setting import answer, asked
from benchmarks.speed.stages import Stages

SHARES = 9  # 0.1 to 0.9: AIMET's default


def main() -> None:
    setting = asked()
    pictures = setting.pictures()
    layers = LayerDatabase(resnet50(setting.base), pictures[:1])
    ConvNoDepthwiseLayerSelector().select(layers, [])
    selected = layers.get_selected_layers()
    tried = selected[:: max(1, len(selected) // setting.layers)][: setting.layers]
    shares = [Decimal(i) / 10 for i in range(1, 10, max(1, SHARES // setting.candidates))]
    shares = shares[: setting.candidates]
    stages = Stages()
    stages.begin(f"{len(tried)} of {len(selected)} layers x {len(shares)} of {SHARES} shares")
    for layer in tried:
        for share in shares:
            pair = LayerCompRatioPair(layer, share)
            pruned = SpatialSvdPruner().prune_model(layers, [pair], CostMetric.mac, trainer=None)
            with torch.no_grad():
                for batch in pictures.split(setting.batch):
                    pruned.model(batch)
    stages.end()
    factor = len(selected) * SHARES / (len(tried) * len(shares))
    answer({"stages": stages.found, "scaled_by": factor})


if __name__ == "__main__":
    main()
