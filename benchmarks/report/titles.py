"""How pages call the networks."""

from benchmarks.networks.vgg16 import VGG16

TITLES = {
    "cifar10_resnet20_a": "ResNet-20, CIFAR-10",
    "cifar10_resnet56_a": "ResNet-56, CIFAR-10",
    "cifar100_resnet56_b": "ResNet-56, CIFAR-100",
    VGG16: "VGG16, CIFAR-100",
}
