"""The same code on a CUDA device. Waits for a GPU: never run yet."""

import copy
from contextlib import suppress

import pytest
import torch

from basisconv import DecomposeConfig, Decomposition, count, decompose_
from basisconv.cost import sites
from basisconv.finetune import FinetuneConfig, Recovery, TrainingData, finetune
from basisconv.finetune.losses import distillation
from basisconv.formats import verify
from basisconv.formats.export import on_device
from basisconv.formats.onnx_session import NoCuda, check_cuda
from basisconv.latency import Cut, Timer, TorchTimer
from basisconv.latency.onnx_timer import onnx_timer
from basisconv.scratch import ScratchConfig, ScratchTraining, TrainConfig, randomize_
from tests.formats import nets
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


def timers() -> dict[str, Timer]:
    network = nets.read(nets.onnx_of(randomize(Residual())), "onnx")
    module = on_device(network.module, "cuda")
    found: dict[str, Timer] = {"torch": TorchTimer(module, network.example().cuda())}
    with suppress(NoCuda):
        check_cuda()
        found["onnx"] = onnx_timer(network, device="cuda")
    return found


@pytest.mark.parametrize("runtime", ["torch", "onnx"])
def test_a_network_is_timed_and_planned_on_the_device(runtime: str):
    timer = timers().get(runtime)
    if timer is None:
        pytest.skip("onnxruntime-gpu is not installed")
    network = nets.read(nets.onnx_of(randomize(Residual())), "onnx").module
    x = nets.images(1)
    pairs = {s.layer.name: Cut("basis", 2) for s in sites(network, x) if s.layer.compressible}
    times = timer.layers(pairs)
    assert set(pairs) <= set(times.layers)
    assert all(ns > 0 for ns in times.layers.values())
    assert min(timer.whole(pairs).before, timer.whole(pairs).after) > 0
    wish = DecomposeConfig(target_kind="latency", target_value=1.0, basis="weights")
    *_, done = decompose_(network.cuda(), x.cuda(), wish, None, timer)
    assert isinstance(done, Decomposition)
    assert all(layer.replaced or layer.reason for layer in done.layers)


def test_a_wide_layer_as_a_narrow_pair_takes_less_time_on_the_device():
    layer = torch.nn.Sequential(torch.nn.Conv2d(512, 512, 3, padding=1)).cuda()
    timer = TorchTimer(layer, torch.randn(8, 512, 56, 56, device="cuda"), search=True)
    assert timer.whole({"0": Cut("basis", 32)}).ratio < 0.9


@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_a_file_is_timed_on_the_device(kind: str):
    if kind == "onnx":
        try:
            load = verify.onnx_load(nets.small_onnx(), device="cuda")
        except NoCuda as reason:
            pytest.skip(str(reason))
    else:
        load = verify.pt2_load(nets.small_pt2(), device="cuda")
    timed = verify.paired_latency_ms({"it": load}, (3, nets.SIDE, nets.SIDE), batch=4, repeats=5)
    assert timed["it"].median_ms > 0
