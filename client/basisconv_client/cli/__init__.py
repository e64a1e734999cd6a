"""The command line: `basisconv compress`, `plan`, `jobs`, `models`, `datasets`, `batch`, `login` …"""

from importlib.metadata import entry_points

import typer

from basisconv_client.cli import batches, compress, jobs, signing_in, uploads

GROUP = "basisconv.commands"  # where the server's package offers `serve`, `keys` and the rest


def build(*, with_server: bool = True) -> typer.Typer:
    """The whole command, with those of the server where it is installed too."""
    app = typer.Typer(
        no_args_is_help=True,
        rich_markup_mode="rich",
        help="Make trained convolutional networks small and fast.",
        epilog="Exit status: 0 done, 1 failed, 2 usage, 3 not signed in, 4 not found, 5 server unreachable, "
        "6 target missed (--strict), 130 interrupted.",
    )
    app.command(rich_help_panel="Compress")(compress.compress)
    app.command(rich_help_panel="Compress")(compress.plan)
    app.add_typer(jobs.app, name="jobs", rich_help_panel="What is on the server")
    app.add_typer(uploads.models, name="models", rich_help_panel="What is on the server")
    app.add_typer(uploads.datasets, name="datasets", rich_help_panel="What is on the server")
    app.add_typer(batches.app, name="batch", rich_help_panel="What is on the server")
    for command in (signing_in.login, signing_in.logout, signing_in.usage):
        app.command(rich_help_panel="Signing in")(command)
    for offered in sorted(entry_points(group=GROUP) if with_server else (), key=lambda point: point.name):
        app.add_typer(_headed(offered.load(), "The server on this machine"))
    return app


def _headed(part: typer.Typer, heading: str) -> typer.Typer:
    """Its commands and groups under one heading of the help."""
    for command in part.registered_commands:
        command.rich_help_panel = heading
    for group in part.registered_groups:
        group.rich_help_panel = heading
    return part


def main() -> None:
    build()(prog_name="basisconv")
