"""A whole run that completes a graph, on a WordNet of a few dozen synsets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny_run
import toy_wordnet
from graphmert import run
from graphmert.config import build, to_toml
from graphmert.errors import ConfigError, DataError
from graphmert.evaluate import filtered_rank
from graphmert.kg import Triple
from graphmert.progress import Silent
from graphmert.run import RunConfig
from graphmert.run.completion.prepare import Indexed, require_hidden
from graphmert.run.completion.prepared import Completion
from graphmert.run.completion.ranking import Ranker, encode_graph
from graphmert.run.completion.stages import leaks, shown_graphs
from graphmert.run.stages import load_model

Parts = dict[str, list[tuple[str, str, str]]]


def write_inputs(folder: Path, **changes: Any) -> Parts:
    """Write lists, database and RUN.toml into a folder."""
    parts = toy_wordnet.write_benchmark(folder / "lists", folder / "wordnet")
    config = build(toy_wordnet.settings(**changes), RunConfig)
    (folder / "RUN.toml").write_text(to_toml(config, comments=False), encoding="utf-8")
    return parts


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Parts]:
    folder = tmp_path_factory.mktemp("completed")
    published = {"name": "Other", "mrr": 0.5, "compute": "one GPU", "source": "a paper"}
    complete = toy_wordnet.settings()["complete"] | {"published": [published]}
    parts = write_inputs(folder, complete=complete)
    assert tiny_run.execute(folder).exit_code == 0
    return folder, parts


@pytest.fixture(scope="module")
def prepared(finished: tuple[Path, Parts]) -> Completion:
    return Completion.load(finished[0] / "run", max_leaf_tokens=3)


def mirror(row: tuple[str, str, str]) -> tuple[str, str, str]:
    return (row[2], row[1], row[0])


def test_mirrors_of_held_out_triples_are_left_out_and_kept_apart(
    finished: tuple[Path, Parts], prepared: Completion
) -> None:
    folder, parts = finished
    held = [*parts["valid"], *parts["test"]]
    expected = {mirror(row) for row in held} & set(parts["train"])
    assert len(expected) > 0
    mirrors = prepared.run.read("seed/mirrors").to_pylist()
    assert {tuple(row.values()) for row in mirrors} == expected
    split = prepared.run.read("seed/triples").to_pylist()
    kept = {(row["head_id"], row["relation"], row["tail_id"]): row["split"] for row in split}
    assert kept == {
        row: part for part, rows in parts.items() for row in rows if row not in expected
    }
    ledger = json.loads((folder / "run" / "ledger.json").read_text(encoding="utf-8"))
    stage = {one["stage"]: one for one in ledger["stages"]}["mirrors"]
    assert stage["left_out"] == {"mirror of a held-out triple": len(expected)}


def test_no_stored_training_chain_shows_a_held_out_triple_or_its_inverse(
    finished: tuple[Path, Parts], prepared: Completion
) -> None:
    """Read back from chains.parquet by ids, without the code that builds chains."""
    _, parts = finished
    hidden = {row for part in ("valid", "test") for row in parts[part]}
    hidden |= {mirror(row) for row in hidden}
    chains = prepared.run.read("chains/chains").to_pylist()
    n_relations = len(prepared.relations)
    shown = set()
    for row in chains:
        for head, relation, tail in zip(
            row["head_entity"], row["relation"], row["tail_entity"], strict=True
        ):
            ends = (prepared.entity_ids[head], prepared.entity_ids[tail])
            if relation >= n_relations:
                ends = ends[::-1]
            shown.add((ends[0], prepared.relations[relation % n_relations], ends[1]))
    assert shown
    assert not shown & hidden
    metrics = json.loads((prepared.run.path / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["completion"]["leaks"] == {"held_out_triples": 0, "mirrors_of_held_out": 0}


def test_leaks_are_counted_from_both_ends() -> None:
    held = np.array([[0, 0, 1], [2, 1, 3]])
    inverse = np.array([0, 1])
    assert leaks(np.zeros((0, 3), np.int64), held, inverse, 2) == {
        "held_out_triples": 0, "mirrors_of_held_out": 0,
    }  # fmt: skip
    # (1, 0^, 0) says (0, 0, 1); (3, 1, 2) is the mirror of (2, 1, 3); (5, 0, 1) is neither.
    leaves = np.array([[1, 2, 0], [3, 1, 2], [5, 0, 1]])
    assert leaks(leaves, held, inverse, 2) == {"held_out_triples": 1, "mirrors_of_held_out": 1}


@pytest.mark.parametrize("shown", [[0, 0, 1], [1, 0, 0]])
def test_preparing_refuses_a_chain_that_shows_a_held_out_triple(shown: list[int]) -> None:
    rows = np.array([[0, 0, 1], [1, 0, 2], shown])
    part = np.array(["test", "train", "train"])
    indexed = Indexed(("a", "b", "c"), ("a", "b", "c"), ("is",), np.array([0]), rows, part)
    with pytest.raises(DataError, match="held-out triple or its inverse"):
        require_hidden(indexed)
    part = np.array(["test", "train", "test"])
    require_hidden(Indexed(("a", "b", "c"), ("a", "b", "c"), ("is",), np.array([0]), rows, part))


def test_texts_hold_all_names_and_the_gloss(prepared: Completion) -> None:
    documents = prepared.run.read("corpus/documents").to_pylist()
    texts = {row["text"] for row in documents}
    assert "red bird, birdlet: a bird that is red" in texts
    assert len(texts) == len(prepared.entity_ids)
    heads = prepared.run.read("chains/heads").to_pylist()
    for row, head in zip(documents, heads, strict=True):
        assert row["text"][head["char_start"] : head["char_end"]] == row["title"]
        tokens = prepared.texts.roots[head["chain"]][head["root_start"] : head["root_end"]]
        named = prepared.tokenizer.encode(row["title"]).ids.tolist()
        assert list(tokens) == named[: len(tokens)]


def test_ranks_are_those_of_plain_loops(finished: tuple[Path, Parts], prepared: Completion) -> None:
    """Each held-out triple from both ends, by scores of one query at a time."""
    folder, parts = finished
    config = run.load(folder / "RUN.toml")
    model = load_model(folder / "run" / "model")
    true = {row for rows in parts.values() for row in rows}
    ids, n_relations = prepared.entity_ids, len(prepared.relations)
    rows = prepared.run.read("kg/completion").to_pylist()
    for name, graph in shown_graphs(prepared).items():
        mine = [row for row in rows if row["graph"] == name]
        assert len(mine) == 2 * (len(parts["valid"]) + len(parts["test"]))
        for row in mine[:: max(1, len(mine) // 12)]:
            relation = prepared.relations.index(row["relation"])
            head, tail = row["head_id"], row["tail_id"]
            asked, wanted, others = (
                head,
                tail,
                {t for h, r, t in true if (h, r) == (head, row["relation"])},
            )
            if row["side"] == "head":
                asked, wanted = tail, head
                others = {h for h, r, t in true if (r, t) == (row["relation"], tail)}
                relation += n_relations
            query = np.array([[ids.index(asked), relation]])
            encoded = encode_graph(
                model, prepared, graph, query,
                max_shown=config.complete.walks.max_shown, precision="fp32", progress=Silent(),
            )  # fmt: skip
            ranker = Ranker(model, prepared, graph, encoded, shows=name != "none")
            scores = ranker.scores(query)[0]
            expected = filtered_rank(scores, ids.index(wanted), [ids.index(one) for one in others])
            assert row["rank"] == expected


def test_metrics_are_means_over_both_ends(
    finished: tuple[Path, Parts], prepared: Completion
) -> None:
    folder, _ = finished
    section = json.loads((folder / "run" / "metrics.json").read_text(encoding="utf-8"))
    section = section["completion"]
    rows = prepared.run.read("kg/completion").to_pylist()
    assert [one["graph"] for one in section["results"][::2]] == ["none", "train", "given"]
    for one in section["results"]:
        mine = [row for row in rows if (row["graph"], row["split"]) == (one["graph"], one["split"])]
        mrr = np.mean([1 / row["rank"] for row in mine])
        assert one["both"]["mrr"]["value"] == pytest.approx(mrr, abs=1e-6)
        assert one["both"]["mrr"]["low"] <= mrr <= one["both"]["mrr"]["high"]
        sides = [one["head"]["mrr"], one["tail"]["mrr"]]
        assert np.mean(sides) == pytest.approx(mrr, abs=1e-5)
        hits = np.mean([row["rank"] <= 3 for row in mine])
        assert one["both"]["hits@3"]["value"] == pytest.approx(hits, abs=1e-6)
        counted = sum(cell["both"]["n"] for cell in one["per_relation"].values())
        assert counted == one["both"]["n"]
        assert one["with_mirror"]["n"] + one["without_mirror"]["n"] == one["both"]["n"]
    assert section["n_entities"] == len(prepared.entity_ids)
    train = {tuple(row) for row in prepared.triples["train"].tolist()}
    place = prepared.relations.index("_hypernym")
    having = {head for head, relation, _ in train if relation == place}
    asked = [head for head, relation, _ in prepared.triples["test"].tolist() if relation == place]
    shares = section["already_have"]["_hypernym"]
    assert shares["entities_as_head"] == round(len(having) / len(prepared.entity_ids), 4)
    assert shares["held_out_heads"] == round(np.mean([one in having for one in asked]), 4)


def test_the_report_shows_ours_beside_published(finished: tuple[Path, Parts]) -> None:
    folder, _ = finished
    text = (folder / "run" / "report.md").read_text(encoding="utf-8")
    metrics = json.loads((folder / "run" / "metrics.json").read_text(encoding="utf-8"))
    value = metrics["completion"]["results"][-1]["both"]["mrr"]["value"]
    assert f"{value:.3f} \\[" in text
    assert "| Other | 0.500 | – | – | – | one GPU | a paper |" in text
    assert "0 held-out triples, 0 mirrors of one" in text
    assert (folder / "run" / "report.html").is_file()


def test_a_finished_run_is_not_done_again_and_another_report_table_trains_nothing(
    finished: tuple[Path, Parts], tmp_path: Path
) -> None:
    folder = tiny_run.copy(finished[0], tmp_path / "copy")
    before = tiny_run.contents(folder / "run")
    summary = tiny_run.execute(folder).summary
    assert set(summary["stages"].values()) == {"already done"}
    assert tiny_run.contents(folder / "run") == before
    summary = tiny_run.execute(folder, "complete.published=[]").summary
    assert summary["stages"]["train"] == "already done"
    assert summary["stages"]["evaluate"] == "done"


def test_the_same_run_gives_the_same_bytes(finished: tuple[Path, Parts], tmp_path: Path) -> None:
    folder = tiny_run.copy(finished[0], tmp_path / "copy")
    before = tiny_run.contents(folder / "run")
    for name in ("kg/completion.parquet", "model/model.safetensors"):
        (folder / "run" / name).unlink()
    tiny_run.execute(folder)
    assert tiny_run.contents(folder / "run") == before


def test_kept_mirrors_are_trained_on(tmp_path: Path) -> None:
    complete = toy_wordnet.settings()["complete"] | {"mirrors": "keep"}
    parts = write_inputs(tmp_path, complete=complete)
    tiny_run.execute(tmp_path, stage="prepare")
    prepared = Completion.load(tmp_path / "run", max_leaf_tokens=3)
    assert len(prepared.triples["mirrors"]) == 0
    assert len(prepared.triples["train"]) == len(parts["train"])
    assert list(shown_graphs(prepared)) == ["none", "train"]


def test_a_split_that_shares_a_triple_and_a_wrong_file_are_refused(tmp_path: Path) -> None:
    parts = write_inputs(tmp_path)
    with pytest.raises(DataError, match="not the one expected"):
        tiny_run.execute(tmp_path, 'complete.checksums={"train.txt" = "00"}', stage="prepare")
    with pytest.raises(ConfigError, match="no input"):
        tiny_run.execute(tmp_path, 'complete.checksums={"other.txt" = "00"}', stage="prepare")
    with (tmp_path / "lists" / "test.txt").open("a", encoding="utf-8") as stream:
        stream.write("\t".join(parts["train"][0]) + "\n")
    with pytest.raises(DataError, match="two parts") as caught:
        tiny_run.execute(tmp_path, stage="prepare")
    assert " ".join(Triple(*parts["train"][0])) in str(caught.value)


def test_a_split_needs_both_held_out_parts() -> None:
    complete = toy_wordnet.settings()["complete"] | {"valid": ""}
    with pytest.raises(ConfigError, match="both valid and test"):
        build(toy_wordnet.settings(complete=complete), RunConfig)


@pytest.mark.parametrize(
    ("setting", "match"),
    [
        ("train.micro_batch_size=4", "cannot be parted"),
        ('model.changes={leaf_visibility = "open"}', "must not be seen"),
    ],
)
def test_settings_that_would_show_answers_are_refused(
    finished: tuple[Path, Parts], tmp_path: Path, setting: str, match: str
) -> None:
    folder = tiny_run.copy(finished[0], tmp_path / "copy")
    with pytest.raises(ConfigError, match=match):
        tiny_run.execute(folder, setting, stage="train")
