"""What the prototype reached without tuning: the floor, top-1 in percent on all CIFAR-10 test images.

One calibration draw each. `uniform responses` and `weights` are its controls with one rank share for all
layers.
"""

FLOOR: dict[str, dict[float, float]] = {
    "cifar10_resnet20_a": {0.3: 91.45, 0.5: 90.29, 0.6: 89.49, 0.7: 87.13, 0.8: 80.32},
    "cifar10_resnet56_a": {0.3: 93.31, 0.5: 92.87, 0.6: 92.31, 0.7: 91.15, 0.8: 88.18},
}
AIM: dict[str, dict[float, float]] = {  # points lost at most
    "cifar10_resnet20_a": {0.5: 1.2, 0.7: 3.8},
    "cifar10_resnet56_a": {0.5: 0.4, 0.7: 1.8},
}
