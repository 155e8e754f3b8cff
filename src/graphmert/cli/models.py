"""Commands about models: what a preset holds, and conversion."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from graphmert.cli.terminal import AsJson, group, print_result, reporting

convert_app = group("Convert models of other formats.")


@convert_app.callback()
def _convert() -> None:
    """Convert models of other formats."""


@convert_app.command("reference")
def convert_reference(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="The reference checkpoint.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The model folder to write.")],
    as_json: AsJson = False,
) -> None:
    """Convert a checkpoint of the reference implementation."""
    with reporting(as_json):
        from graphmert import convert

        print_result(convert.convert_reference(source, out), as_json)


@convert_app.command("lvm")
def convert_lvm(
    source: Annotated[Path, typer.Argument(metavar="SRC.pt", help="The checkpoint.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The model folder to write.")],
    model: Annotated[
        str | None,
        typer.Option(help="lvm, amn, lstm, gru or transformer, when the names do not tell."),
    ] = None,
    names: Annotated[
        Path | None, typer.Option(help="TOML table: name in the checkpoint = expected name.")
    ] = None,
    our_decay: Annotated[
        bool,
        typer.Option("--our-decay", help="Let distance weaken attention gradually, not in a band."),
    ] = False,
    attn_heads: Annotated[int, typer.Option(min=1, help="Attention heads.")] = 8,
    as_json: AsJson = False,
) -> None:
    """Convert a checkpoint of a next-vector model; only tensors are read from it."""
    with reporting(as_json):
        from graphmert.forecast.imported import convert_lvm

        decay = "log_bias" if our_decay else "band"
        found = convert_lvm(
            source, out, kind=model, names=names, decay=decay, n_attn_heads=attn_heads
        )
        print_result(found, as_json)


def info(
    preset: Annotated[str, typer.Argument(metavar="PRESET", help="Name of a model preset.")],
    relations: Annotated[
        int | None, typer.Option(min=1, help="Number of relation types, when not the preset's.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the parameters of a preset with the arithmetic."""
    with reporting(as_json):
        from graphmert import forecast, presets

        if preset in forecast.FORECASTERS:
            print_result(forecast.parameter_report(preset), as_json)
            return
        if preset not in presets.PRESETS:
            raise presets.unknown_preset(preset, [*presets.PRESETS, *forecast.FORECASTERS])
        print_result(presets.parameter_report(preset, n_relations=relations), as_json)
