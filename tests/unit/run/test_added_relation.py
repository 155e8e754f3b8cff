"""A relation added to a finished run: the folder is a run for new documents, and says so."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import tiny_documents
import tiny_run
from graphmert.errors import ConfigError, DataError
from graphmert.kg import Relation, Triple, read_schema, write_schema
from graphmert.progress import Silent
from graphmert.run.encoding import encode_documents
from graphmert.run.frozen import copy_frozen, open_frozen
from graphmert.run.new_calibration import KEPT, calibrate, hold_apart
from graphmert.run.new_relation import (
    UNCHOSEN,
    FitSettings,
    add_relation,
    fit_chains,
    nearest_weights,
)
from graphmert.run.prepared import Prepared
from graphmert.run.stages import load_model
from graphmert.run.updating import AN_ORDER, extract_documents
from graphmert.shards import sha256_file

NAME = "goes_well_with"
SPEEDS = "speeds_up"
FIT = FitSettings(
    min_triples=5,
    steps=10,
    batch_size=8,
    learning_rate=0.05,
    held_apart=0.4,
    min_calibration=2,
)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def rows(out: Path, name: str) -> list[dict[str, Any]]:
    return pq.read_table(out / f"{name}.parquet").to_pylist()


def load(folder: Path) -> Prepared:
    return Prepared.load(folder, max_tail_tokens=tiny_run.MAX_TAIL_TOKENS)


def said(run: Path, name: str = SPEEDS) -> list[Triple]:
    """What the training part says regulates something, said of a new relation."""
    prepared = load(run)
    regulates = prepared.relations.index("regulates")
    ids = prepared.entity_ids
    rows = prepared.triples["train"].tolist()
    return [Triple(ids[h], name, ids[t]) for h, r, t in rows if r == regulates]


# --- a relation that has its name alone -------------------------------------------------------


@pytest.fixture(scope="module")
def asking(frozen_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run, asking about relations that are as likely as any: it has hardly been trained."""
    run = Path(shutil.copytree(frozen_run, tmp_path_factory.mktemp("asking") / "run"))
    relations = tiny_documents.RULE["relations"] | {"threshold": -2.5}
    rule = {**tiny_documents.RULE, "relations": relations, "tried": {}}
    tiny_documents.change_json(run, "kg/measured.json", {"rule": rule})
    return run


@pytest.fixture(scope="module")
def named(asking: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("named") / "run"
    added = add_relation(asking, out, Relation(NAME, description="Tastes good with it."))
    assert added.calibration.startswith(KEPT)
    return out


def test_new_documents_may_have_the_relation(asking: Path, named: Path, tmp_path: Path) -> None:
    docs = tiny_documents.write_texts(tmp_path / "docs", tiny_documents.all_texts())
    found: list[dict[tuple[Any, ...], float]] = []
    for place, run in enumerate((asking, named)):
        out = tmp_path / str(place)
        summary = extract_documents(run, [docs], out).summary
        manifest = read_json(out / "manifest.json")
        names = [NAME] if run == named else None
        assert summary.get(AN_ORDER) == manifest.get(AN_ORDER) == names
        triples = {one["triple_id"]: one for one in rows(out, "kg/triples")}
        relations = Counter(one["relation"] for one in triples.values())
        assert (relations[NAME] > 0) == (run == named)
        found.append(
            {
                (row["triple_id"], row["doc_id"], row["head_start"]): row["score"]
                for row in rows(out, "kg/evidence")
                if triples[row["triple_id"]]["relation"] != NAME
                and not triples[row["triple_id"]]["tail_id"].startswith("novel:")
            }
        )
    # What is known is asked about in the same places, and scored as before.
    before, after = found
    assert before.keys() == after.keys()
    assert len(before) > 20
    assert all(after[one] == pytest.approx(before[one], abs=1e-4) for one in before)


def test_the_manifest_says_what_the_folder_is(asking: Path, named: Path) -> None:
    manifest = read_json(named / "manifest.json")
    origin = manifest["relation"]
    assert (origin["name"], origin["description"]) == (NAME, "Tastes good with it.")
    assert origin["from"]["run"] == str(asking)
    assert origin["from"]["weights"] == sha256_file(asking / "model" / "model.safetensors")
    assert origin["calibration"] == f"{KEPT} (no triple was given)"
    before = read_json(asking / "manifest.json")
    assert all(manifest[name] == before[name] for name in ("config", "inputs", "seed"))
    for stage in manifest["stages"].values():
        for name, digest in stage["outputs"].items():
            assert sha256_file(named / name) == digest
    opened = open_frozen(named)
    assert opened.rule.corpus.uncalibrated == [NAME]
    assert opened.rule.corpus.least(NAME, novel=False) == opened.rule.corpus.threshold
    schema = read_schema(named / "seed" / "schema.toml")
    assert schema.relations[NAME].description == "Tastes good with it."


def test_it_is_copied_and_it_encodes(named: Path, tmp_path: Path) -> None:
    copy_frozen(named, tmp_path / "copy")
    docs = tiny_documents.write_texts(tmp_path / "docs", {"a.txt": tiny_documents.TEXTS[0]})
    told = encode_documents(tmp_path / "copy", [docs], tmp_path / "v.parquet")
    assert told["vectors"] > 0
    for name, model in (("one", named), ("two", tmp_path / "copy")):
        extract_documents(model, [docs], tmp_path / name, min_accepted=0)
    assert tiny_run.contents(tmp_path / "one") == tiny_run.contents(tmp_path / "two")


def test_a_second_relation_comes_on_top(named: Path, tmp_path: Path) -> None:
    add_relation(named, tmp_path / "two", Relation("a_kind_before"))
    opened = open_frozen(tmp_path / "two")
    assert opened.rule.corpus.uncalibrated == ["a_kind_before", NAME]
    assert opened.added is not None
    assert opened.added["from"]["relation"]["name"] == NAME
    relations = load(tmp_path / "two").relations
    assert [relations[place] for place in opened.rule.corpus.added_places(relations)] == [
        "a_kind_before",
        NAME,
    ]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 0xFF
    path.write_bytes(bytes(data))


def other_schema(run: Path) -> None:
    path = run / "seed" / "schema.toml"
    path.write_text(path.read_text(encoding="utf-8") + "# more\n", encoding="utf-8")


def other_rule(run: Path) -> None:
    rule = read_json(run / "kg" / "measured.json")["rule"]
    tiny_documents.change_json(run, "kg/measured.json", {"rule": {**rule, "added": {NAME: {}}}})


TAMPERED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "weights": (lambda run: flip(run / "model" / "model.safetensors"), "has changed.*Add the rel"),
    "schema": (other_schema, "schema.toml.*Add the relation again"),
    "gone": (lambda run: (run / "seed" / "triples.parquet").unlink(), "it is gone.*Add the rel"),
    "rule": (other_rule, "lacks a part.*calibrator"),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_what_was_changed_is_refused(named: Path, tmp_path: Path, case: str) -> None:
    again = Path(shutil.copytree(named, tmp_path / "again"))
    change, words = TAMPERED[case]
    change(again)
    docs = tiny_documents.write_texts(tmp_path / "docs", {"a.txt": "Salt."})
    with pytest.raises(DataError, match=words):
        extract_documents(again, [docs], tmp_path / "out")


def test_the_run_before_must_be_whole_and_no_run_is_overwritten(
    frozen_run: Path, tmp_path: Path
) -> None:
    again = Path(shutil.copytree(frozen_run, tmp_path / "again"))
    with pytest.raises(ConfigError, match="holds another run"):
        add_relation(frozen_run, again, Relation(NAME))
    flip(again / "chains" / "chains.parquet")
    with pytest.raises(DataError, match=r"chains\.parquet.*SHA-256"):
        add_relation(again, tmp_path / "out", Relation(NAME))


# --- a relation with triples ------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fitted") / "run"
    with tiny_run.working_in(finished):
        add_relation("run", out, Relation(SPEEDS), triples=said(Path("run")), fit=FIT)
    return out


def test_triples_held_apart_calibrate(finished: Path, fitted: Path, tmp_path: Path) -> None:
    summary = read_json(fitted / "relation.json")
    assert summary["n_held_apart"] >= FIT.min_calibration
    assert summary["n_triples"] >= FIT.min_triples
    assert summary["n_held_apart"] + summary["n_triples"] <= len(said(finished / "run"))
    text = read_json(fitted / "manifest.json")["relation"]["calibration"]
    assert text.startswith("fitted on")
    corpus = open_frozen(fitted).rule.corpus
    assert corpus.uncalibrated == []
    own = corpus.added[SPEEDS]
    assert own.calibrator is not None
    measured = read_json(fitted / "kg" / "measured.json")["added"][SPEEDS]
    assert measured["calibration"] == text
    assert measured["fitted_on"] == "triples held apart"
    assert corpus.least(SPEEDS, novel=False) == own.threshold == measured["threshold"]
    assert corpus.least("regulates", novel=False) == corpus.threshold
    texts = {
        f"{place}.txt": f"regulation of {place} growth. It changes the rate of {place} growth."
        for place in tiny_run.OBJECTS
    }
    docs = tiny_documents.write_texts(tmp_path / "docs", texts)
    summary = extract_documents(fitted, [docs], tmp_path / "out").summary
    assert AN_ORDER not in summary
    found = [row for row in rows(tmp_path / "out", "kg/triples") if row["relation"] == SPEEDS]
    assert found
    assert min(row["score"] for row in found) >= corpus.least(SPEEDS, novel=False)


def test_heads_held_apart_are_not_fitted_on(fitted: Path) -> None:
    prepared = load(fitted)
    place = prepared.relations.index(SPEEDS)
    numbers = {"share": 0.4, "least": 2, "least_fitted": 5, "seed": 0}
    held = hold_apart(prepared, place, **numbers)
    heads = {head for head, relation, _ in prepared.triples["train"].tolist() if relation == place}
    assert held
    assert held < heads
    chains, _ = fit_chains(prepared, place, FIT, held)
    shown = {one.head_entity for chain in chains for one in chain.triples if one.relation == place}
    assert shown
    assert not shown & held
    assert hold_apart(prepared, place, **numbers) == held
    assert hold_apart(prepared, place, **{**numbers, "seed": 1}) != held
    # Too few for both: nothing is held apart.
    for change in ({"share": 0.0}, {"least": 1000}, {"least_fitted": 1000}):
        assert hold_apart(prepared, place, **{**numbers, **change}) == frozenset()


def test_too_few_keep_the_calibration(finished: Path, fitted: Path, tmp_path: Path) -> None:
    few = FIT.model_copy(update={"steps": 1, "min_calibration": 500})
    with tiny_run.working_in(finished):
        triples = said(Path("run"))
        added = add_relation("run", tmp_path / "few", Relation(SPEEDS), triples=triples, fit=few)
        assert added.calibration == f"{KEPT} (fewer than 500 triples could be held apart)"
        assert added.n_held_apart == 0
        assert open_frozen(tmp_path / "few").rule.corpus.uncalibrated == [SPEEDS]
        prepared = load(fitted)
        place = prepared.relations.index(SPEEDS)
        held = hold_apart(prepared, place, share=0.4, least=2, least_fitted=5, seed=0)
        source, model = open_frozen(Path("run")), load_model(fitted / "model")
        told = calibrate(source, model, prepared, place, held, least=100, progress=Silent())
    assert "100 are needed" in told.text
    assert told.rule.calibrator is None


# --- a run that chose no thresholds -----------------------------------------------------------


@pytest.fixture
def trained(finished: Path, tmp_path: Path) -> Path:
    """The run as training leaves it."""
    run = Path(shutil.copytree(finished / "run", tmp_path / "trained"))
    manifest = read_json(run / "manifest.json")
    for stage in ("extract", "evaluate", "report"):
        del manifest["stages"][stage]
    (run / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return run


def test_a_trained_run_only_encodes(trained: Path, tmp_path: Path) -> None:
    added = add_relation(trained, tmp_path / "out", Relation(NAME))
    assert added.calibration == UNCHOSEN
    assert open_frozen(tmp_path / "out", extracts=False).added is not None
    with pytest.raises(DataError, match="Finish the run that the relation was added to"):
        open_frozen(tmp_path / "out")


def test_descriptions_choose_the_nearest(trained: Path, tmp_path: Path) -> None:
    path = trained / "seed" / "schema.toml"
    schema = read_schema(path)
    meaning = "Makes something slower."
    known = schema.relations | {
        "has_part": Relation("has_part", label="hinders", description=meaning)
    }
    write_schema(path, type(schema)(schema.types, known))
    manifest = read_json(trained / "manifest.json")
    manifest["stages"]["prepare"]["outputs"]["seed/schema.toml"] = sha256_file(path)
    (trained / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    new = Relation("hinders", description=meaning)
    added = add_relation(trained, tmp_path / "out", new)
    model, tokenizer = load_model(trained / "model"), load(trained).tokenizer
    names = sorted(known)
    weights = nearest_weights(model, tokenizer, [known[one].words for one in names], new.words)
    assert added.nearest[0] == ("has_part", weights[names.index("has_part")])
    assert dict(added.nearest) == {
        name: weight for name, weight in zip(names, weights, strict=True) if weight
    }
    labels = [known[one].label for one in names]
    assert nearest_weights(model, tokenizer, labels, new.words) != weights
