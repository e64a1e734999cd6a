"""Fine-tuning that judges itself: on held-back images nothing ends worse than it began."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import pytest
import torch
from torch import nn

from basisconv import InvalidRequest
from basisconv.finetune import (
    FinetuneConfig,
    Judged,
    Recovery,
    Step,
    StopWhen,
    TrainingData,
    Trial,
    Trying,
    finetune,
    hold_back,
)
from basisconv.finetune.held_back import Judge
from basisconv.finetune.losses import distillation
from basisconv.finetune.norms import reestimate_
from basisconv.finetune.original import Original
from basisconv.finetune.steps import draws
from basisconv.finetune.trials import MOST_STEPS, SHARE, best, next_rate, trial_steps
from tests.method.shelf import Untraceable, randomize, seeded
from tests.method.test_finetune import DATA, config, networks, same, state

CPU = torch.device("cpu")
TRAIN, HELD = DATA.subset(torch.arange(48)), DATA.subset(torch.arange(48, 80))


def recovery(
    wanted: FinetuneConfig, stop: StopWhen | None = None, held: TrainingData | None = HELD
) -> tuple[Recovery, nn.Module, nn.Module]:
    student, teacher = networks()
    return Recovery(student, teacher, TRAIN, held, wanted, stop or StopWhen()), student, teacher


def divergence(student: nn.Module, teacher: nn.Module, batch: int = 16, boxes: bool = True) -> float:
    """On the held-back images as they are and, as often, with boxes of each other."""
    rows = torch.arange(len(HELD)).split(batch)
    views = [
        HELD.batch(some, CPU, "none", draws(0, int(some[0])), boxed)[0]
        for boxed in ((False, True) if boxes else (False,))
        for some in rows
    ]
    original = Original(teacher, both_sides=True)
    with torch.no_grad():
        return sum(float(distillation([student(x)], original(x))) for x in views) / len(views)


def test_a_tuning_that_only_harms_is_undone_to_the_bit():
    run, student, _ = recovery(config(learning_rate=0.5, epochs=2))
    list(run)
    assert run.kept is not None
    assert run.kept.epoch == 0
    assert not student.training
    untuned, _ = networks()
    if run.norms_reestimated:
        pytest.fail("this start needs its statistics as they are, so that the comparison is to the bit")
    assert same(state(student), state(untuned.eval()))


def test_the_network_closest_to_the_original_on_held_back_images_is_kept():
    run, student, teacher = recovery(config(epochs=4, learning_rate=3e-3))
    judged = [item for item in run if isinstance(item, Judged)]
    assert [j.epoch for j in judged] == [0, 1, 2, 3, 4]
    losses = [j.judgement.loss for j in judged]
    assert min(losses) < losses[0]
    assert run.kept is not None
    assert run.kept.judgement.loss == min(losses)
    assert divergence(student, teacher) == pytest.approx(min(losses), rel=1e-4)


def test_held_back_images_are_never_trained_on():
    poisoned = replace(DATA, images=DATA.images.clone())
    poisoned.images[48:] = 255 - poisoned.images[48:]
    ends = []
    for data in (DATA, poisoned):
        student, teacher = networks()
        list(finetune(student, teacher, data.subset(torch.arange(48)), config()))
        ends.append(state(student))
    assert same(*ends)


def test_a_tenth_is_held_back_from_the_end_of_the_order_and_nothing_of_few_images():
    order = torch.randperm(5000, generator=seeded(0))
    train, held = hold_back(order)
    assert len(held) == 500
    assert set(held.tolist()) == set(order[-500:].tolist())
    assert sorted([*train.tolist(), *held.tolist()]) == list(range(5000))
    assert len(hold_back(torch.arange(30_000))[1]) == 1000
    train, held = hold_back(torch.arange(319).flip(0))
    assert (train.tolist(), len(held)) == (list(range(319)), 0)


@pytest.mark.parametrize("batch_size", [5, 16, 32])
def test_a_judgement_does_not_depend_on_the_size_of_its_batches(batch_size):
    student, teacher = networks()
    found = Judge(teacher, HELD, "both", batch_size, CPU, both_sides=True)(student)
    assert found.loss == pytest.approx(divergence(student.eval(), teacher, boxes=False), rel=1e-4)
    whole = Judge(teacher, HELD, "both", 32, CPU, both_sides=True)(student)
    assert (found.disagreement, found.accuracy_drop) == (whole.disagreement, whole.accuracy_drop)


def test_distilled_classes_are_judged_on_images_with_boxes_too():
    student, teacher = networks()
    judge = Judge(teacher, HELD, "distill", 16, CPU, both_sides=True)
    found = judge(student)
    assert found.loss == pytest.approx(divergence(student.eval(), teacher), rel=1e-4)
    assert found.loss != pytest.approx(divergence(student, teacher, boxes=False), rel=1e-3)
    assert judge(student) == found
    plain = Judge(teacher, HELD, "both", 16, CPU, both_sides=True)(student)
    assert (found.disagreement, found.accuracy_drop) == (plain.disagreement, plain.accuracy_drop)


def test_the_original_diverges_from_itself_in_nothing():
    _, teacher = networks()
    found = Judge(teacher, HELD, "distill", 16, CPU)(teacher)
    assert found.loss == pytest.approx(0, abs=1e-6)
    assert (found.disagreement, found.accuracy_drop) == (0, 0)


def test_judging_leaves_the_modes_as_they_were():
    student, teacher = networks()
    student.train()
    Judge(teacher, HELD, "distill", 16, CPU, both_sides=True)(student)
    assert student.training


def test_networks_that_score_no_classes_are_judged_by_their_error():
    teacher = randomize(Untraceable())
    student = copy.deepcopy(teacher)
    student.b.weight.data *= 0.9
    data = TrainingData(torch.randn(32, 3, 12, 12, generator=seeded(5)))
    found = Judge(teacher, data, "distill", 16, CPU, both_sides=True)(student)
    assert found.loss > 0
    assert (found.disagreement, found.accuracy_drop) == (None, None)


def test_learning_from_labels_needs_no_original():
    student, _ = networks()
    run = Recovery(student, None, TRAIN, HELD, config(objective="labels", epochs=1), StopWhen())
    items = list(run)
    assert sum(isinstance(item, Step) for item in items) == 3
    assert run.judged[0].judgement.disagreement is None


def test_without_held_back_images_the_run_is_the_plain_one():
    plain, teacher = networks()
    list(finetune(plain, teacher, TRAIN, config()))
    run, student, _ = recovery(config(), held=None)
    assert all(isinstance(item, Step) for item in run)
    assert run.kept is None
    assert same(state(plain), state(student))


LONG = config(epochs=330, batch_size=16)  # 990 steps: room for four trials


def without_trying(run: Recovery) -> Iterator[Trial | Step | Judged]:
    """What a run says, but for the single steps of its trials."""
    return (item for item in run if not isinstance(item, Trying))


def test_trials_come_before_the_first_step_and_choose_the_rate():
    run, _, _ = recovery(LONG)
    items = list(islice(without_trying(run), 8))
    trials = [item for item in items if isinstance(item, Trial)]
    assert 2 <= len(trials) <= 4
    step = next(item for item in items if isinstance(item, Step))
    assert items.index(step) == 1 + len(trials)
    assert run.learning_rate == best(trials).learning_rate


def test_trials_leave_the_network_as_they_found_it():
    run, student, _ = recovery(LONG)
    items = without_trying(run)
    assert isinstance(next(items), Judged)
    before = state(student)
    while isinstance(next(items), Trial) and run.epochs_done == 0 and not student.training:
        assert same(before, state(student))


@pytest.mark.parametrize("changes", [{"learning_rate": 1e-3}, {"epochs": 1}])
def test_no_trials_for_a_rate_that_was_asked_for_or_in_a_short_run(changes):
    run, _, _ = recovery(replace(LONG, **changes))
    assert not any(isinstance(next(run), Trial | Trying) for _ in range(3))


def test_trials_and_their_judgements_stay_within_their_share():
    for steps in (10, 100, 226, 5000):
        for judge_steps in (0.5, 2.0, 30.0):
            length = trial_steps(steps, judge_steps, 3)
            assert length <= MOST_STEPS
            assert length == 0 or 3 * (length + judge_steps) <= SHARE * steps


@pytest.mark.parametrize(
    ("losses", "rates"),
    [([0.9, 0.95, 0.85], [9, 3, 27]), ([1.5, 0.9, 0.95], [9, 3, 1])],
)
def test_rates_are_tried_on_the_better_side_of_the_default(losses, rates):
    tried: list[Trial] = []
    for loss in losses:
        rate = next_rate(9.0, tried)
        assert rate is not None
        tried.append(Trial(rate, "keep", loss))
    assert next_rate(9.0, tried) is None
    assert [trial.learning_rate for trial in tried] == rates
    assert best(tried).loss == min(losses)


def test_a_trial_whose_loss_explodes_is_only_a_bad_trial():
    run, student, _ = recovery(LONG)
    first = next(run)
    assert isinstance(first, Judged)
    for name, parameter in student.named_parameters():
        if name == "stem.bias":
            parameter.data.fill_(float("inf"))
    trial = next(without_trying(run))
    assert isinstance(trial, Trial)
    assert trial.loss == float("inf")
    assert torch.isfinite(student.stem.bias).all()


@pytest.mark.parametrize("stop", [0, 1, 2, 4, 6, 7, 9])
def test_a_resumed_recovery_ends_at_the_same_bits(stop):
    wanted = config(epochs=2, learning_rate=None)
    run, student, _ = recovery(wanted)
    whole = list(run)
    interrupted, _, _ = recovery(wanted)
    for _ in range(min(stop, len(whole))):
        next(interrupted)
    saved = interrupted.state_dict()
    resumed, again, _ = recovery(wanted)
    resumed.resume(saved)
    rest = list(resumed)
    assert len(rest) == len(whole) - stop
    assert resumed.judged == run.judged
    assert same(state(student), state(again))


@pytest.mark.parametrize("into_the_next", [0, 5])
def test_a_recovery_resumed_among_its_trials_ends_at_the_same_bits(into_the_next):
    run, student, _ = recovery(LONG)
    interrupted, _, _ = recovery(LONG)
    assert len(list(islice(without_trying(interrupted), 2))) == 2
    for _ in range(into_the_next):
        assert isinstance(next(interrupted), Trying)
    resumed, again, _ = recovery(LONG)
    resumed.resume(interrupted.state_dict())
    assert len(list(islice(without_trying(run), 8))) == 8
    assert len(list(islice(without_trying(resumed), 6))) == 6
    assert resumed.trials == run.trials
    assert run.epochs_done > 0
    assert same(state(student), state(again))


def test_a_recovery_of_another_network_is_refused():
    run, _, teacher = recovery(config())
    other = Recovery(copy.deepcopy(teacher), teacher, TRAIN, HELD, config())
    with pytest.raises(InvalidRequest, match="another structure"):
        other.resume(run.state_dict())


def test_training_ends_when_no_more_is_lost_than_allowed():
    run, _, _ = recovery(config(epochs=6, learning_rate=1e-3), StopWhen(accuracy_drop=0.99))
    list(run)
    assert (run.stopped, run.epochs_done) == ("accuracy_drop", 1)
    run, _, _ = recovery(config(epochs=2, learning_rate=1e-3), StopWhen(accuracy_drop=-2.0))
    list(run)
    assert (run.stopped, run.epochs_done) == (None, 2)


def test_training_ends_when_nothing_gets_better_for_long():
    run, _, _ = recovery(config(epochs=6, learning_rate=0.5), StopWhen(patience=2))
    list(run)
    assert run.stopped == "patience"
    assert run.epochs_done < 6


def test_statistics_measured_anew_are_those_of_the_images():
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    x = 3 + 2 * torch.randn(64, 3, 8, 8, generator=seeded(1))
    reestimate_(network, x.split(16))
    torch.testing.assert_close(network[0].running_mean, x.mean((0, 2, 3)))
    assert network[0].momentum == 0.1
    assert not network.training
    y = network(x)
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(4), atol=0.05, rtol=0)


def test_statistics_are_measured_anew_only_where_that_brings_the_network_closer():
    student, teacher = networks()
    spoilt = copy.deepcopy(student)
    for norm in (m for m in spoilt.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.running_var *= 25
    before = divergence(spoilt.eval(), teacher)
    run = Recovery(spoilt, teacher, TRAIN, HELD, config(epochs=1, learning_rate=1e-5))
    first = next(run)
    assert isinstance(first, Judged)
    assert run.norms_reestimated
    assert first.judgement.loss < before
