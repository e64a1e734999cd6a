"""The same code on a CUDA device."""

import copy

import pytest
import torch

from basisconv import DecomposeConfig, Decomposition, count, decompose_
from basisconv.finetune import FinetuneConfig, Recovery, TrainingData, finetune
from basisconv.finetune.losses import distillation
from basisconv.scratch import ScratchConfig, ScratchTraining, TrainConfig, randomize_
from tests.method.shelf import Residual, images, randomize

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


def test_a_network_is_decomposed_and_tuned_on_the_device_as_on_the_cpu():
    ends = {}
    for device in ("cpu", "cuda"):
        network = randomize(Residual()).to(device)
        teacher, x = copy.deepcopy(network), images().to(device)
        *_, end = decompose_(network, x[:1], DecomposeConfig(target_value=0.5), lambda x=x: iter(x.split(32)))
        assert isinstance(end, Decomposition)
        assert end.costs.macs <= 0.5 * count(teacher, x[:1]).macs
        ends[device] = [(layer.form, layer.rank) for layer in end.layers]
        steps = list(finetune(network, teacher, TrainingData(x), FinetuneConfig(epochs=6, batch_size=16)))
        assert steps[-1].loss < steps[0].loss
    assert ends["cpu"] == ends["cuda"]


def test_a_network_is_trained_from_scratch_with_the_filters_that_the_cpu_would_draw():
    labels = torch.arange(96) % 10
    networks = {}
    for device in ("cpu", "cuda"):
        network, x = randomize(Residual()).to(device), images().to(device)
        randomize_(network, x[:1], ScratchConfig(rank_fraction=0.5), x)
        run = ScratchTraining(network, TrainingData(x, labels), TrainConfig(epochs=12, batch_size=32))
        steps = list(run)
        assert steps[-1].loss < steps[0].loss
        networks[device] = network.cpu()
    filters = [network.block1.conv1.first.weight for network in networks.values()]
    assert torch.equal(filters[0], filters[1])
    assert networks["cuda"].block1.conv1.is_as_drawn


def test_a_recovery_on_the_device_judges_in_full_precision_and_keeps_the_best():
    teacher = randomize(Residual()).to("cuda")
    student = copy.deepcopy(teacher)
    student.block1.conv1.weight.data *= 0.8
    x = images(96).to("cuda")
    train, held = TrainingData(x[:64]), TrainingData(x[64:])
    run = Recovery(student, teacher, train, held, FinetuneConfig(epochs=3, batch_size=16, augment="none"))
    list(run)
    assert run.kept is not None
    assert run.kept.judgement.loss == min(judged.judgement.loss for judged in run.judged)
    with torch.no_grad():
        now = float(distillation([student(x[64:])], [teacher(x[64:])]))
    assert now == pytest.approx(run.kept.judgement.loss, rel=1e-3)
