"""Training that another attempt can go on with: kept after epochs, every two minutes and before a stop."""

from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

from app.jobs.states import Stage
from basisconv.errors import MethodError
from basisconv.finetune import Judged, Step
from worker.checkpoint import About, State, Unusable
from worker.stopping import Stopped, deferred
from worker.work import Said, Work

Item = TypeVar("Item", covariant=True)


class Training(Protocol[Item]):
    """What the method's training loops are to this file."""

    def __iter__(self) -> Iterator[Item]: ...

    def state_dict(self) -> State: ...

    def resume(self, state: State) -> None: ...


def take_up(work: Work, run: Training[object]) -> About | None:
    """Continue where an earlier attempt was; what it kept beside the state, or None. Raises Unusable."""
    saved = work.keeper.taken_up("training")
    if saved is None:
        return None
    try:
        run.resume(saved.tensors)
    except (MethodError, RuntimeError, KeyError, ValueError) as error:
        raise Unusable(f"{type(error).__name__}: {error}") from error
    return saved.about


def run_kept(
    work: Work,
    run: Training[Item],
    say: Callable[[Item], Said],
    about: Callable[[], About],
    ends_epoch: Callable[[Item], bool],
) -> Said:
    """Train to the end: what each item says, and checkpoints between them. Raises Stopped."""
    with deferred() as asked:
        for item in run:
            yield from say(item)
            if asked.is_set() or work.keeper.is_due(epoch_ended=ends_epoch(item)):
                epoch, step = (item.epoch, item.step) if isinstance(item, (Step, Judged)) else (0, 0)
                state = run.state_dict()
                yield from work.keeper.keep(
                    "training", state, about(), Stage.FINETUNE, epoch=epoch, step=step
                )
            if asked.is_set():
                raise Stopped
