"""Templates as responses: escaping on, own filters, a content policy without any inline script or style."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader

from app.web import formatting, wording
from app.web.assets import static, stylesheet

HERE: Final = Path(__file__).resolve().parent

# Charts set styles through the object model, which this policy allows; style attributes it forbids.
CONTENT_POLICY: Final = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)


@cache
def service_version() -> str:
    try:
        return version("basisconv")
    except PackageNotFoundError:  # run from a checkout that was not installed
        return ""


def _normalisation(model_input: dict[str, Any]) -> str:
    """The input's preprocessing in a few words."""
    mean, std = model_input.get("mean") or [0], model_input.get("std") or [1]
    if all(value == 0 for value in mean) and all(value == 1 for value in std):
        return f"pixels ÷ {model_input.get('scale', 255):g}"
    return f"pixels ÷ {model_input.get('scale', 255):g}, mean {_few(mean)}, deviation {_few(std)}"


def _few(values: list[float]) -> str:
    shown = ", ".join(f"{value:.3g}" for value in values[:3])
    return shown if len(values) <= 3 else shown + " …"


def _kind(layer: dict[str, Any]) -> str:
    """``3×3``, ``transposed`` and ``1-D`` where it is so, with stride and groups where they are not 1."""
    if layer["kind"] == "linear":
        return "Linear"
    words = "×".join(str(side) for side in layer["kernel_size"])
    if layer["kind"].startswith("conv_transpose"):
        words = f"transposed {words}"
    if layer["kind"].endswith("1d"):
        words += " (1-D)"
    steps = layer["stride"]
    if any(step != 1 for step in steps):
        words += f", stride {steps[0] if len(set(steps)) == 1 else '×'.join(map(str, steps))}"
    if layer["groups"] != 1:
        words += f", {layer['groups']} groups"
    return words


def _achievable(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
        return formatting.percent(float(value))
    return str(value)


@cache
def environment() -> Environment:
    """Everything is escaped; members that a document lacks are empty."""
    env = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for function in (
        formatting.count,
        formatting.whole,
        formatting.size,
        formatting.percent,
        formatting.duration,
        formatting.moment,
        formatting.shape,
        wording.status,
        wording.reason,
        wording.form,
        wording.warning,
    ):
        env.filters[function.__name__] = function
    env.filters |= {
        "words": wording.plain,
        "normalisation": _normalisation,
        "kind": _kind,
        "achievable": _achievable,
    }
    env.globals |= {"static": static, "stylesheet": stylesheet, "version": service_version()}
    return env


def render(
    name: str, status: int = 200, *, here: str = "", signed_in: bool = True, **context: Any
) -> HTMLResponse:
    """A page. It is the caller's own, so no cache may keep it."""
    body = environment().get_template(name).render(here=here, signed_in=signed_in, **context)
    return HTMLResponse(
        body,
        status_code=status,
        headers={"Content-Security-Policy": CONTENT_POLICY, "Cache-Control": "no-store", "Vary": "Cookie"},
    )
