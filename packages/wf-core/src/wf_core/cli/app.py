"""The group `wf`: finds commands by entry point, imports the one that was asked for, turns errors into exit codes."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Sequence

import click

from wf_core.cli import exits, registry


class Commands(click.Group):
    """A group whose commands are the entry points of `wf.commands`."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Every installed command, and ours that are not installed."""
        return sorted({*registry.installed(), *registry.PACKAGES})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Imports the command. Raises ClickException, never the plugin's own error."""
        command = registry.installed().get(cmd_name)
        if command is None:
            if cmd_name in registry.PACKAGES:
                raise click.ClickException(
                    f"the command {cmd_name!r} comes with another package: pip install {registry.PACKAGES[cmd_name]}"
                )
            return None
        if command.rival is not None:
            raise click.ClickException(
                f"{command.package} and {command.rival} both ship the command {cmd_name!r}; uninstall one of them"
            )
        try:
            loaded = command.entry.load()
        except Exception as error:  # a plugin's import may raise anything, and must not end in a traceback of ours
            raise click.ClickException(
                f"the command {cmd_name!r} of {command.package} does not import: {type(error).__name__}: {error}"
            ) from error
        if not isinstance(loaded, click.Command):
            raise click.ClickException(f"the command {cmd_name!r} of {command.package} is no click command")
        return loaded

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the nearest known name where there is no such command."""
        name = args[0]
        if not name.startswith("-") and name not in (known := self.list_commands(ctx)):
            near = difflib.get_close_matches(name, known, 1)
            hint = f" Did you mean {near[0]!r}?" if near else " See `wf --help`."
            raise click.UsageError(f"there is no command {name!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """Lists the commands by what they are for."""
        for title, commands in registry.listing().items():
            with formatter.section(title):
                formatter.write_dl(commands)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="wf-core", prog_name="wf")
def wf() -> None:
    """Run workflows.

    Data goes to stdout, progress to stderr. @latest (the newest that is no child of another) and any unique beginning
    of an id name an execution. The server is --server, else WF_SERVER, else the `wf dev` that runs in this folder, else
    http://127.0.0.1:8080; WF_API_KEY is its key.

    Exit codes: 0 ok, 1 the run failed, 2 usage or invalid document, 3 not found, 4 server unreachable, 5 timeout,
    130 interrupted.
    """


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    try:
        code = wf.main(arguments, prog_name="wf", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code if isinstance(error, click.UsageError) else exits.USAGE
    except (click.Abort, KeyboardInterrupt):
        return exits.DETACHED
    except BrokenPipeError:
        # The reader has seen enough (`wf ls | head`); without this the interpreter complains once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.OK
    except Exception as error:  # noqa: BLE001 - one of ours becomes an exit code, any other is raised again
        from wf_core.cli.failures import report

        return report(error)
    return code if isinstance(code, int) else exits.OK
