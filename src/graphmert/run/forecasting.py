"""Open next-vector models and baselines, and evaluate them on a data set."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphmert import shards
from graphmert.domains.vectors.data import (
    Part,
    VectorData,
    VectorTable,
    open_vectors,
)
from graphmert.domains.vectors.rollout import NearestTexts, roll_out
from graphmert.errors import ConfigError, DataError, FormatError, ProvenanceError
from graphmert.evaluate.forecast_baselines import BASELINES, ForecastBaseline, fit_baselines
from graphmert.evaluate.forecasts import Predictor, evaluate_forecaster
from graphmert.evaluate.latency import measure_latency
from graphmert.progress import Progress

_N_LATENCY_CONTEXTS = 128


class OpenedPredictor:
    """A predictor with what is known about it.

    Attributes:
        facts: what evaluation.json says of it.
        fingerprints: of the parts it was fitted with, where known.
        inputs: dim and length of contexts and model_sha256 of what embedded them, each None where
            it is not known.
        with_rows: whether it takes the rows of contexts too, to hang leaves on them.
    """

    def __init__(
        self,
        predictor: Predictor,
        facts: dict[str, Any],
        fingerprints: dict[str, str],
        inputs: dict[str, Any],
        *,
        with_rows: bool = False,
    ) -> None:
        self._predictor = predictor
        self.inputs = inputs
        self.facts = facts
        self.fingerprints = fingerprints
        self.with_rows = with_rows

    def __call__(
        self, contexts: NDArray[np.float32], rows: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """Return predictions (B, C) of contexts (B, W, C), and of their rows where it needs them.

        Raises:
            ConfigError: the predictor hangs leaves on rows, and none are given.
        """
        if not self.with_rows:
            return self._predictor(contexts)
        if rows is None:
            raise ConfigError("a model with leaves predicts rows of linked vectors only")
        return self._predictor(contexts, rows)


def baseline_facts(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what evaluation.json says of a baseline, from its manifest.json."""
    return {
        "system": manifest["model"],
        "trained": False,
        "n_parameters": manifest["n_parameters"],
        "size": manifest["data"]["size"],
        "seed": None,
        "config_hash": None,
        "train_fingerprint": manifest["data"]["fingerprints"]["train"],
    }


def open_predictor(
    path: Path | str, *, data: VectorData | None = None, links: Path | str | None = None
) -> OpenedPredictor:
    """Open a run of `vectors train`, or a folder of `vectors baselines`.

    Args:
        path: the folder.
        data: the data set that is linked; only for a model with leaves.
        links: its LINKS folder; only for a model with leaves.

    Raises:
        FormatError: the folder is neither.
        ConfigError: a model with leaves without links.
    """
    path = Path(path)
    if (path / "baseline.json").is_file():
        baseline = ForecastBaseline.load(path)
        manifest = read_record(path / "manifest.json")
        facts = baseline_facts(manifest)
        inputs = _inputs(manifest) | {"dim": baseline.dim, "length": baseline.length}
        return OpenedPredictor(baseline, facts, manifest["data"]["fingerprints"], inputs)
    if (path / "manifest.json").is_file() and (path / "model").is_dir():
        return _open_run(path, data, links)
    raise FormatError(
        "neither a run of a next-vector model nor a baseline",
        where=str(path),
        expected="a folder of `vectors train` or one below that of `vectors baselines`",
    )


def _open_run(path: Path, data: VectorData | None, links: Path | str | None) -> OpenedPredictor:
    import torch

    from graphmert.domains.vectors.runs import load_model, read_run, run_facts
    from graphmert.forecast import LeafForecaster

    run = read_run(path)
    model: Any = load_model(path / "model")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device).eval()
    facts = run_facts(run.manifest)
    prints = dict(run.manifest["data"]["fingerprints"])
    if isinstance(model, LeafForecaster) and model.settings.use_leaves:
        predict = _with_leaves(path, model, device, data, links, prints.get("links"))
        return OpenedPredictor(predict, facts, prints, _inputs(run.manifest), with_rows=True)

    def plain(contexts: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            raw = model(torch.from_numpy(contexts).to(device))
        return raw.float().cpu().numpy()

    return OpenedPredictor(plain, facts, prints, _inputs(run.manifest))


def _inputs(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what contexts a run or baseline takes; networks of a fixed length know it, too."""
    network = manifest.get("config", {}).get("network", {})
    found = {name: manifest["data"].get(name) for name in ("dim", "length", "model_sha256")}
    return found | {"length": found["length"] or network.get("length")}


def _with_leaves(
    path: Path,
    model: Any,
    device: str,
    data: VectorData | None,
    links: Path | str | None,
    fingerprint: str | None,
) -> Predictor:
    """Return a predictor of contexts and rows, with the leaves that the links hang on the rows."""
    import torch

    from graphmert.batch import collate
    from graphmert.domains.vectors.links import Leaves
    from graphmert.domains.vectors.runs import leaves_fingerprint
    from graphmert.forecast import LeafFeed

    if data is None or links is None:
        raise ConfigError(
            "a model with leaves needs the links it was trained with",
            where=str(path),
            fix="Give --links LINKS.",
        )
    leaves = Leaves.load(links, data.table())
    if fingerprint is not None and leaves_fingerprint(leaves) != fingerprint:
        raise ProvenanceError(
            "the links are not those of the run", where=str(links), expected=fingerprint
        )
    feed = LeafFeed(
        data.windows("valid"), leaves, model.settings, known={}, batch_size=1, masking="none",
        seed=0,
    )  # fmt: skip

    def predict(contexts: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        table: Any = feed.table
        chains = collate([feed.chain(one) for one in rows], vectors=table)
        with torch.inference_mode():
            raw = model.next_vectors(chains.to(device))
        return raw.float().cpu().numpy()

    return predict


def evaluate_folder(
    path: Path | str,
    data: VectorData,
    *,
    parts: Sequence[Part] = ("valid", "test"),
    links: Path | str | None = None,
    latency: bool = True,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score a run or baseline folder and write evaluation.json, samples and latency.json into it.

    Args:
        path: the folder.
        data: a data set with the same validation and test parts that it was fitted with.
        parts: what to score.
        links: for a model with leaves, the LINKS folder it was trained with.
        latency: measure how long predictions take.
        seed: of shuffled contexts and resamples.
        progress: told how far it is.

    Raises:
        DataError: the data set has other validation or test documents than the run, which may
            then have seen them in training.
    """
    path = Path(path)
    opened = open_predictor(path, data=data, links=links)
    _check_parts(path, opened.fingerprints, data)
    facts = opened.facts | {"size": _train_size(opened, data, path)}
    evaluation = evaluate_forecaster(
        opened, data, path, facts, parts=parts, with_rows=opened.with_rows, seed=seed,
        progress=progress,
    )  # fmt: skip
    if latency:
        windows = data.windows("test")
        some = slice(0, _N_LATENCY_CONTEXTS)
        rows = windows.context_rows(some) if opened.with_rows else None
        found = measure_latency(opened, windows.contexts(some), rows=rows)
        shards.atomic_write_json(path / "latency.json", found)
    return evaluation


def _check_parts(path: Path, fingerprints: Mapping[str, str], data: VectorData) -> None:
    for part in ("valid", "test"):
        wanted = fingerprints.get(part)
        if wanted is not None and wanted != data.fingerprint(part):
            raise DataError(
                f"the {part} part of the data set is not that of the run",
                where=f"{path} and {data.path}",
                got=data.fingerprint(part),
                expected=wanted,
                fix="Evaluate with the data set that it was trained on, or one that extends it.",
            )


def score_leaves(
    path: Path | str,
    data: VectorData,
    links: Path | str,
    *,
    without: Path | str | None = None,
    part: Part = "test",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure the leaves of a run and write its leaves.json.

    Args:
        path: a run of `vectors train lvm-leaves`.
        data: the data set that it was trained on.
        links: the LINKS folder it was trained with.
        without: a run on the same documents that was trained without leaves.
        part: what to measure on.
        progress: told how far it is.

    Raises:
        ConfigError: the run has no leaves, or that of `without` has.
        DataError: documents or links are not those of the runs.
    """
    from graphmert.domains.vectors.links import Leaves
    from graphmert.domains.vectors.runs import leaves_fingerprint, load_model, read_run
    from graphmert.evaluate.vector_leaves import evaluate_leaves
    from graphmert.forecast import LeafForecaster

    path = Path(path)
    model = LeafForecaster.load(path / "model")
    if not model.settings.use_leaves:
        raise ConfigError(
            "the run was trained without leaves", where=str(path),
            fix="Give it with --without, and score a run that was trained with leaves.",
        )  # fmt: skip
    leaves = Leaves.load(links, data.table())
    size = read_run(path).manifest["data"]["size"]
    found = {
        "train": data.fingerprint("train", size),
        "valid": data.fingerprint("valid"),
        "test": data.fingerprint("test"),
        "links": leaves_fingerprint(leaves),
    }
    other: Any = None
    for run in (path,) if without is None else (path, Path(without)):
        _check_prints(run, read_run(run).manifest["data"]["fingerprints"], found, data, links)
    if without is not None:
        other = load_model(Path(without) / "model")
        if isinstance(other, LeafForecaster) and other.settings.use_leaves:
            raise ConfigError(
                "the run to compare with was trained with leaves", where=str(without),
                fix="Train it with --set network.use_leaves=false.",
            )  # fmt: skip
    result = evaluate_leaves(
        model, data, leaves, part=part, size=size, without=other, progress=progress
    )
    shards.atomic_write_json(path / "leaves.json", result)
    return result


def _check_prints(
    run: Path,
    recorded: Mapping[str, str],
    found: Mapping[str, str],
    data: VectorData,
    links: Path | str,
) -> None:
    """Refuse documents and links that a run was not trained with; a run may have no links."""
    for name, value in found.items():
        if recorded.get(name, value) != value:
            is_links = name == "links"
            raise ProvenanceError(
                "the links are not those of the run"
                if is_links
                else f"the {name} part of the data set is not that of the run",
                where=f"{run} and {links if is_links else data.path}",
                got=value,
                expected=recorded[name],
                fix="Give the data set and the links that both runs were trained with.",
            )


def _train_size(opened: OpenedPredictor, data: VectorData, path: Path) -> int:
    """Return the training vectors of a run; one trained on everything is found by its hash."""
    if opened.facts["size"] is not None:
        return int(opened.facts["size"])
    trained_on = opened.fingerprints.get("train")
    for name, fingerprint in data.info["fingerprints"]["train"].items():
        if fingerprint == trained_on:
            return int(data.info["parts"][f"train/{name}"]["n_vectors"])
    raise DataError(
        "it is not known how many vectors the run was trained on",
        where=f"{path} and {data.path}",
        got=f"training part {trained_on}",
        expected="a named size of the data set",
        fix="Evaluate with the data set that it was trained on.",
    )


def n_train_vectors(data: VectorData) -> int:
    """Return the number of vectors of the whole training part."""
    _, starts, ends = data.documents("train")
    return int((ends - starts).sum())


def run_baselines(
    data: VectorData,
    out: Path | str,
    *,
    size: int | None = None,
    names: Sequence[str] = BASELINES,
    latency: bool = True,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Fit baselines on the training part, score each, and write a folder for each.

    Args:
        data: the data set.
        out: folder over the baselines' folders.
        size: vectors of the training part, all when None.
        names: which baselines.
        latency: measure how long predictions take.
        seed: of shuffled contexts and resamples.
        progress: told how far it is.

    Returns:
        The content of each evaluation.json.
    """
    out = Path(out)
    train, valid = data.windows("train", size=size), data.windows("valid")
    fitted = fit_baselines(train, valid, names=names, progress=progress)
    parts: tuple[Part, ...] = ("train", "valid", "test")
    header = {
        "format": "graphmert-vector-baseline-1",
        "data": {
            "path": str(data.path),
            "size": n_train_vectors(data) if size is None else size,
            "vectors_sha256": data.info["vectors"]["sha256"],
            "model_sha256": data.table().manifest.get("model_sha256"),
            "fingerprints": {part: data.fingerprint(part, size) for part in parts},
        },
        "n_windows": {"train": len(train), "valid": len(valid)},
    }
    found = []
    for name, baseline in fitted.items():
        folder = out / name.replace(" ", "-")
        baseline.save(folder)
        manifest = header | {"model": name, "n_parameters": baseline.n_parameters}
        shards.atomic_write_json(folder / "manifest.json", manifest)
        found.append(evaluate_folder(folder, data, latency=latency, seed=seed, progress=progress))
    return found


def read_record(path: Path) -> dict[str, Any]:
    """Read a JSON file of a run or baseline folder.

    Raises:
        FormatError: it is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError) as error:
        raise FormatError("file is missing or damaged", where=str(path), got=error) from error


def predict_texts(
    model: Path | str,
    vectors: Path | str,
    *,
    row: int | None = None,
    texts: Sequence[str] = (),
    embedder: str | None = None,
    n_steps: int = 1,
    n_nearest: int = 5,
    length: int | None = None,
    out: Path | None = None,
) -> dict[str, Any]:
    """Predict what follows a context, and the texts nearest to each prediction.

    Args:
        model: a run or a baseline.
        vectors: the VECTORS folder that texts are looked up in.
        row: first row of the context in it; or
        texts: the sentences of the context, embedded with
        embedder: the model that VECTORS was embedded with.
        n_steps: vectors to predict, each from what is known or predicted before it.
        n_nearest: texts for each; those of the context are not offered.
        length: vectors of the context, where the model does not know it.
        out: npy file for the predicted vectors.

    Raises:
        ConfigError: neither or both of row and texts, too few texts, a row near the end of a
            document, another length than that of the model, or a model with leaves.
        DataError: VECTORS has another dimension than those the model was trained on.
        ProvenanceError: the embedder is not the model of VECTORS, or VECTORS was embedded with
            another model than the vectors of the run.
    """
    table = open_vectors(vectors)
    if (row is None) == (not texts):
        raise ConfigError(
            "the context must come from one place", where="--row or --text", expected="one of them"
        )
    _refuse_leaves(Path(model))
    opened = open_predictor(model)
    length = _check_inputs(opened.inputs, table, length, where=f"{model} and {vectors}")
    if row is not None:
        rows = list(range(row, row + length))
        context = _context_of_rows(table, rows)
    else:
        rows = []
        context = _context_of_texts(table, texts, embedder, length)
    predicted = roll_out(opened, context, n_steps=n_steps)
    if out is not None:
        with shards.atomic_path(out) as temporary, temporary.open("wb") as stream:
            np.save(stream, predicted, allow_pickle=False)
    decoded = NearestTexts(table, k=n_nearest, exclude=rows).decode(predicted)
    shown = table.rows(["text"])["text"].take(rows).to_pylist() if rows else list(texts)[-length:]
    return {
        "context": shown,
        "steps": [
            {"step": step, "nearest": [asdict(one) for one in found]}
            for step, found in enumerate(decoded, start=1)
        ],
    }


def _refuse_leaves(path: Path) -> None:
    from graphmert.domains.vectors.runs import has_leaves

    manifest = read_record(path / "manifest.json") if (path / "manifest.json").is_file() else {}
    if "config" in manifest and has_leaves(manifest):
        raise ConfigError(
            "a model with leaves cannot predict from texts or rows alone",
            where=str(path),
            expected="a model that reads vectors only",
            fix="Train one, such as lvm-768d; `vectors evaluate --links` scores this one.",
        )


def _check_inputs(
    inputs: Mapping[str, Any], table: VectorTable, length: int | None, *, where: str
) -> int:
    """Refuse vectors that the model was not made for; return the length of its contexts."""
    if inputs["dim"] != table.dim:
        raise DataError(
            "the vectors have another dimension than those of the model",
            where=where, got=table.dim, expected=inputs["dim"],
            fix="Give the VECTORS it was trained on, or vectors of the same model.",
        )  # fmt: skip
    embedded = table.manifest.get("model_sha256")
    if None not in (embedded, inputs["model_sha256"]) and embedded != inputs["model_sha256"]:
        raise ProvenanceError(
            "the vectors were embedded with another model than those of the run",
            where=where, got=f"sha256 {embedded}", expected=inputs["model_sha256"],
            fix="Embed the documents with that model.",
        )  # fmt: skip
    known = inputs["length"]
    if known is None and length is None:
        raise ConfigError(
            "it is not known how long the contexts of the model are", where=where,
            fix="Give --length, as the data set had it.",
        )  # fmt: skip
    if None not in (known, length) and known != length:
        raise ConfigError(
            "the model takes contexts of another length",
            where="--length", got=length, expected=known, fix="Leave --length out.",
        )  # fmt: skip
    return int(known or length or 0)


def _context_of_rows(table: VectorTable, rows: list[int]) -> NDArray[np.float32]:
    docs = table.rows(["doc_id"])["doc_id"]
    if rows[-1] >= table.n_vectors or len(set(docs.take(rows).to_pylist())) > 1:
        raise ConfigError(
            "the context crosses the end of a document",
            where="--row",
            got=f"rows {rows[0]} to {rows[-1]}",
            expected="rows of one document",
        )
    return np.asarray(table.vectors[rows])


def _context_of_texts(
    table: VectorTable, texts: Sequence[str], embedder: str | None, length: int
) -> NDArray[np.float32]:
    if len(texts) < length:
        raise ConfigError(
            "too few sentences for a context", where="--text", got=len(texts), expected=length
        )
    if embedder is None:
        raise ConfigError(
            "sentences need the model that embeds them", where="--embedder", fix="Name it."
        )
    from graphmert.domains.vectors.sentence_model import (
        SentenceModel,
        find_model,
        model_sha256,
    )

    folder = find_model(embedder)
    if model_sha256(folder) != table.manifest.get("model_sha256"):
        raise ProvenanceError(
            "the vectors were embedded with another model",
            where=str(folder),
            got=folder.name,
            expected=table.manifest.get("model"),
        )
    precision = str(table.manifest["settings"]["precision"])
    vectors, _ = SentenceModel(folder, precision=precision).encode(list(texts)[-length:])
    return vectors
