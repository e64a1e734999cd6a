"""How pages call the networks."""

from benchmarks.networks import MLPERF, VGG16
from tests.support.networks import PLAIN

TITLES = {
    "cifar10_resnet20_a": "ResNet-20, CIFAR-10",
    "cifar10_resnet56_a": "ResNet-56, CIFAR-10",
    "cifar10_resnet20_b": "ResNet-20 b, CIFAR-10",
    "cifar10_resnet56_b": "ResNet-56 b, CIFAR-10",
    "cifar100_resnet20_b": "ResNet-20, CIFAR-100",
    "cifar100_resnet56_b": "ResNet-56, CIFAR-100",
    PLAIN: "plain network, CIFAR-10",
    MLPERF: "MLPerf Tiny ResNet-8, CIFAR-10",
    VGG16: "VGG16, CIFAR-100",
}
