"""What codes are called on the pages. An unknown code is shown as its own words, never hidden."""

from typing import Final

STATUS: Final = {
    "inspecting": "Being inspected",
    "ready": "Ready",
    "rejected": "Rejected",
    "queued": "Waiting for a worker",
    "running": "Running",
    "cancelling": "Being cancelled",
    "cancelled": "Cancelled",
    "succeeded": "Finished",
    "completed": "Finished",
    "failed": "Failed",
}

STAGES: Final = {
    "calibrate": ("Calibrate", "Measures how the network answers your images"),
    "decompose": ("Decompose", "Chooses ranks and splits the convolutions"),
    "finetune": ("Fine-tune", "Lets the smaller network learn from the original"),
    "evaluate": ("Evaluate", "Measures accuracy, size and latency"),
    "export": ("Export", "Writes the files"),
    "verify": ("Verify", "Runs every file and compares it with the network"),
}

STAGES_OF_TRAINING: Final = STAGES | {
    "calibrate": ("Look", "Runs the network as it came on your images"),
    "decompose": ("Restructure", "Draws fixed random filters and fresh weights"),
    "finetune": ("Train", "Learns the mixing from your labels"),
}

# result.original, truncated and compressed of either kind of job
NETWORKS: Final = {
    "compress": {"original": "Original", "truncated": "Decomposed", "compressed": "Compressed"},
    "train": {"original": "As it came", "truncated": "Untrained", "compressed": "Trained"},
}

# Why a layer stays as it is: before a job (Layer.reason) and after one (result.layers[].reason).
REASONS: Final = {
    "depthwise": "Depthwise: one filter per channel, so there is no basis to share",
    "grouped_never_pays": "Its groups are so narrow that a basis per group costs more at any rank",
    "never_cheaper": "Two layers would cost at least as much at any rank",
    "unsupported_kind": "Only two-dimensional convolutions and linear layers are compressed",
    "custom_layer": "Not a plain convolution: computed weights, a class of its own or hooks",
    "shared_weights": "Another layer, or the network's own code, uses the same weights",
    "not_reached": "No calibration image reaches it",
    "excluded": "Left out on request",
    "not_requested": "The request names ranks for other layers only",
    "kept_as_asked": "Asked to stay; its weights may follow what comes before it",
    "not_cheaper": "At this rank two layers would cost at least as much",
    "not_faster": "No pair was timed faster than the layer itself",
    "kept_by_budget": "The budget is met at less harm by shrinking other layers",
    "kept_by_accuracy": "Every smaller network that was tried lost more accuracy than is allowed",
    "linear_kept": "Linear layers follow a budget or explicit ranks only",
    "pointwise_kept": "A 1×1 convolution is learned mixing already",
}

FORMS: Final = {
    "basis": "k×k, then 1×1",
    "kx1_1xk": "k×1, then 1×k",
    "1xk_kx1": "1×k, then k×1",
}

WARNINGS: Final = {
    "baseline_mismatch": "The original network does poorly on these images",
    "target_missed": "The target was missed",
    "accuracy_limit_missed": "More accuracy was lost than the limit allows",
    "limit_not_judged": "The limit could not be judged",
    "no_speed_up": "Smaller, but not faster everywhere",
    "no_smaller_network": "No smaller network was accurate enough",
    "few_held_back_images": "Few images to judge by",
    "nothing_replaced": "No layer was replaced",
    "learnable_limit_missed": "More is left to learn than the limit allows",
    "nothing_learned": "The network learned nothing that shows",
    "no_images": "Calibrated without images",
}

TARGETS: Final = {
    "macs": "of the operations",
    "params": "of the parameters",
    "latency": "of the time",
    "energy": "of the energy per layer",
    "rank_fraction": "of every layer's rank",
    "expansion": "filters per channel",
    "ranks": "given ranks",
}


def plain(code: str | None) -> str:
    """A code as words: ``not_cheaper`` -> Not cheaper."""
    return "" if not code else code.replace("_", " ").capitalize()


def reason(code: str | None) -> str:
    return REASONS.get(code or "", plain(code))


def form(code: str | None) -> str:
    return FORMS.get(code or "", plain(code))


def warning(code: str | None) -> str:
    return WARNINGS.get(code or "", plain(code))


def status(code: str | None) -> str:
    return STATUS.get(code or "", plain(code))
