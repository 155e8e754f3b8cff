"""Commands that make vectors, data sets and links."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graphmert.cli.terminal import AsJson, print_result, progress_shown, reporting, say

if TYPE_CHECKING:
    from graphmert.domains.vectors.embedding import EmbedSettings

Model = Annotated[
    str,
    typer.Option(
        help="A sentence-transformers model: a folder, dataset:NAME of `data list`, or a model "
        "id in the local hub cache."
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A=B", help="Change one setting; may be repeated."),
]
Workers = Annotated[int, typer.Option(min=1, help="Processes; the result is the same.")]
Cache = Annotated[
    Path | None, typer.Option(help="Folder of finished shards; shards/ in the output by default.")
]


class PartName(StrEnum):
    """Parts of a data set."""

    train = "train"
    valid = "valid"
    test = "test"


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(embed)
    app.command()(prepare)
    app.command("export-npz")(export_npz)
    app.command()(link)


def embed(
    documents: Annotated[
        list[str],
        typer.Argument(
            metavar="DOCS…",
            help="Files and folders (txt, md, html, jsonl, csv, parquet, Wikipedia dumps, Debian "
            "packages of HTML pages), or dataset:NAME.",
        ),
    ],
    model: Model,
    out: Annotated[Path, typer.Option(help="The VECTORS folder to write.")],
    exclude: Annotated[
        list[str] | None,
        typer.Option(help="Pattern of document ids to leave out; may be repeated."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Embed only so many sentences, the first.")
    ] = None,
    overrides: Overrides = None,
    workers: Workers = 1,
    cache: Cache = None,
    as_json: AsJson = False,
) -> None:
    """Turn documents into one vector per sentence; a killed run goes on with the same command."""
    with reporting(as_json):
        from graphmert.documents import read_documents
        from graphmert.domains.vectors.embedding import embed_documents
        from graphmert.domains.vectors.sentence_model import find_model

        settings = _embed_settings(overrides)
        folder = find_model(model)
        table, read = read_documents([_place(one) for one in documents], exclude=exclude or ())
        with progress_shown() as progress:
            vectors, ledger = embed_documents(
                table, folder, out, settings,
                cache=cache, n_workers=workers, limit=limit, progress=progress,
            )  # fmt: skip
        result = {
            "path": str(out),
            "n_documents": table.num_rows,
            "n_vectors": vectors.n_vectors,
            "dim": vectors.dim,
            "sha256": vectors.sha256,
            "n_texts_cut": vectors.manifest["n_texts_cut"],
            "ledgers": [read.to_dict(), ledger.to_dict()] if as_json else _lines(read, ledger),
        }
        print_result(result, as_json)


def prepare(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="A VECTORS folder, or an npz of windows.")
    ],
    out: Annotated[Path, typer.Option(help="The DATASET folder to write.")],
    sizes: Annotated[
        list[int] | None,
        typer.Option(
            "--size", min=1, help="A size of the training set, in vectors; may be repeated."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the split by document.")] = 0,
    extend: Annotated[
        Path | None,
        typer.Option(
            help="A DATASET of a part of these documents: they keep their part, and all new "
            "documents train."
        ),
    ] = None,
    block_length: Annotated[
        int | None,
        typer.Option(min=2, help="Cut the runs of an npz into documents of so many vectors."),
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Check vectors and split them by document into train, validation and test."""
    with reporting(as_json):
        from graphmert.config import apply_overrides, build
        from graphmert.domains.vectors.data import VectorData, open_vectors
        from graphmert.domains.vectors.npz import import_npz
        from graphmert.domains.vectors.prepare import PrepareSettings
        from graphmert.domains.vectors.prepare import prepare as prepare_data

        given: dict[str, Any] = {"sizes": list(sizes or ()), "seed": seed}
        apply_overrides(given, overrides or ())
        settings = build(given, PrepareSettings, overrides=overrides or ())
        earlier = None if extend is None else VectorData.load(extend)
        with progress_shown() as progress:
            if source.suffix == ".npz":
                vectors = import_npz(
                    source, out / "vectors", block_length=block_length, progress=progress
                )
            else:
                vectors = open_vectors(source)
            data = prepare_data(vectors, out, settings, extend=earlier, progress=progress)
        gate = data.info["gate"]
        for warning in gate["warnings"]:
            say(f"note: {warning}")
        parts = [{"part": name, **one} for name, one in data.info["parts"].items()]
        result = {"path": str(out), "gate": gate, "parts": parts}
        result["fingerprints"] = data.info["fingerprints"]
        print_result(result, as_json)


def export_npz(
    data: Annotated[Path, typer.Argument(metavar="DATASET", help="Folder of `vectors prepare`.")],
    out: Annotated[Path, typer.Option(help="The npz file to write.")],
    part: Annotated[PartName, typer.Option(help="Which part.")] = PartName.train,
    size: Annotated[int | None, typer.Option(min=1, help="Vectors of the training set.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write the windows of a part as an npz: context_sequences and target_vectors."""
    with reporting(as_json):
        from graphmert.domains.vectors.data import VectorData
        from graphmert.domains.vectors.npz import export_npz as export

        dataset = VectorData.load(data)
        windows = dataset.windows(part.value, size=size)
        export(windows, out)
        print_result({"path": str(out), "n_windows": len(windows), "dim": windows.dim}, as_json)


def link(
    vectors: Annotated[Path, typer.Argument(metavar="VECTORS", help="The vectors to link.")],
    kg: Annotated[Path, typer.Option(help="An ontology in OBO form.")],
    model: Model,
    out: Annotated[Path, typer.Option(help="The LINKS folder to write.")],
    alpha: Annotated[
        float | None, typer.Option(help="Least cosine of a text and an entity; 0.55 by default.")
    ] = None,
    overrides: Overrides = None,
    workers: Workers = 1,
    cache: Cache = None,
    as_json: AsJson = False,
) -> None:
    """Link texts to entities by their vectors and hang the entities' triples on them."""
    with reporting(as_json):
        from graphmert.config import apply_overrides, build
        from graphmert.domains.vectors.data import open_vectors
        from graphmert.domains.vectors.embedding import embed_entities
        from graphmert.domains.vectors.links import LinkSettings, entity_names, write_links
        from graphmert.domains.vectors.sentence_model import find_model
        from graphmert.kg import read_obo
        from graphmert.shards import sha256_file

        given: dict[str, Any] = {} if alpha is None else {"alpha": alpha}
        apply_overrides(given, overrides or ())
        settings = build(given, LinkSettings, overrides=overrides or ())
        corpus = open_vectors(vectors)
        names = entity_names(read_obo(kg).kg)
        embed_settings = _embed_settings(_same_numbers(corpus.manifest))
        with progress_shown() as progress:
            entities = embed_entities(
                names, find_model(model), out / "entities", embed_settings,
                cache=cache, n_workers=workers, progress=progress,
            )  # fmt: skip
            info = write_links(
                out, corpus, entities, names, settings,
                kg_sha256=sha256_file(kg), progress=progress,
            )  # fmt: skip
        print_result({"path": str(out), **info}, as_json)
        if not info["n_leaves"]:
            say("no row has a leaf; lower --alpha")
            raise typer.Exit(1)


def _same_numbers(manifest: Any) -> list[str]:
    """Entities are embedded in the precision of the texts."""
    precision = manifest.get("settings", {}).get("precision")
    return [f"precision={precision}"] if precision else []


def _embed_settings(overrides: list[str] | None) -> EmbedSettings:
    from graphmert.config import apply_overrides, build
    from graphmert.domains.vectors.embedding import EmbedSettings

    values: dict[str, Any] = {}
    apply_overrides(values, overrides or ())
    return build(values, EmbedSettings, overrides=overrides or ())


def _place(text: str) -> Path:
    """Return the path of documents; `dataset:NAME` is a folder of fetched data."""
    if not text.startswith("dataset:"):
        return Path(text)
    from graphmert import datasets

    return datasets.require(text.removeprefix("dataset:"))


def _lines(*ledgers: Any) -> list[str]:
    found = []
    for ledger in ledgers:
        found.append(f"{ledger.stage}: {ledger.n_offered} offered, {ledger.n_kept} kept")
        found.extend(f"  {n} {reason}" for reason, n in sorted(ledger.reasons.items()))
    return found
