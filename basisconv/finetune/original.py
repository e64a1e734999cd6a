"""What a student is to answer: as the original does, also about the other side of an image."""

import torch
from torch import Tensor, nn

from basisconv.cost import evaluating
from basisconv.outputs import is_classifier, logits, output_tensors


class Original:
    """Asks the original.

    `both_sides`: a classifier is also asked about the mirrored images, and where its first choice is the same
    the mean of both logits counts, otherwise its answer to the image itself (an arrow to the left is none to
    the right). A student that comes close to such means is right more often; but they are not quite what the
    original says, so leave them out where only being the same counts. The first choice is always its own.
    """

    def __init__(self, network: nn.Module | None, both_sides: bool) -> None:
        self._network, self._both_sides = network, both_sides

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        """Its outputs for a batch, without gradients; none where there is no original."""
        if self._network is None:
            return ()
        with evaluating(self._network):
            plain = output_tensors(self._network(images))
            if not self._both_sides or images.dim() != 4 or not is_classifier(plain):
                return plain
            mirrored = output_tensors(self._network(images.flip(3)))
        own, other = logits(plain[0].float()), logits(mirrored[0].float())
        same = own.argmax(1) == other.argmax(1)
        return (torch.where(same[:, None], (own + other) / 2, own),)
