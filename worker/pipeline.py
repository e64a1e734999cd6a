"""The job itself, in its child: ordered stages over one Work, then the result of the REST contract."""

import copy
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from app.core.errors import DatasetMismatch
from app.jobs.options import JobOptions
from app.jobs.states import Stage
from basisconv.errors import MethodError
from basisconv.formats import onnx_reader
from basisconv.formats.network import Network
from worker import device as devices
from worker.checkpoint import Keeper, Unusable
from worker.data.materialize import Images, check_classes, materialize
from worker.data.spec import InputSpec
from worker.found import collect, restore_, settle_
from worker.measure import TestImages
from worker.outcome import judge, result
from worker.stages import scratch
from worker.stages.calibrate import calibrate
from worker.stages.decompose import decompose
from worker.stages.evaluate import evaluate
from worker.stages.export import export
from worker.stages.finetune import finetune
from worker.stages.verify import verify
from worker.teller import Teller
from worker.work import Message, Said, Work, warning

Report = Callable[[Message], None]
RANDOM_IMAGES: Final = 16  # stand-ins where there is no data set, to check the exported files on
# The stages and their share of the time, as measured on CIFAR ResNets; for the progress bar alone.
STAGES: Final[tuple[tuple[Stage, Callable[[Work], Said], float], ...]] = (
    (Stage.CALIBRATE, calibrate, 0.2),
    (Stage.DECOMPOSE, decompose, 0.3),
    (Stage.FINETUNE, finetune, 1.0),
    (Stage.EVALUATE, evaluate, 0.1),
    (Stage.EXPORT, export, 0.1),
    (Stage.VERIFY, verify, 0.2),
)
SEARCHED: Final = 6  # times the share of decompose, where networks are tried for a target on accuracy
RESUMABLE: Final = (Stage.FINETUNE, Stage.EVALUATE)  # another attempt can begin with these
# Kind train: calibrating is looking at the network as it came, decomposing drawing filters, tuning training.
TRAINING: Final = {
    Stage.CALIBRATE: scratch.look,
    Stage.DECOMPOSE: scratch.restructure,
    Stage.FINETUNE: scratch.train,
}

log = logging.getLogger(__name__)  # reaches the worker's log through child_log


def run(task: dict[str, Any], folder: Path, report: Report) -> dict[str, Any]:
    """All stages of one job. Raises Problem or MethodError, the latter with public layer names."""
    try:
        return _run(task, folder, report)
    except Unusable as error:
        report({"type": "restart", "reason": str(error)[:1000]})
        report({"type": "stage", "stage": Stage.CALIBRATE.value})
        return _run(task | {"resume": None}, folder, report)


def _run(task: dict[str, Any], folder: Path, report: Report) -> dict[str, Any]:
    resume = task.get("resume")
    teller = Teller(report, Stage(resume["stage"]) if resume else Stage.CALIBRATE)
    devices.check_latency(task["latency_device"])
    work = open_work(task, folder)
    log.info("work.opened", extra={"fields": _about(work)})
    work.keeper.spent = teller.so_far
    saved = work.keeper.taken_up("network")
    if saved is not None:
        restore_(work, saved)
        teller.take_up(work.keeper.spent_before())
    else:
        for notice in work.images.warnings if work.images is not None else ():
            report(warning(notice["code"], notice["detail"]))
    try:
        _run_stages(work, teller, None if saved is None else Stage(saved.about["stage"]))
    except MethodError as error:
        if error.layer is not None:
            error.layer = work.public.get(error.layer, error.layer)
        raise
    missed = judge(work)
    for code, detail in missed.warnings:
        report(warning(code, detail))
    return result(work, teller.spent, missed)


def _about(work: Work) -> dict[str, Any]:
    images = work.images
    return {
        "kind": work.options.kind,
        "target": work.options.compression.target.kind,
        "epochs": work.options.training.epochs,
        "device": str(work.device),
        "latency_device": work.latency_device,
        "threads": work.threads,
        "train_images": 0 if images is None else len(images.train_x),
        "test_images": 0 if images is None else len(images.test_x),
    }


def _run_stages(work: Work, teller: Teller, first: Stage | None) -> None:
    """All stages, or those from `first` on, which an earlier attempt had reached."""
    tunes = work.options.training.epochs > 0 and work.with_images
    stages = [stage for stage in STAGES if tunes or stage[0] is not Stage.FINETUNE]
    shares = {stage: share for stage, _, share in stages}
    if work.allowed_loss is not None:
        shares[Stage.DECOMPOSE] *= SEARCHED
    whole = sum(shares.values())
    begin = 0 if first is None else [stage for stage, _, _ in stages].index(first)
    done = sum(shares[stage] for stage, _, _ in stages[:begin])
    for stage, steps, _ in stages[begin:]:
        share = shares[stage]
        if stage in RESUMABLE and work.with_images:
            settle_(work.module)
            if stage is not first:
                teller.say_all(work.keeper.keep("network", *collect(work), stage))
        teller.begin(stage, done / whole, share / whole)
        chosen = TRAINING.get(stage, steps) if work.options.kind == "train" else steps
        teller.say_all(chosen(work))
        done += share
    teller.end()


def open_work(task: dict[str, Any], folder: Path) -> Work:
    """Load the network and the images, and refuse what does not fit together."""
    options = JobOptions.model_validate(task["options"])
    devices.prepare(task["threads"])
    device = devices.choose(task["device"])
    model = task["model"]
    spec = InputSpec.parse(model["input"])
    network = load_network(folder / model["file"], model)
    images = _open_images(task, folder)
    original = network.module.to(device)
    return Work(
        options=options,
        folder=folder,
        model=model,
        bytes_original=task["bytes_original"],
        device=device,
        latency_device=task["latency_device"],
        threads=task["threads"],
        network=network,
        original=original,
        module=copy.deepcopy(original),
        spec=spec,
        images=images,
        tests=_test_images(images, spec, network),
        keeper=Keeper(folder, (task.get("resume") or {}).get("files", {})),
    )


def load_network(path: Path, model: dict[str, Any]) -> Network:
    channels, height, width = model["input"]["shape"]
    if model["format"] == "onnx":
        return onnx_reader.load(path, (channels, height, width), model["input"].get("layout"))
    from basisconv.formats import pt2_reader  # torch's serialiser takes as long to import as torch

    return pt2_reader.load(path, (channels, height, width))


def _open_images(task: dict[str, Any], folder: Path) -> Images | None:
    about, model = task["dataset"], task["model"]
    if about is None:
        return None
    cache = about.get("cache")
    images = materialize(folder / about["file"], model["input"], folder / cache if cache else None)
    check_classes(images.classes, model["summary"].get("outputs") or [])
    train, test = len(images.train_x), len(images.test_x)
    if train == 0 or test == 0:
        raise DatasetMismatch(f"The data set has {train} train and {test} test images; both are needed.")
    return images


def _test_images(images: Images | None, spec: InputSpec, network: Network) -> TestImages:
    if images is not None:
        return TestImages(images.test_x, images.test_y, spec, real=True)
    shape = (RANDOM_IMAGES, *network.input_shape)
    x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    return TestImages(x, None, spec, real=False)
