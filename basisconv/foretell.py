"""What accuracy a smaller network will lose on new images, foretold from images that it was not fitted to.

Shapes: N images, K classes.

Losses are counted against the labels, which needs no trust in the scores. The original has usually been
trained on these very images and remembers them: it answers nearly all right, so nearly every answer that
changes counts as lost, while on new images many of those answers were wrong before, or become right. But its
answers are also surer here, so fewer change. For networks that nearly fit their train images the two
about cancel at losses of a point; where more was remembered than understood, the estimate is too high by
up to 2.5 times (docs/method.md has the figures). On images new to the original it is right on average.
"""

from torch import Tensor


def accuracy_lost(scores_NK: Tensor, reference_NK: Tensor, labels_N: Tensor | None = None) -> float:
    """Share of the images that is lost, and one standard error of it on top: a promise needs some caution.

    `scores_NK`, `reference_NK`: answers of the smaller network and of the original, the largest counts.
    `labels_N`: int64. Without labels every answer that becomes another is lost, which is the most that
    accuracy can lose. Equal answers lose 0; a better network loses less than 0.
    """
    before_N, after_N = reference_NK.argmax(1), scores_NK.argmax(1)
    if labels_N is None:
        lost_N = (before_N != after_N).double()
    else:
        lost_N = (before_N == labels_N).double() - (after_N == labels_N).double()
    error = lost_N.std(correction=0) / len(lost_N) ** 0.5
    return float(lost_N.mean() + error)
