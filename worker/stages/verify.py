"""Run every written file on the validation images, compare it with the network in memory, and time it."""

from app.core.errors import ExportMismatch
from basisconv.formats import weights
from basisconv.formats.compare import SMALLEST_SCALE, TOLERANCE
from worker import runners
from worker.measure import answer, difference, score
from worker.runners import Runner
from worker.timing import Timing, time_files
from worker.work import Message, Said, Work, progress


def verify(work: Work) -> Said:
    for done, entry in enumerate(work.files):
        yield progress(0.8 * done / len(work.files), f"Checking {entry['format']}")
        _check(work, entry)
    yield progress(0.8, "Timing the original and the compressed network")
    work.timings = _time(work)


def _check(work: Work, entry: Message) -> None:
    """The file's own figures into its entry; a file that answers otherwise is not published."""
    assert work.compressed is not None
    assert work.reference is not None
    name = entry["format"]
    answers = answer(_runner(work, name, entry["file"]), work.tests, work.folder, f"export-{name}")
    found = difference(answers, work.compressed)
    # Beside the original's outputs too: a network cut very deep may answer little more than rounding noise.
    beside = (
        0.0 if work.options.kind == "train" else work.reference.largest
    )  # which says nothing of another's
    scale = max(found.scale, beside, SMALLEST_SCALE)
    if not found.finite or found.max_abs > TOLERANCE * scale:
        raise _mismatch(name, found.max_abs / scale)
    entry["max_abs_diff"] = found.max_abs
    entry["bytes"] = (work.folder / entry["file"]).stat().st_size
    entry.update(score(answers, work.reference, work.tests, work.network.output_names).document())


def _mismatch(name: str, off: float) -> ExportMismatch:
    return ExportMismatch(
        f"The exported {name} file differs from the network in memory by {off:.2g} of the largest output "
        f"(up to {TOLERANCE:g} is rounding)."
    )


def _runner(work: Work, name: str, file: str) -> Runner:
    path, network = work.folder / file, work.network
    if name == "onnx":
        return runners.of_onnx(path, network.batch, work.threads)
    if name == "pt2":
        return runners.of_pt2(path, network.batch, work.threads)
    rebuilt = weights.read(network, path, path.with_name("recipe.json"))
    return runners.of_module(rebuilt, runners.CPU, network.module_batch)


def _time(work: Work) -> list[Timing]:
    """The model's own format, before and after."""
    own = work.network.format
    entry = next(entry for entry in work.files if entry["format"] == own)
    return time_files(work, work.folder / work.model["file"], work.folder / entry["file"])
