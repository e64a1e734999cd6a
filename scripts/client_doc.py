"""Write docs/command-line.md and docs/client.md from the client's code; --check only compares them."""

import inspect
import re
import sys
from pathlib import Path
from typing import Any, get_args

import typer.main

import basisconv_client
from basisconv_client import Client, errors, wishes
from basisconv_client.cli import build, exits

DOCS = Path(__file__).resolve().parents[1] / "docs"
MADE = "This page is generated from `client/basisconv_client` (`make client-docs`).\n"

COMMAND_LINE = f"""# Command line

`pipx install ./client` puts `basisconv` wherever the service can be reached; it needs Python 3.11 and neither torch
nor the server. Where the server's package is installed too (`make setup`), `serve`, `keys`, `backup` and the other
commands of the server appear beside these. {MADE}
```sh
basisconv login https://basisconv.example
basisconv compress net.onnx --data images.npz --macs 0.5 -o small.onnx
```

- **Signing in.** `login` stores server and key in `$XDG_CONFIG_HOME/basisconv/profile.json` (else under `~/.config`),
  readable for you alone. `BASISCONV_SERVER` and `BASISCONV_API_KEY` go before them. A stored key is sent to the server
  that it was stored for, and to no other.
- **Sent once.** A file whose bytes are on the server already (the same SHA-256, with the same input) is not sent again.
  An upload that was cut goes on when the same command runs again, on this machine or another.
- **Ctrl-C** leaves the job running and says how to go on.
- **Files** are written under their name only when all of them is there with the listed SHA-256; until then a hidden
  `.NAME.….part` waits beside it, from which a cut download goes on.
- **For scripts.** `--json` prints one JSON value to standard output; whatever is said meanwhile goes to standard error,
  and there an error is `{{"error": {{"code": …, "detail": …}}}}`.
- **Completion**: `basisconv --install-completion`.

## Exit status

"""

CLIENT = f"""# Python client

```sh
pip install ./client
```

```python
from basisconv_client import Client

with Client() as client:  # as `basisconv login` or BASISCONV_SERVER and BASISCONV_API_KEY say
    job = client.compress("net.onnx", "images.npz", macs=0.5, epochs=2)
    print(job.result.original.accuracy, job.result.compressed.accuracy)
    for artifact in client.artifacts(job.id):
        client.download(artifact, "smaller/")
```

{MADE}
- **A bad line** is no error: requests are tried again with growing pauses, and whatever makes something carries an
  `Idempotency-Key`, so it is made once. `Retry-After` is kept to. Uploads go on at the last byte that arrived (tus
  1.0; in one form to a server that is older), event streams after the last event seen, downloads by `Range`.
- **Results** are pydantic models; what a newer server adds is there under its own name. The package is typed.
- **What goes wrong** is an exception below `BasisConvError`; a refusal carries `code`, `detail`, `hint` and `problem`.

## In a notebook with torch

```python
import basisconv_client.torch

small, job = basisconv_client.torch.compress(net, x[:2], (x, y), macs=0.5)
```

The module is exported by `torch.export`, sent, compressed and loaded from the `.pt2` file that comes back: an
`nn.Module` for inference, on the device of the original. The file is loaded only if its SHA-256 is the one that the
service lists and its archive holds tensors and a graph, but no pickled object. torch builds Python from the graph's
text all the same, so sign in to servers that you trust. [examples/notebook.ipynb](../examples/notebook.ipynb)
shows it; its cells run in the tests.

"""


def command_line() -> str:
    parts = [COMMAND_LINE, "| status | meaning |\n| --- | --- |\n"]
    parts += [f"| {code} | {meaning} |\n" for code, meaning in exits.MEANINGS.items()]
    root: Any = typer.main.get_command(build(with_server=False))
    for name, command in root.commands.items():
        parts += section(f"basisconv {name}", command)
    return "".join(parts)


def section(path: str, command: Any) -> list[str]:
    """A command's heading, words and options; a group's commands one after the other."""
    inside = getattr(command, "commands", None)
    if inside is not None:
        return [part for name, one in inside.items() for part in section(f"{path} {name}", one)]
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    options = [param for param in command.params if param.param_type_name == "option"]
    names = " ".join(shown(argument) for argument in arguments)
    words = re.sub(r"\n +(\S.*)", lambda found: "\n    " + found[1], unindented(command.help or ""))
    parts = [f"\n## {path} {names}".rstrip() + f"\n\n{words}\n"]
    rows = [row(f"`{shown(argument)}`", argument) for argument in arguments if argument.help]
    rows += [row(", ".join(f"`{flag}`" for flag in option.opts), option) for option in options if option.help]
    return [*parts, "\n| | | |\n| --- | --- | --- |\n", *rows] if rows else parts


def shown(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper())


def unindented(text: str) -> str:
    """The help as Markdown: examples, which stand indented in it, as blocks."""
    return re.sub(r"\n\n(?=    )", "\n\n", inspect.cleandoc(text))


def row(name: str, param: Any) -> str:
    kind = param.type_descriptor.annotation
    said = {str: "text", int: "number", float: "number", bool: "", list[str]: "text"}.get(kind)
    if said is None:
        said = ", ".join(f"`{choice}`" for choice in get_args(kind))
    return f"| {name} | {said} | {param.help} |\n".replace("|  |", "| |")


def client() -> str:
    parts = [CLIENT, "## Wishes\n\nWhat `compress` and `create_job` take by name; exactly one target. Left out, the ",
             "service chooses.\n\n| name | type |\n| --- | --- |\n"]  # fmt: skip
    parts += [
        f"| `{name}` | `{plain(kind)}` |\n".replace(" | Map", " \\| Map")
        for name, kind in wishes.Wishes.__annotations__.items()
    ]
    parts.append("\n## Client\n")
    for name, member in vars(Client).items():
        if not name.startswith("_") and inspect.isfunction(member):
            parts.append(method(name, member))
    parts.append("\n## Errors\n\n| exception | when |\n| --- | --- |\n")
    parts += [
        f"| `{name}` | {inspect.cleandoc(kind.__doc__ or '').partition(chr(10))[0]} |\n"
        for name, kind in vars(errors).items()
        if inspect.isclass(kind) and issubclass(kind, errors.BasisConvError)
    ]
    parts.append(f"\nEverything public: {', '.join(f'`{name}`' for name in basisconv_client.__all__)}.\n")
    return "".join(parts)


def method(name: str, member: Any) -> str:
    signature = str(inspect.signature(member)).replace("self, ", "").replace("(self)", "()")
    words = f"\n{inspect.cleandoc(member.__doc__)}\n" if member.__doc__ else ""
    return f"\n### {name}\n\n```python\n{name}{plain(signature)}\n```\n{words}"


def plain(kind: Any) -> str:
    """An annotation as it stands in the code."""
    text = kind.__name__ if inspect.isclass(kind) else str(kind)
    text = getattr(kind, "__forward_arg__", text)
    text = re.sub(r"<function _silent at 0x\w+>", "…", text)
    text = re.sub(r"\b(typing|collections\.abc|pathlib|basisconv_client\.\w+)\.", "", text)
    return re.sub(r"\*<class '(\w+)'>", r"\1", text)


def main() -> int:
    stale = []
    for file, wanted in ((DOCS / "command-line.md", command_line()), (DOCS / "client.md", client())):
        if "--check" not in sys.argv:
            file.write_text(wanted)
        elif not file.is_file() or file.read_text() != wanted:
            stale.append(file.name)
    if stale:
        sys.stderr.write(f"docs/{', docs/'.join(stale)}: not what the code says: make client-docs\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
