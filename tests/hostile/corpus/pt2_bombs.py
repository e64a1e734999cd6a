"""Small torch.export archives that ask for more time or memory than anybody has."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.formats.nets import edited, pt2_of, small_pt2
from tests.hostile.corpus import Traps, add

BOMB = "resource_limit malformed_model unsupported_operator unsafe_serialization"
GRAPH = "models/model.json"


class Behind(nn.Module):
    """A convolution, to which the bomb's largest number is added."""

    def __init__(self, bomb: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bomb = bomb

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + self.bomb(x).max()


def case(name: str, bomb: Callable[[Tensor], Tensor], **more: Any) -> None:
    """Exported from shapes alone: nothing of the bomb is ever computed here."""

    def make(_: Traps) -> bytes:
        return pt2_of(Behind(bomb).eval())

    add("pt2 bombs", name, make, BOMB, filename="model.pt2", **more)


case("full of 2^40", lambda x: torch.full((1 << 20, 1 << 20), 1.0))
case("arange to 10^12", lambda x: torch.arange(10**12, dtype=torch.float32))
case("eye of 2^20", lambda x: torch.eye(1 << 20))
case("repeat by 2^36", lambda x: x.mean().reshape(1, 1).repeat(1 << 18, 1 << 18))
case("expand and add to 2^36", lambda x: x.mean().expand(1 << 18, 1 << 18) + 1)
case("pad by 10^6 a side", lambda x: torch.nn.functional.pad(x, (10**6,) * 4))
case("upsample to 2^19 a side", lambda x: torch.nn.functional.interpolate(x, size=(1 << 19, 1 << 19)))
case("an outer product of 2^18", lambda x: torch.outer(torch.ones(1 << 18), torch.ones(1 << 18)))
case(
    "a square matrix of 2^17, multiplied by itself",
    lambda x: torch.mm(torch.ones(1, 1).expand(1 << 17, 1 << 17), torch.ones(1, 1).expand(1 << 17, 1 << 17)),
)
case(
    "10,000 matrices of 3,000 by 3,000",
    lambda x: torch.bmm(
        torch.ones(1, 1, 1).expand(10_000, 3000, 3000), torch.ones(1, 1, 1).expand(10_000, 3000, 3000)
    ),
)
case("doubling 38 times", lambda x: doubled(x.flatten()[:64], 38))


def doubled(x: Tensor, times: int) -> Tensor:
    for _ in range(times):
        x = torch.cat([x, x])
    return x


class Wide(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 128, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def wide(_: Traps) -> bytes:
    """torch.export runs nothing on fake images, so that this is made at once."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True):
        image = torch.empty(2, 3, 8000, 8000)
    return pt2_of(Wide().eval(), x=image)


add("pt2 bombs", "a convolution of 10^12 multiplications", wide, BOMB, filename="model.pt2")

# Sizes that are formulas: torch hands them to sympy.


def size_is(expression: str) -> Callable[[Traps], bytes]:
    def change(program: Any) -> None:
        sizes = program["graph_module"]["graph"]["tensor_values"]["x"]["sizes"]
        sizes[0] = {"as_expr": {"expr_str": expression, "hint": {"as_int": 2}}}

    return lambda _: edited(small_pt2(), GRAPH, change)


FORMULAS = {
    "a power tower": "PowByNatural(9, PowByNatural(9, PowByNatural(9, 9)))",
    "a large power": "PowByNatural(999999999999, 999999999)",
    "a product of 90 large numbers": "*".join(["999999999999999999"] * 90),
    "brackets nested 900 deep": "(" * 900 + "s0" + ")" * 900,
    "calls nested 200 deep": "Max(" * 200 + "s0" + ", 1)" * 200,
    "a sum to be multiplied out": "*".join(f"(s{n} + s{n + 1} + {n})" for n in range(60)),
    "a remainder of many terms": "Mod(" + "+".join(f"s{n}*s{n + 1}" for n in range(80)) + ", 7)",
    "symbols that it never declares": "s7 + s8",
    "nothing": "",
    "an open bracket": "Max(s0",
    "a comparison": "s0 < 3",
    "division by zero": "FloorDiv(s0, 0)",
}
for _name, _formula in FORMULAS.items():
    add(
        "pt2 bombs",
        f"a size that is {_name}",
        size_is(_formula),
        f"{BOMB} ready",
        filename="model.pt2",
    )


def many_nodes(_: Traps) -> bytes:
    def change(program: Any) -> None:
        graph = program["graph_module"]["graph"]
        relu = next(node for node in graph["nodes"] if "relu" in node["target"])
        at = graph["nodes"].index(relu) + 1
        name = relu["outputs"][0]["as_tensor"]["name"]
        extra = []
        for number in range(30_000):
            graph["tensor_values"][f"extra{number}"] = graph["tensor_values"][name]
            source = name if number == 0 else f"extra{number - 1}"
            extra.append(
                relu
                | {
                    "inputs": [{"name": "self", "arg": {"as_tensor": {"name": source}}, "kind": 1}],
                    "outputs": [{"as_tensor": {"name": f"extra{number}"}}],
                    "name": f"extra{number}",
                }
            )
        graph["nodes"][at:at] = extra

    return edited(small_pt2(), GRAPH, change)


add("pt2 bombs", "30,000 nodes that nobody reads", many_nodes, f"{BOMB} ready", filename="model.pt2")
