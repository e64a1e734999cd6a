"""Tucker-2 by HOOI (TensorLy's partial_tucker) of the 3x3 layers, at one rank: half the channels.

One layer per stage is measured and counted as often as the stage has blocks. No ranks are chosen here:
whoever wants to choose among nine per layer, as the greedy peer does, pays nine times as much, and has
looked at no image yet. Runs in the peers' environment.
"""

from benchmarks.networks.resnet50 import STAGES, resnet50
from benchmarks.peers.tucker import tucker2
from benchmarks.speed.setting import answer, asked
from benchmarks.speed.stages import Stages


def main() -> None:
    setting = asked()
    network = resnet50(setting.base)
    stages, blocks = Stages(), []
    for number, (times, count, _) in enumerate(STAGES):
        width = times * setting.base
        conv = network.layers[number][1].conv2  # type: ignore[index, union-attr]
        stages.begin(f"{width} channels, 1 of {count} layers")
        tucker2(conv, (width // 2, width // 2))
        blocks.append(count)
    stages.end()
    answer({"stages": stages.found, "each_scaled_by": blocks, "scaled_by": None, "ranks_to_choose_from": 9})


if __name__ == "__main__":
    main()
