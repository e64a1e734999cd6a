"""The end of a job: its result in the REST contract's words, and what did not turn out as wished."""

import platform
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from basisconv.cost import Costs, count
from basisconv.formats.onnx_session import Device
from basisconv.smallest import Try
from worker import synthetic
from worker.baseline import chance
from worker.measure import Answers
from worker.timing import Timing, figures, repeats, target_batch
from worker.work import Work

NO_SPEED_UP: Final = 0.98  # of the original's time: less than 2 % faster is within the noise of timing
ROUNDING: Final = 1e-9
PROCESSORS: Final[dict[Device, str]] = {"cpu": "CPU", "cuda": "GPU"}
PACKAGES: Final = ("basisconv", "torch", "onnx", "onnxruntime", "onnxruntime-gpu", "numpy")


@dataclass
class Judgement:
    """Whether target and limits were met, and the warnings to give."""

    met: bool = True
    warnings: list[tuple[str, str]] = field(default_factory=list)

    def miss(self, code: str, detail: str) -> None:
        self.met = False
        self.warnings.append((code, detail))

    def warned(self, code: str) -> bool:
        return any(given == code for given, _ in self.warnings)


def judge(work: Work) -> Judgement:
    found = Judgement()
    after, before = count(work.module, work.example), work.costs_before
    _judge_target(work, before, after, found)
    _judge_search(work, found)
    _judge_learnable(work, before, after, found)
    _judge_accuracy(work, found)
    _judge_learning(work, found)
    _judge_speed(work, before, after, found)
    if not found.warned("no_smaller_network") and not _replaced(work):
        found.warnings.append(("nothing_replaced", "No layer was replaced: each is cheapest as it is."))
    return found


def _replaced(work: Work) -> bool:
    assert work.decomposition is not None
    return any(layer.replaced for layer in work.decomposition.layers)


def _judge_target(work: Work, before: Costs, after: Costs, found: Judgement) -> None:
    target = work.options.compression.target
    if target.kind == "latency":
        _judge_latency(work, found)
    if target.kind not in ("macs", "params") or isinstance(target.value, dict):
        return
    had, has = getattr(before, target.kind), getattr(after, target.kind)
    if has > target.value * had * (1 + ROUNDING):
        found.miss(
            "target_missed",
            f"The target keeps at most {target.value:.1%} of {had:,} {target.kind}; the network has {has:,}, "
            f"{has / had:.1%}.",
        )


def _judge_search(work: Work, found: Judgement) -> None:
    """The loss that was aimed at on train images held back, confirmed or not by the validation images."""
    search, allowed = work.search, work.allowed_loss
    if search is None or allowed is None:
        return
    if search.found is None and search.tries:
        found.warnings.append(("no_smaller_network", _none_passed(search.tries, allowed)))
    lost = _lost(work)
    if lost > allowed + ROUNDING:
        foretold = 0.0 if search.found is None else search.found.loss
        found.miss(
            "target_missed",
            f"The target allows a loss of {allowed:.2%}; on the validation images the network lost "
            f"{lost:.2%}, where the train images held back had foretold {foretold:.2%}. Allow less, or "
            "fine-tune.",
        )


def _none_passed(tries: tuple[Try, ...], allowed: float) -> str:
    least = min(tries, key=lambda one: one.loss)
    return (
        f"{len(tries)} smaller networks were tried. The best of them keeps {least.share:.1%} of the "
        f"operations and would lose about {least.loss:.2%}; the target allows {allowed:.2%}. So every layer "
        "stays as it is. Allow a larger loss."
    )


def _lost(work: Work) -> float:
    """On the validation images: accuracy, or without labels the share of answers that are others now."""
    before, after = _scores(work, work.reference), _scores(work, work.compressed)
    if before["accuracy"] is None or after["accuracy"] is None:
        return 1.0 - float(after["agreement"])
    return float(before["accuracy"] - after["accuracy"])


def _judge_learnable(work: Work, before: Costs, after: Costs, found: Judgement) -> None:
    limit = work.options.limits.learnable_params
    if limit is not None and after.learnable_params > limit * before.learnable_params * (1 + ROUNDING):
        share = after.learnable_params / before.learnable_params
        found.miss(
            "learnable_limit_missed",
            f"The limit leaves at most {limit:.1%} of {before.learnable_params:,} parameters to learn; the "
            f"network has {after.learnable_params:,}, {share:.1%}.",
        )


def _judge_learning(work: Work, found: Judgement) -> None:
    """A network trained from scratch that answers no better than a guess."""
    if work.options.kind != "train" or work.tests.y is None or work.compressed is None:
        return
    accuracy = _scores(work, work.compressed)["accuracy"]
    level = chance(work.tests.y[: work.compressed.count])
    if accuracy is not None and accuracy <= level:
        detail = (
            f"After training the network answers {accuracy:.1%}, which is chance level ({level:.1%} here)."
        )
        found.warnings.append(("nothing_learned", f"{detail} More epochs or filters may help."))


def _judge_latency(work: Work, found: Judgement) -> None:
    """Missed when the files' measured times say so beyond their own spread."""
    wanted = work.options.compression.target.latency
    timing = next((t for t in work.timings if t.batch == target_batch(work)), None)
    if wanted is None or timing is None or timing.ratio - timing.spread <= wanted:
        return
    before, after = timing.original.median_ms, timing.compressed.median_ms
    found.miss(
        "target_missed",
        f"The target keeps at most {wanted:.1%} of the time; the network takes {after:.3g} of {before:.3g} "
        f"ms, {timing.ratio:.1%} ± {timing.spread:.1%} (batch {timing.batch}). Other work on the machine "
        "disturbs such figures.",
    )


def _judge_accuracy(work: Work, found: Judgement) -> None:
    limit = work.options.limits.accuracy_drop
    if limit is None:
        return
    before, after = _scores(work, work.reference)["accuracy"], _scores(work, work.compressed)["accuracy"]
    if before is None or after is None:
        found.miss("limit_not_judged", "There are no labels to judge the limit on the loss of accuracy by.")
    elif before - after > limit + ROUNDING:
        found.miss(
            "accuracy_limit_missed",
            f"The network lost {before - after:.2%} of accuracy ({before:.2%} to {after:.2%}); the limit is "
            f"{limit:.2%}.",
        )


def _judge_speed(work: Work, before: Costs, after: Costs, found: Judgement) -> None:
    slow = [timing for timing in work.timings if timing.ratio >= NO_SPEED_UP]
    replaced = sum(layer.replaced for layer in work.decomposition.layers) if work.decomposition else 0
    if slow:
        said = no_speed_up(slow, after.macs / max(1, before.macs), replaced, work.latency_device)
        found.warnings.append(("no_speed_up", said))


def no_speed_up(slow: list[Timing], share: float, replaced: int, device: Device) -> str:
    """Where nothing was gained, and why, as far as the figures tell."""
    places = " and ".join(
        f"at batch {t.batch} ({t.original.median_ms:.3g} ms before, {t.compressed.median_ms:.3g} ms after)"
        for t in slow
    )
    return f"No speed-up on this {PROCESSORS[device]} {places}, because {_why_slow(slow, share, replaced)}"


def _why_slow(slow: list[Timing], share: float, replaced: int) -> str:
    if not replaced:
        return "no layer was replaced."
    if share >= NO_SPEED_UP:
        return f"{share:.0%} of the operations are left."
    longer = " and ".join(f"{t.ratio / share:.1f}" for t in slow)
    return (
        f"each operation takes {longer} times as long as before: {replaced} "
        f"{'layer is' if replaced == 1 else 'layers are'} now {2 * replaced} smaller ones, and each is a "
        "call of its own that writes what the next one reads. A target of latency chooses by measured times."
    )


@dataclass(frozen=True)
class Spent:
    """What each stage took: time, and the most memory of the machine and of the GPU (empty without one)."""

    seconds: dict[str, float] = field(default_factory=dict)
    peak_bytes: dict[str, int] = field(default_factory=dict)
    peak_device_bytes: dict[str, int] = field(default_factory=dict)


def result(work: Work, spent: Spent, judged: Judgement) -> dict[str, Any]:
    """api.md's Job.result; the supervisor adds artifacts, hashes and sizes to the exports."""
    before, after = work.costs_before, count(work.module, work.example)
    own = next(entry for entry in work.files if entry["format"] == work.network.format)
    on_device = spent.peak_device_bytes if work.device.type == "cuda" else {}  # timing alone is no computing
    compressed = _figures(work, after, work.compressed)
    compressed |= {"bytes": own["bytes"]} | figures(work.timings, "compressed")
    original = _figures(work, before, work.reference)
    original |= {"bytes": work.bytes_original} | figures(work.timings, "original")
    truncated = compressed if work.truncated is None else work.truncated | _costs(after)
    return {
        "original": original,
        "truncated": truncated,
        "compressed": compressed,
        "target_met": judged.met,
        "device": work.device.type,
        "threads": work.threads,
        "latency_device": work.latency_device,
        "latency_repeats": repeats(work.timings),
        "evaluated_images": work.reference.count if work.tests.real and work.reference else 0,
        "peak_memory_bytes": max((on_device or spent.peak_bytes).values()),
        "versions": versions(),
        "seconds": spent.seconds,
        "peak_bytes": spent.peak_bytes,
        "peak_device_bytes": on_device or None,
        "search": _search(work),
        "tuning": work.tuning,
        "synthetic": synthetic.document(work),
        "layers": _layers(work, after),
        "exports": [_public(entry) for entry in work.files if entry["published"]],
        "attachments": work.attachments,
    }


def versions() -> dict[str, str]:
    """What the figures may depend on beside the code that was run; of ONNX Runtime whichever is installed."""
    found = {"Python": platform.python_version()}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _figures(work: Work, costs: Costs, answers: Answers | None) -> dict[str, Any]:
    return _scores(work, answers) | _costs(costs)


def _costs(costs: Costs) -> dict[str, Any]:
    return {"macs": costs.macs, "params": costs.params, "learnable_params": costs.learnable_params}


def _scores(work: Work, answers: Answers | None) -> dict[str, Any]:
    assert answers is not None
    return work.scored(answers)


def _layers(work: Work, after: Costs) -> list[dict[str, Any]]:
    assert work.decomposition is not None
    found = []
    for layer in work.decomposition.layers:
        cost = after.layers.get(layer.name)
        found.append(
            {
                "name": work.public.get(layer.name, layer.name),
                "form": layer.form,
                "rank": layer.rank,
                "replaced": layer.replaced,
                "reason": layer.reason,
                "error": layer.error,
                "macs": None if cost is None else cost.macs,
                "params": None if cost is None else cost.params,
            }
        )
    return found


def _search(work: Work) -> dict[str, Any] | None:
    """What was tried on the way to a loss of accuracy, in the order of the tries."""
    if work.search is None:
        return None
    found = work.search.found
    return {
        "allowed": work.allowed_loss,
        "held_back_images": work.held_back,
        "tries": [asdict(one) for one in work.search.tries],
        "share": None if found is None else found.share,
        "expected_loss": None if found is None else found.loss,
    }


def _public(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name != "published"}
