"""`alignvlm doctor`: what this installation has, what it lacks, and what to do about that."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from alignvlm.cli.terminal import DebugOption, printable

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("doctor")(doctor)


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    debug: DebugOption = False,
) -> None:
    """Report versions, devices, memory and weights.

    Exits with 1 if something is wrong, and says what to do about it.
    """
    from alignvlm.cli.checkup import examine

    report = examine()
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        typer.echo("\n".join(printable(line) for line in _lines(report)))
    if report["problems"]:
        raise typer.Exit(1)


def _lines(report: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    for section, entries in report.items():
        if section == "problems":
            continue
        lines += [section.capitalize()]
        width = max((len(name) for name in entries), default=0)
        lines += [f"  {name.ljust(width)}  {_shown(value)}" for name, value in entries.items()]
    lines += ["Problems"]
    lines += [
        f"  {problem['problem']}\n    -> {problem['remedy']}" for problem in report["problems"]
    ] or ["  none"]
    return lines


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "not found" if value is None else str(value)
