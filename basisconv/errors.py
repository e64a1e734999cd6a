"""What the method refuses, with the numbers a user needs. Codes are those of the REST contract."""

from dataclasses import dataclass


@dataclass
class MethodError(Exception):
    """A refusal: `code` is stable, `detail` a sentence with the numbers, `layer` a submodule path.

    `achievable` is the smallest share of the original that the target's quantity can reach.
    """

    code: str
    detail: str
    layer: str | None = None
    hint: str | None = None
    achievable: float | None = None

    def __str__(self) -> str:
        return f"{self.layer}: {self.detail}" if self.layer else self.detail


class InfeasibleTarget(MethodError):  # noqa: N818 - says what is wrong
    """The target asks for less than the smallest network the allowed layers can give."""

    def __init__(self, detail: str, achievable: float, hint: str | None = None) -> None:
        super().__init__("target_infeasible", detail, hint=hint, achievable=achievable)


class MalformedWeights(MethodError):  # noqa: N818 - says what is wrong
    """NaN, infinite or unusable numbers in one layer."""

    def __init__(self, layer: str, detail: str) -> None:
        super().__init__("malformed_model", detail, layer=layer)


class InvalidRequest(MethodError):  # noqa: N818 - says what is wrong
    """A value that does not fit the network, quoted with what would fit."""

    def __init__(self, detail: str, layer: str | None = None, hint: str | None = None) -> None:
        super().__init__("validation_failed", detail, layer=layer, hint=hint)
