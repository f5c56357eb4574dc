"""Every command's help teaches: what it does in a line, an example that parses, options that say what they are."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from polobench.cli import app
from polobench.core.hyperparameters import describe
from polobench.registry import method_class


def commands(command: Any, *path: str) -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "commands"):
        yield " ".join(path), command
        return
    for name, one in command.commands.items():
        yield from commands(one, *path, name)


COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_parses(name: str) -> None:
    text = CliRunner().invoke(app, [*name.split(), "--help"]).output
    example = re.search(r"Example: polobench (.*)", text, re.DOTALL)
    assert example
    arguments = shlex.split(example[1])
    assert " ".join(arguments).startswith(name)
    assert CliRunner().invoke(app, [*arguments, "--help"]).exit_code == 0


@pytest.mark.parametrize("name", COMMANDS)
def test_the_first_line_is_not_cut(name: str) -> None:
    group = CliRunner().invoke(app, [*name.split()[:-1], "--help"]).output
    assert COMMANDS[name].get_short_help_str(60) in group
    assert not COMMANDS[name].get_short_help_str(60).endswith("...")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_help_text_stands_alone(name: str) -> None:
    for parameter in COMMANDS[name].params:
        text = getattr(parameter, "help", None)
        assert text, parameter.name
        assert re.match("(?!Of )[A-Z]", text), text


@pytest.mark.parametrize("method", sorted(entry.name for entry in entry_points(group="polobench.methods")))
def test_a_hyper_parameter_is_described_by_a_noun_phrase(method: str) -> None:
    for field in describe(method_class(method).Hyperparameters):
        assert not re.match("(?:of|by|over|in|to|with|for|at) ", field["doc"]), field
