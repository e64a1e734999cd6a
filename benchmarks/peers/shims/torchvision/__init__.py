"""The five names that aimet-torch imports from torchvision; its compression calls none of them.

torchvision's wheels belong to a CUDA build of torch and fail beside the CPU build. This folder is put on
the path of one peer's process only, and there is nothing to call here: whoever tried would get an error.
"""

from torchvision import datasets, ops, transforms

__all__ = ["datasets", "ops", "transforms"]
