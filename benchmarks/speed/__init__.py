"""Seconds and memory of a decomposition with ranks, on a network of ResNet-50's size, beside two peers."""
