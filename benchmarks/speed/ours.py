"""BasisConv: every step of the default, from images to the compressed network."""

from collections.abc import Iterator

from torch import Tensor

from basisconv import DecomposeConfig, Progress, count, decompose_
from benchmarks.networks.resnet50 import resnet50
from benchmarks.speed.setting import answer, asked
from benchmarks.speed.stages import Stages


def main() -> None:
    setting = asked()
    network, pictures = resnet50(setting.base), setting.pictures()
    before = count(network, pictures[:1]).macs

    def images() -> Iterator[Tensor]:
        return iter(pictures.split(setting.batch))

    stages = Stages()
    for step in decompose_(network, pictures[:1], DecomposeConfig(target_value=setting.keep), images):
        if isinstance(step, Progress):
            stages.begin(step.message if step.stage == "calibrate" else "Choosing ranks and fitting")
    stages.end()
    kept = count(network, pictures[:1]).macs / before
    answer({"stages": stages.found, "scaled_by": 1.0, "macs_kept": kept})


if __name__ == "__main__":
    main()
