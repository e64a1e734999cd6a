"""docs/reference/reasons.md: why a layer stays as it is."""

from basisconv.reasons import Reason
from reference.tables import GENERATED, table

HEAD = f"""# Why a layer stays as it is

A layer that is not replaced says why: `reason` in the layer table of a network (`GET /v1/models/{{id}}/layers`) where no request could change it, and `result.layers[].reason` of a job, or `layers[].reason` of a plan, where this request did not. Nothing is wrong with such a layer: it works on unchanged, in every file.

{GENERATED}
"""
ALWAYS = "of the network: no request changes it"
HELP = {
    Reason.DEPTHWISE: (
        ALWAYS,
        "Nothing. Such layers cost little as a rule; the 1×1 layers beside them are compressed.",
    ),
    Reason.GROUPED_NEVER_PAYS: (ALWAYS, "Nothing."),
    Reason.NEVER_CHEAPER: (ALWAYS, "Nothing: the layer is small."),
    Reason.UNSUPPORTED_KIND: (ALWAYS, "Nothing; the other layers must meet the target alone."),
    Reason.CUSTOM_LAYER: (
        ALWAYS,
        "Export the network with plain layers (weight norm removed, no hooks), and upload it again.",
    ),
    Reason.SHARED_WEIGHTS: (
        ALWAYS,
        "Export it with weights of its own for each layer, if they need not stay equal.",
    ),
    Reason.NOT_REACHED: ("of the images", "Give images that make the network use this layer."),
    Reason.EXCLUDED: ("of the request", "Change `compression.layers`."),
    Reason.NOT_REQUESTED: ("of the request", "Name the layer in `target.ranks`, or choose another target."),
    Reason.AS_ASKED: ("of the request", 'Give a rank in place of `{"form": "dense"}`.'),
    Reason.NOT_CHEAPER: (
        "of the rank",
        "A lower rank, energy or share; `break_even_rank` in the layer table says how low.",
    ),
    Reason.NOT_FASTER: (
        "of the machine",
        "Nothing on this machine. With the target `macs` it is replaced for its operations, whatever the time.",
    ),
    Reason.WITHIN_BUDGET: ("of the target", "A lower target reaches more layers."),
    Reason.WITHIN_ACCURACY: ("of the target", "Allow more loss, or fine-tune (`training.epochs`)."),
    Reason.LINEAR: (
        "of the target",
        "A target of `macs`, `params`, `latency` or `accuracy_drop`, or `ranks` that name it.",
    ),
    Reason.POINTWISE: ("of kind `train`", "Nothing: it is learned as it is."),
}


def page() -> str:
    rows = ((f"`{reason}`", reason.sentence, *HELP[reason]) for reason in Reason)
    return HEAD + "\n" + table(("code", "why", "a matter", "what helps, if it shall change"), rows)
