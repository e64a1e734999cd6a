"""A job without a data set: calibrated and judged on images made from the network itself."""

from typing import Final

from basisconv.config import Progress
from basisconv.datafree import Pixels, SynthesisConfig, synthesize
from worker.data.spec import InputSpec
from worker.measure import TestImages, alike
from worker.work import Message, Said, Work, progress, warning

WORK_MACS: Final = {"cpu": 1e12, "cuda": 2e13}  # 256 images for a CIFAR ResNet: 25 to 50 s on one core


def synthesise(work: Work, work_macs: float | None = None) -> Said:
    """Make the images; `work.tests` becomes those held back. The caller takes them from `work.synthetic`."""
    config = SynthesisConfig(
        work_macs=work_macs or WORK_MACS.get(work.device.type, WORK_MACS["cpu"]),
        batch_size=work.network.module_batch,
        seed=work.options.training.seed,
    )
    for step in synthesize(work.original, work.example, pixels(work.spec), config):
        if isinstance(step, Progress):
            yield progress(step.fraction, step.message)
        else:
            work.synthetic = step
    assert work.synthetic is not None
    work.tests = TestImages(work.synthetic.held_back.cpu().numpy(), None, work.spec, real=False)
    yield warning("no_images", _notice(work))


def pixels(spec: InputSpec) -> Pixels:
    """What the model's `input` makes of bytes from 0 to 255."""
    mean, std = ((values * spec.channels)[: spec.channels] for values in (spec.mean, spec.std))
    return Pixels.normalised(spec.scale, mean, std)


def _notice(work: Work) -> str:
    made = work.synthetic
    assert made is not None
    count = len(made.calibration)
    if made.steps:
        source = f"{count} images made from the network's own batch-norm statistics ({made.norms} norms)"
        loss = "Expect to lose more than with real images"
    else:
        source = f"{count} images of noise, since the network has no batch norms to make better ones from"
        loss = "Expect to lose much more than with real images, and more than the expected agreement says"
    return f"No images were given: calibrated on {source}. {loss}; 100 unlabelled ones would do."


def document(work: Work) -> Message | None:
    """The result's `synthetic`: how alike the networks answer on the images held back, which nothing saw."""
    made, after, before = work.synthetic, work.compressed, work.reference
    if made is None or after is None or before is None:
        return None
    found = alike(after, before, work.network.output_names)
    return {
        "calibration_images": len(made.calibration),
        "batch_norms": made.norms if made.steps else 0,
        "held_back_images": after.count,
        "expected_agreement": found.agreement,
        "expected_agreement_db": found.agreement_db,
    }
