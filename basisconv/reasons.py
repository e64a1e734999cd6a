"""Why a layer stays as it is: stable codes, each with its sentence."""

from enum import StrEnum


class Reason(StrEnum):
    """Codes in `Layer.reason` (it can never pay) and `LayerOutcome.reason` (it did not this time)."""

    DEPTHWISE = "depthwise"
    GROUPED_NEVER_PAYS = "grouped_never_pays"
    NEVER_CHEAPER = "never_cheaper"
    UNSUPPORTED_KIND = "unsupported_kind"
    CUSTOM_LAYER = "custom_layer"
    SHARED_WEIGHTS = "shared_weights"
    NOT_REACHED = "not_reached"
    EXCLUDED = "excluded"
    NOT_REQUESTED = "not_requested"
    AS_ASKED = "kept_as_asked"
    NOT_CHEAPER = "not_cheaper"
    NOT_FASTER = "not_faster"
    WITHIN_BUDGET = "kept_by_budget"
    WITHIN_ACCURACY = "kept_by_accuracy"
    LINEAR = "linear_kept"
    POINTWISE = "pointwise_kept"

    @property
    def sentence(self) -> str:
        return _SENTENCES[self]


_SENTENCES = {
    Reason.DEPTHWISE: "A depthwise convolution has one filter per channel: there is no basis to share.",
    Reason.GROUPED_NEVER_PAYS: "Its groups are so narrow that a basis per group costs more at any rank.",
    Reason.NEVER_CHEAPER: "Two layers would cost at least as much at any rank.",
    Reason.UNSUPPORTED_KIND: "Only two-dimensional convolutions and linear layers are compressed.",
    Reason.CUSTOM_LAYER: "It is no plain convolution: computed weights, a class of its own, or hooks.",
    Reason.SHARED_WEIGHTS: "Another layer, or the network's own code, uses the same weights.",
    Reason.NOT_REACHED: "No calibration image reaches this layer.",
    Reason.EXCLUDED: "The request leaves this layer out.",
    Reason.NOT_REQUESTED: "The request names ranks for other layers only.",
    Reason.AS_ASKED: "The request keeps it as it is; its weights may follow what comes before it.",
    Reason.NOT_CHEAPER: "At this rank two layers would cost at least as much.",
    Reason.NOT_FASTER: "No pair was timed faster than the layer itself.",
    Reason.WITHIN_BUDGET: "The budget is met at less harm by shrinking other layers.",
    Reason.WITHIN_ACCURACY: "Every smaller network that was tried lost more accuracy than is allowed.",
    Reason.LINEAR: "The paper's rule is about convolutions; linear layers follow a budget or explicit ranks.",
    Reason.POINTWISE: "A 1x1 convolution is learned mixing already; it needs no filters before it.",
}
