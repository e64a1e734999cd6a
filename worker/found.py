"""What a job has found before a stage, as tensors and JSON, and a fresh Work brought to the same point.

Restored weights lie in memory as torch lays out new ones, so `settle_` gives an uninterrupted run the same
layout: the order in which numbers are added decides their last bits.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

import torch
from torch import Tensor, fx

from basisconv.config import Decomposition, LayerOutcome
from basisconv.cost import count
from basisconv.errors import MethodError
from basisconv.recipe import apply_, describe_structure
from basisconv.smallest import Smallest, Try
from worker.checkpoint import About, Saved, State, Unusable
from worker.measure import Answers, answer
from worker.work import Work

ANSWERS_BYTES: Final = 50_000_000  # of the original's answers; larger ones are computed again


def settle_(module: fx.GraphModule) -> None:
    """All weights contiguous."""
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.data = tensor.data.contiguous()


def collect(work: Work) -> tuple[State, About]:
    """Everything that the stages before this point have found and later ones use."""
    assert work.decomposition is not None
    tensors = {f"network.{name}": value.detach().clone() for name, value in work.module.state_dict().items()}
    about: About = {
        "structure": describe_structure(work.module),
        "layers": [asdict(layer) for layer in work.decomposition.layers],
        "truncated": work.truncated,
        "tuning": work.tuning,
        "search": _search(work),
        "held_back": work.held_back,
    }
    return tensors | _answers(work, about), about


def _search(work: Work) -> Any:
    if work.search is None:
        return None
    found = work.search.found
    return {
        "tries": [asdict(one) for one in work.search.tries],
        "found": None if found is None else asdict(found),
    }


def _answers(work: Work, about: About) -> State:
    reference = work.reference
    if reference is None or sum(output.nbytes for output in reference.outputs) > ANSWERS_BYTES:
        return {}
    about["answered"] = reference.count
    return {f"answer.{i}": torch.from_numpy(output) for i, output in enumerate(reference.outputs)}


def restore_(work: Work, saved: Saved) -> None:
    """Bring the Work to where `collect` saw it. Raises Unusable, with the Work half changed."""
    about = saved.about
    try:
        apply_(work.module, about["structure"])
        work.module.load_state_dict(_part(saved.tensors, "network."))
        outcomes = [LayerOutcome(**layer) for layer in about["layers"]]
        work.decomposition = Decomposition(outcomes, count(work.module, work.example))
        work.truncated, work.tuning, work.held_back = about["truncated"], about["tuning"], about["held_back"]
        work.search = _searched(work, about["search"])
        work.reference = _answered(saved)
    except (MethodError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise Unusable(f"{type(error).__name__}: {error}") from error
    if work.reference is None:
        work.reference = answer(work.runner(work.original), work.tests, work.folder, "reference")


def _searched(work: Work, told: Mapping[str, Any] | None) -> Smallest | None:
    if told is None:
        return None
    assert work.decomposition is not None
    tries = tuple(Try(**one) for one in told["tries"])
    found = None if told["found"] is None else Try(**told["found"])
    return Smallest(work.module, work.decomposition, tries, found)


def _answered(saved: Saved) -> Answers | None:
    outputs = _part(saved.tensors, "answer.")
    if not outputs:
        return None
    arrays = tuple(outputs[str(i)].clone().numpy() for i in range(len(outputs)))
    return Answers(arrays, saved.about["answered"])


def _part(tensors: Mapping[str, Tensor], prefix: str) -> State:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
