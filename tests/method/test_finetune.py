"""Recovering accuracy."""

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from basisconv import BasisConv2d, InvalidRequest, MethodError, SeparableConv2d, replace_
from basisconv.finetune import FinetuneConfig, TrainingData, finetune
from basisconv.finetune.data import flip_crop, paste_boxes
from basisconv.finetune.loop import NEAR
from basisconv.finetune.original import Original
from basisconv.finetune.steps import listening, schedule
from tests.method.shelf import Residual, Untraceable, randomize, seeded

PIXELS = torch.randint(0, 256, (80, 12, 12, 3), generator=seeded(0), dtype=torch.uint8)
LABELS = torch.randint(0, 10, (80,), generator=seeded(1))
DATA = TrainingData(PIXELS, LABELS, 255.0, (0.5, 0.4, 0.3), (0.2, 0.2, 0.3))


def networks() -> tuple[nn.Module, nn.Module]:
    """A truncated student with dropout, and its teacher."""
    teacher = randomize(Residual())
    student = copy.deepcopy(teacher)
    replace_(
        student,
        {
            "block1.conv1": BasisConv2d.from_conv(student.block1.conv1, 6),
            "block1.conv2": SeparableConv2d.from_conv(student.block1.conv2, 10),
        },
    )
    student.head = nn.Sequential(nn.Dropout(0.2), student.head)
    return student, teacher


def config(**changes) -> FinetuneConfig:
    return FinetuneConfig(**{"epochs": 2, "batch_size": 16, "seed": 3, **changes})


def state(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("objective", ["labels", "distill", "both"])
def test_every_objective_falls(objective):
    student, teacher = networks()
    student.head[0].p = 0.0
    steps = list(finetune(student, teacher, DATA, config(objective=objective, epochs=12, augment="none")))
    first, last = (sum(s.loss for s in part) for part in (steps[:5], steps[-5:]))
    assert last < 0.8 * first
    assert not student.training


def test_steps_count_up_and_the_rate_warms_up_and_cools_down():
    steps = list(finetune(*networks(), DATA, config(epochs=3, objective="both")))
    assert [s.step for s in steps] == list(range(1, 16))
    assert [s.epoch for s in steps] == [1] * 5 + [2] * 5 + [3] * 5
    assert {(s.steps, s.epochs) for s in steps} == {(15, 3)}
    rates = [s.learning_rate for s in steps]
    assert rates[0] == 0  # a tenth of the steps only listens
    assert max(rates) == rates[1] == 1e-3  # 5 % of 14 steps is one
    assert rates[-1] < 0.05 * max(rates)
    assert all(s.images_per_second > 0 for s in steps)


def test_a_student_that_nearly_agrees_takes_smaller_steps_unless_a_rate_is_asked_for():
    teacher = randomize(Residual())
    near = copy.deepcopy(teacher)
    near.head.weight.data *= 1.05
    step = next(finetune(copy.deepcopy(near), teacher, DATA, config(epochs=1)))
    assert 0 < step.loss < NEAR
    assert step.learning_rate == pytest.approx(1e-3 * step.loss / NEAR)
    asked = finetune(near, teacher, DATA, config(epochs=1, learning_rate=1e-3))
    assert next(asked).learning_rate == 1e-3


def test_the_first_steps_of_a_run_only_listen():
    student, teacher = networks()
    before = state(student)
    run = finetune(student, teacher, DATA, config(epochs=6))  # 30 steps, of which 3 listen
    heard = [next(run) for _ in range(3)]
    assert [step.learning_rate for step in heard] == [0, 0, 0]
    assert same(before, state(student))
    assert next(run).learning_rate == run.peak > 0
    assert not same(before, state(student))


def test_the_rate_follows_from_the_mean_of_the_losses_that_were_listened_to():
    student, teacher = networks()
    run = finetune(student, teacher, DATA, config(epochs=6))
    heard = [next(run).loss for _ in range(3)]
    assert max(heard) - min(heard) > 0.01 * min(heard)
    assert run.peak == pytest.approx(1e-3 * min(1.0, sum(heard) / 3 / NEAR))


def scaled(factor: float) -> nn.Sequential:
    """The same network whatever the factor: what one layer makes larger, the next makes smaller."""
    torch.manual_seed(5)
    first, second, head = nn.Conv2d(3, 8, 3, bias=False), nn.Conv2d(8, 8, 3, bias=False), nn.Linear(8, 10)
    first.weight.data *= factor
    second.weight.data /= factor
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)


@pytest.mark.parametrize("factor", [2.0**-10, 2.0**10])
def test_weights_of_every_size_learn_alike(factor):
    teacher, found = networks()[1], []
    for student in (scaled(1.0), scaled(factor)):
        losses = [step.loss for step in finetune(student, teacher, DATA, config(epochs=4, augment="none"))]
        found.append(losses)
        assert losses[-1] < losses[0]
    assert found[0] == pytest.approx(found[1], rel=1e-3)


class Seeing(nn.Module):
    """Remembers the images it was asked about."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.seen = networks()[1], []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(x.clone())
        return self.inner(x)


def asked(teacher: Seeing, sides: int = 1) -> list[torch.Tensor]:
    """The batches of its last ten steps: two epochs. With two sides each is followed by its mirror image."""
    return teacher.seen[-10 * sides :: sides]


def test_images_are_seen_as_they_are_before_they_are_mirrored_and_cropped():
    student, teacher = networks()[0], Seeing()
    list(finetune(student, teacher, DATA, config(objective="both", augment="flip_crop")))
    x, _ = DATA.batch(torch.arange(80), torch.device("cpu"))
    known = {row.numpy().tobytes() for row in x}
    found = [{row.contiguous().numpy().tobytes() for row in batch} for batch in asked(teacher, sides=2)]
    assert all(batch <= known for batch in found[:5])
    assert not any(batch <= known for batch in found[5:])


@pytest.mark.parametrize(("changes", "pasted"), [({}, True), ({"augment": "none"}, False)])
def test_classes_are_distilled_from_images_with_boxes_of_others(changes, pasted):
    student, teacher = networks()[0], Seeing()
    list(finetune(student, teacher, replace(DATA, labels=None), config(**changes)))
    x, _ = DATA.batch(torch.arange(80), torch.device("cpu"))
    for batch in asked(teacher)[:5]:
        strange = [image for image in batch if not (image == x).flatten(1).all(1).any()]
        assert bool(strange) is pasted
        for image in strange:  # every pixel is that of one of two images, at its place
            shares = (image == x).all(1).flatten(1).double().mean(1)
            assert shares.max() >= 0.65
            assert shares.topk(2).values.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("data", "changes", "sides"),
    [
        (DATA, {}, 2),
        (DATA, {"objective": "both"}, 2),
        (DATA, {"augment": "none"}, 1),  # a mirrored image may mean something else
        (replace(DATA, labels=None), {}, 1),  # only being the same as the original counts
    ],
)
def test_the_original_is_asked_about_both_sides_where_labels_judge(data, changes, sides):
    student, teacher = networks()[0], Seeing()
    list(finetune(student, teacher, data, config(epochs=1, **changes)))
    steps = teacher.seen[-5 * sides :]
    for plain, other in zip(steps[::sides], steps[sides - 1 :: sides], strict=True):
        assert torch.equal(other, plain.flip(3) if sides == 2 else plain)


class Sides(nn.Module):
    """Scores are the first row of an image's left half: its mirror image gets those of the right half."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, 0, 0, :3]


@pytest.mark.parametrize("probabilities", [False, True])
def test_answers_to_both_sides_are_averaged_where_the_first_choice_is_the_same(probabilities):
    left = torch.tensor([[2.0, 1.0, -3.0], [1.0, 2.0, 0.5], [0.5, 0.2, 0.1]])
    right = torch.tensor([[4.0, -1.0, 1.0], [2.0, 1.0, 0.0], [0.1, 0.3, 0.2]])
    if probabilities:
        left, right = left.softmax(1), right.softmax(1)
    images = torch.cat([left, right.flip(1)], 1)[:, None, None]
    own = left.log() if probabilities else left
    mean = (own + (right.log() if probabilities else right)) / 2
    (found,) = Original(Sides(), both_sides=True)(images)
    assert torch.allclose(found, torch.stack([mean[0], own[1], own[2]]))
    assert torch.equal(found.argmax(1), left.argmax(1))
    assert torch.equal(Original(Sides(), both_sides=False)(images)[0], left)


def test_networks_that_score_no_classes_are_asked_once():
    asked_for = []
    teacher = randomize(Untraceable())
    teacher.register_forward_pre_hook(lambda _, inputs: asked_for.append(inputs[0]))
    images = torch.randn(4, 3, 12, 12, generator=seeded(5))
    found = Original(teacher, both_sides=True)(images)
    assert len(asked_for) == 1
    assert same(dict(enumerate(found)), dict(enumerate(Original(teacher, both_sides=False)(images))))


@pytest.mark.parametrize("size", [(8, 8), (12, 16), (3, 5), (1, 1)])
def test_a_box_is_one_rectangle_of_at_most_a_third_of_an_image(size):
    images = torch.arange(512.0).view(512, 1, 1, 1).expand(512, 3, *size)
    found = paste_boxes(images, seeded(2))
    assert torch.equal(found, paste_boxes(images, seeded(2)))
    changed = (found != images)[:, 0]
    rounding = sum(size) / (size[0] * size[1])  # each side is rounded to whole pixels
    for box in changed[changed.flatten(1).any(1)]:
        rows, columns = box.any(1), box.any(0)
        assert torch.equal(box, rows[:, None] & columns[None])
        assert (rows.nonzero().flatten().diff() == 1).all()
        assert (columns.nonzero().flatten().diff() == 1).all()
        assert box.double().mean() <= 0.3 + rounding
    if size[0] > 1:
        assert changed.any(0).all()  # boxes come everywhere


def test_networks_that_score_no_classes_see_whole_images():
    seen = []
    teacher = randomize(Untraceable())
    teacher.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    images = torch.randn(32, 3, 12, 12, generator=seeded(5))
    list(finetune(randomize(Untraceable()), teacher, TrainingData(images), config(epochs=1)))
    assert seen
    assert all((image == images).flatten(1).all(1).any() for batch in seen for image in batch)


@given(st.integers(1, 500))
def test_the_schedule_stays_between_nothing_and_the_peak_and_reaches_it(steps):
    listen = listening(steps)
    rates = [schedule(done, steps, listen) for done in range(steps)]
    assert all(rate == 0 for rate in rates[:listen])
    assert all(0 < rate <= 1 for rate in rates[listen:])
    assert max(rates) == 1
    assert listen <= steps / 10


def test_training_the_mixing_leaves_basis_filters_and_the_original_to_the_bit():
    student, teacher = networks()
    before, original = state(student), state(teacher)
    list(finetune(student, teacher, DATA, config(update="mixing")))
    after = state(student)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert "block1.conv1.basis.weight" not in changed
    assert {
        "block1.conv1.mixing.weight",
        "block1.conv2.taps.weight",
        "block1.bn1.weight",
        "stem.bias",
    } <= changed
    assert same(original, state(teacher))


def test_training_all_moves_the_basis_too():
    student, teacher = networks()
    before = student.block1.conv1.basis.weight.clone()
    list(finetune(student, teacher, DATA, config(update="all", epochs=1)))
    assert not torch.equal(before, student.block1.conv1.basis.weight)


@pytest.mark.parametrize(("batch_norm", "moves"), [("keep", False), ("follow", True)])
def test_batch_norms_keep_their_statistics_unless_told_to_follow(batch_norm, moves):
    student, teacher = networks()
    student.train()
    before = student.block1.bn1.running_mean.clone()
    list(finetune(student, teacher, DATA, config(epochs=1, batch_norm=batch_norm)))
    assert torch.equal(before, student.block1.bn1.running_mean) is not moves


class Viewing(nn.Module):
    """Its `view` takes one memory layout only."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(4 * 12 * 12, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.conv(x).view(len(x), -1))


def test_networks_that_take_one_memory_layout_only_are_trained_in_it():
    teacher = randomize(Viewing())
    student = copy.deepcopy(teacher)
    student.conv.weight.data *= 0.5
    steps = list(finetune(student, teacher, DATA, config(epochs=6, augment="none")))
    assert steps[-1].loss < steps[0].loss


def test_a_seed_decides_the_run_to_the_bit():
    results = []
    for seed in (3, 3, 4):
        student, teacher = networks()
        torch.manual_seed(len(results))  # whatever the program drew before
        list(finetune(student, teacher, DATA, config(seed=seed)))
        results.append(state(student))
    assert same(results[0], results[1])
    assert not same(results[0], results[2])


# at 0.1 the weights have outgrown their first size before the run is stopped
@pytest.mark.parametrize(("stop", "rate"), [(0, None), (1, None), (4, None), (5, None), (7, None), (7, 0.1)])
def test_a_resumed_run_ends_at_the_same_bits(stop, rate):
    wanted = config(learning_rate=rate)
    student, teacher = networks()
    list(finetune(student, teacher, DATA, wanted))
    interrupted, _ = networks()
    run = finetune(interrupted, teacher, DATA, wanted)
    for _ in range(stop):
        next(run)
    saved = run.state_dict()
    assert all(isinstance(value, torch.Tensor) for value in saved.values())
    resumed, _ = networks()
    run = finetune(resumed, teacher, DATA, wanted)
    run.resume(saved)
    rest = list(run)
    assert rest[0].step == stop + 1
    assert same(state(student), state(resumed))


def test_a_state_of_another_network_is_refused():
    student, teacher = networks()
    saved = finetune(student, teacher, DATA, config()).state_dict()
    with pytest.raises(InvalidRequest, match="another structure"):
        finetune(copy.deepcopy(teacher), teacher, DATA, config()).resume(saved)


def test_the_programs_own_randomness_is_left_alone():
    student, teacher = networks()
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    list(finetune(student, teacher, DATA, config(epochs=1)))
    assert torch.equal(torch.rand(3), expected)


def test_networks_that_score_no_classes_learn_from_unlabelled_images():
    teacher = randomize(Untraceable())
    student = copy.deepcopy(teacher)
    replace_(student, {"b": BasisConv2d.from_conv(student.b, 5)})
    unlabelled = TrainingData(torch.randn(64, 3, 12, 12, generator=seeded(5)))
    steps = list(finetune(student, teacher, unlabelled, config(epochs=8)))
    assert steps[-1].loss < 0.85 * steps[0].loss


def test_objectives_that_cannot_be_served_are_refused_at_once():
    student, teacher = networks()
    with pytest.raises(InvalidRequest, match="needs labels"):
        finetune(student, teacher, TrainingData(PIXELS), config(objective="both"))
    with pytest.raises(InvalidRequest, match="original"):
        finetune(student, None, DATA, config(objective="distill"))
    with pytest.raises(InvalidRequest, match="no training images"):
        finetune(student, teacher, TrainingData(PIXELS[:0]), config())


def test_a_loss_that_is_no_number_ends_the_run_with_a_way_out():
    student, teacher = networks()
    student.head[1].weight.data.fill_(float("inf"))
    with pytest.raises(MethodError, match="loss became") as caught:
        list(finetune(student, teacher, DATA, config()))
    assert caught.value.hint is not None


def test_images_are_prepared_as_the_network_was_trained():
    x, y = DATA.batch(torch.tensor([4, 2]), torch.device("cpu"))
    expected = (
        PIXELS[2].permute(2, 0, 1) / 255 - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)
    ) / torch.tensor([0.2, 0.2, 0.3]).view(3, 1, 1)
    torch.testing.assert_close(x[1], expected)
    assert y is not None
    assert y.tolist() == [int(LABELS[4]), int(LABELS[2])]


def test_float_images_are_used_as_they_are():
    images = torch.randn(4, 3, 8, 8, generator=seeded(0))
    x, _ = TrainingData(images, None, 255.0, (9.0,), (9.0,)).batch(torch.arange(4), torch.device("cpu"))
    assert torch.equal(x, images)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 999), st.sampled_from([(8, 8), (16, 24), (9, 7), (4, 4)]))
def test_every_augmented_image_is_a_shifted_and_perhaps_mirrored_one(seed, size):
    images = torch.arange(1, 1 + 2 * 3 * size[0] * size[1]).reshape(2, 3, *size).float()
    found = flip_crop(images, seeded(seed))
    assert found.shape == images.shape
    high, wide = size[0] // 8, size[1] // 8
    framed = nn.functional.pad(images, (wide, wide, high, high))
    for image, frame in zip(found, framed, strict=True):
        crops = [
            frame[:, top : top + size[0], left : left + size[1]]
            for top in range(2 * high + 1)
            for left in range(2 * wide + 1)
        ]
        assert any(torch.equal(image, c) or torch.equal(image, c.flip(2)) for c in crops)


def test_augmentation_mirrors_about_half_and_shifts_evenly():
    images = torch.arange(16.0).reshape(1, 1, 1, 16).expand(4000, 1, 16, 16)
    found = flip_crop(images, seeded(0))[:, 0, 8]
    mirrored = found[:, 4] > found[:, 12]
    assert 0.45 < mirrored.float().mean() < 0.55
    shifts = (found[~mirrored][:, 8] - 8).long()
    assert {int(s) for s in shifts.unique()} == {-2, -1, 0, 1, 2}
