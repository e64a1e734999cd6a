"""The two-layer forms that can stand in a layer's place, by name; needs no torch."""

from typing import Literal, NamedTuple, get_args

Form = Literal["basis", "kx1_1xk", "1xk_kx1"]
FORMS: tuple[Form, ...] = get_args(Form)


class Cut(NamedTuple):
    """What stands in a layer's place."""

    form: Form
    rank: int
