"""The group `wf`: listing, loading and refusing commands without a server."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wf_core.cli import registry

HEAVY = (
    "pydantic",
    "redis",
    "fastapi",
    "cel",
    "rich",
    "httpx",
    "msgspec",
    "stevedore",
    "aiokafka",
    "asyncio",
    "structlog",
)


def test_help_lists_every_command(wf):
    """`wf --help` names every command, those of packages that are not installed too."""
    done = wf("--help")
    assert done.returncode == 0
    for commands in registry.SECTIONS.values():
        for name in commands:
            assert f"\n  {name} " in done.stdout


def test_help_imports_nothing_heavy():
    """`wf --help` imports no library beyond click."""
    code = (
        "import sys\nfrom wf_core.cli.app import run\nrun(['--help'])\n"
        f"sys.stderr.write(','.join(m for m in {HEAVY!r} if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_help_is_quick(wf, record_property, tmp_path):
    """`wf --help` takes a moment: measured, and bounded far above what it takes on an idle machine."""
    began = time.perf_counter()
    wf("--help", folder=tmp_path)
    took = time.perf_counter() - began
    record_property("wf_help_seconds", took)
    assert took < 3


def test_every_command_of_ours_is_an_entry_point():
    """Each command in the table of help is an entry point of the group `wf.commands`, with the same short help."""
    shipped = {entry.name: entry for entry in importlib.metadata.entry_points(group="wf.commands")}
    ours = {name: text for commands in registry.SECTIONS.values() for name, text in commands.items()}
    for name, text in ours.items():
        if name not in registry.PACKAGES:
            assert shipped[name].load().short_help == text


@pytest.mark.parametrize("name", sorted(set().union(*registry.SECTIONS.values()) - set(registry.PACKAGES)))
def test_each_command_has_help(wf, name):
    """`wf COMMAND --help` works without a server."""
    done = wf(name, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Usage: wf {name}")


def test_unknown_command_names_the_nearest(wf):
    """A misspelt command is a usage error that names the nearest one."""
    done = wf("sumbit")
    assert done.returncode == 2
    assert "'submit'" in done.stderr


@pytest.fixture
def plugin(tmp_path: Path):
    """A folder for PYTHONPATH that ships one command named `extra`, like an installed package."""

    def make(code: str) -> str:
        (tmp_path / "extra_plugin.py").write_text(code)
        info = tmp_path / "extra_plugin-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: extra-plugin\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[wf.commands]\nextra = extra_plugin:command\n")
        return str(tmp_path)

    return make


def test_third_party_command(wf, plugin):
    """A package adds a command by an entry point."""
    path = plugin("import click\n@click.command()\ndef command():\n    click.echo('hello')\n")
    assert "extra" in wf("--help", PYTHONPATH=path).stdout
    assert wf("extra", PYTHONPATH=path).stdout == "hello\n"


def test_broken_command_names_its_package(wf, plugin):
    """A command that does not import is named with its package and error, and disturbs no other."""
    path = plugin("raise RuntimeError('boom')")
    done = wf("extra", PYTHONPATH=path)
    assert done.returncode == 2
    assert "extra-plugin" in done.stderr
    assert "RuntimeError: boom" in done.stderr
    assert wf("--help", PYTHONPATH=path).returncode == 0


def test_command_of_a_missing_package(monkeypatch):
    """A command of ours whose package is not installed says what to install."""
    import click

    from wf_core.cli import app

    monkeypatch.setattr(registry, "installed", dict)
    with pytest.raises(click.ClickException, match="pip install wf-api"):
        app.wf.get_command(click.Context(app.wf), "api")
    assert "Not installed: pip install wf-worker" in dict(registry.listing()["Operate"])["worker"]


def test_plugins_reports_broken_ones(wf, plugin):
    """`wf plugins` tells package, version and import error of each plugin, and exits 1 when one is broken."""
    path = plugin("raise RuntimeError('boom')")
    done = wf("plugins", "--group", "wf.commands", PYTHONPATH=path)
    row = next(line for line in done.stdout.splitlines() if "extra" in line)
    assert row.split(maxsplit=4) == ["wf.commands", "extra", "extra-plugin", "1.0", "RuntimeError: boom"]
    assert done.returncode == 1


def test_plugin_that_ends_the_process(wf, plugin):
    """A plugin whose import ends the process is found, and does not hide the others."""
    path = plugin("import os\nos._exit(3)")
    done = wf("plugins", "-o", "jsonl", "--group", "wf.commands", PYTHONPATH=path)
    assert "ended the process" in next(line for line in done.stdout.splitlines() if '"extra"' in line)
    assert '"error": null' in next(line for line in done.stdout.splitlines() if '"ls"' in line)


def test_unreachable_server(wf):
    """A server that does not answer is exit code 4 and says how to start one."""
    done = wf("ls", "--server", "http://127.0.0.1:1")
    assert done.returncode == 4
    assert "wf dev" in done.stderr
    assert done.stdout == ""


def test_missing_file(wf):
    """A document that is not there is a usage error."""
    assert wf("submit", "nowhere.yaml").returncode == 2
