"""Names, options and exit codes of the command line do not change by accident.

After a change that is meant, run `python tests/cli/test_frozen_cli.py` to write the snapshot.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer.main

from graphmert import cli, errors
from graphmert.cli import runs, terminal

SNAPSHOT = Path(__file__).with_name("frozen_cli.json")


def describe_command(command: Any, name: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if not getattr(command, "commands", None):
        parameters = [parameter for parameter in command.params if parameter.name != "help"]
        found[name] = {
            "arguments": [
                str(one.metavar or one.name)
                for one in parameters
                if one.param_type_name == "argument"
            ],
            "options": {
                option: {"required": one.required, "repeats": bool(one.multiple)}
                for one in sorted(parameters, key=lambda one: one.name)
                if one.param_type_name == "option"
                for option in one.opts
            },
        }
        return found
    found[name] = {
        "options": sorted(option for one in command.params for option in one.opts if one.opts)
    }
    for child_name, child in sorted(command.commands.items()):
        found.update(describe_command(child, f"{name} {child_name}"))
    return found


def describe() -> dict[str, Any]:
    classes = [errors.GraphMERTError]
    for cls in classes:
        classes.extend(cls.__subclasses__())
    exit_codes = {
        cls.__name__: cls.exit_code for cls in classes if cls.__module__ == errors.__name__
    }
    return {
        "commands": describe_command(typer.main.get_command(cli.app), "graphmert"),
        "stages": [stage.value for stage in runs.Stage],
        "exit_codes": {**dict(sorted(exit_codes.items())), "interrupted": terminal.INTERRUPTED},
    }


def test_commands_options_and_exit_codes_are_frozen() -> None:
    assert describe() == json.loads(SNAPSHOT.read_text(encoding="utf-8"))


def test_every_command_takes_json() -> None:
    for name, command in describe()["commands"].items():
        if "arguments" in command:
            assert "--json" in command["options"], name


if __name__ == "__main__":
    SNAPSHOT.write_text(json.dumps(describe(), indent=2) + "\n", encoding="utf-8")
