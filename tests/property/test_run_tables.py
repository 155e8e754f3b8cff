"""What must hold for the real tables of a run, checked without the code that wrote them."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import tiny_run
from graphmert.kg import KG, Triple, read_obo, read_schema, validate
from graphmert.kg.types import Entity
from graphmert.run.prepared import Prepared
from graphmert.shards import sha256_file

Row = dict[str, Any]
Ids = tuple[str, str, str]

# The contract of the run directory: exactly these columns, in this order.
COLUMNS = {
    "corpus/documents": "doc_id sha256 title text source meta",
    "corpus/sequences": "seq_id doc_id start end",
    "seed/entities": "entity_id name type synonyms",
    "seed/triples": "head_id relation tail_id split",
    "chains/injected": "seq_id head_start head_end triple score",
    "kg/entities": "entity_id name type synonyms merged_from",
    "kg/triples": "triple_id head_id head relation tail_id tail score novel n_evidence",
    "kg/evidence": "triple_id domain doc_id sha256 sent_start sent_end sentence head_start "
    "head_end head_surface tail_start tail_end tail_surface locator model_hash method score",
    "kg/rejected": "candidate reason score doc_id sent_start sent_end",
}
STAGES = ("prepare", "train", "extract", "evaluate", "report")


@pytest.fixture(scope="module")
def run(finished: Path) -> Path:
    return finished / "run"


@pytest.fixture(scope="module")
def ledgers(run: Path) -> dict[str, Row]:
    listed = read_json(run / "ledger.json")["stages"]
    found = {one["stage"]: one for one in listed}
    assert len(found) == len(listed)
    return found


def rows(run: Path, name: str) -> list[Row]:
    return pq.read_table(run / f"{name}.parquet").to_pylist()


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def part(run: Path, *parts: str) -> set[Ids]:
    return {
        (row["head_id"], row["relation"], row["tail_id"])
        for row in rows(run, "seed/triples")
        if row["split"] in parts
    }


def content_id(head_id: str, relation: str, tail_id: str) -> str:
    text = "".join(f"{len(one)}:{one}" for one in (head_id, relation, tail_id))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def names_of(run: Path) -> dict[str, set[str]]:
    return {
        row["entity_id"]: {name.casefold() for name in (row["name"], *row["synonyms"])}
        for row in rows(run, "seed/entities")
    }


# --- tables and ledgers ---------------------------------------------------------------------


@pytest.mark.parametrize("name", COLUMNS)
def test_columns(run: Path, name: str) -> None:
    assert pq.read_schema(run / f"{name}.parquet").names == COLUMNS[name].split()


def test_every_ledger_balances(ledgers: dict[str, Row]) -> None:
    assert list(ledgers) == [
        "read_obo",
        "sequences",
        "mentions",
        "head_spans",
        "inject",
        "extract: queries",
        "extract: candidates",
    ]
    for ledger in ledgers.values():
        assert ledger["kept"] + sum(ledger["left_out"].values()) == ledger["offered"] > 0
        assert ledger["examples"].keys() == ledger["left_out"].keys()
        assert all(count > 0 for count in ledger["left_out"].values())
        assert all(len(examples) <= 5 for examples in ledger["examples"].values())


def test_ledgers_of_preparation_count_rows(
    finished: Path, run: Path, ledgers: dict[str, Row]
) -> None:
    text = (finished / "tiny.obo").read_text(encoding="utf-8")
    n_offered = sum(
        len(re.findall(pattern, text, re.MULTILINE))
        for pattern in (r"^\[Term\]", r"^synonym:", r"^is_a: T:", r"^relationship:")
    )
    entities, triples = rows(run, "seed/entities"), rows(run, "seed/triples")
    n_synonyms = sum(len(row["synonyms"]) for row in entities)
    assert ledgers["read_obo"]["offered"] == n_offered
    assert ledgers["read_obo"]["kept"] == len(entities) + len(triples) + n_synonyms

    documents, mentions = rows(run, "corpus/documents"), rows(run, "corpus/mentions")
    n_words = sum(len(row["text"].split()) for row in documents)
    assert ledgers["sequences"]["offered"] == n_words
    assert ledgers["mentions"]["kept"] == ledgers["head_spans"]["offered"] == len(mentions)
    assert ledgers["head_spans"]["kept"] == len(rows(run, "chains/heads"))

    injected = rows(run, "chains/injected")
    n_triples = Counter(head for head, _, _ in part(run, "train"))
    assert ledgers["inject"]["offered"] == sum(n_triples[row["entity_id"]] for row in mentions)
    assert ledgers["inject"]["kept"] == len(injected)
    assert len(injected) == sum(len(row["relation"]) for row in rows(run, "chains/chains"))
    tokens = f"tail longer than {tiny_run.MAX_TAIL_TOKENS} tokens"
    assert ledgers["inject"]["left_out"][tokens] > 0


def test_ledgers_of_extraction_count_rows(run: Path, ledgers: dict[str, Row]) -> None:
    accepted, rejected = rows(run, "kg/triples"), rows(run, "kg/rejected")
    candidates = ledgers["extract: candidates"]
    assert candidates["offered"] == len(accepted) + len(rejected)
    assert candidates["kept"] == len(accepted) > 0
    reasons = Counter(row["reason"].split(":")[0] for row in rejected)
    assert candidates["left_out"] == dict(reasons)

    known = {row["entity_id"]: row["type"] for row in rows(run, "seed/entities")}
    relations = tomllib.loads((run / "seed/schema.toml").read_text("utf-8"))["relations"]
    n_queries = {
        head: sum(known[head] in one["domain"] for one in relations.values())
        for head in {head for head, _, _ in part(run, "test")}
    }
    queries = ledgers["extract: queries"]
    assert queries["offered"] == sum(n_queries.values())
    seen = {head for head, _, _ in part(run, "train")} & n_queries.keys()
    assert sum(queries["left_out"].values()) == sum(n_queries[head] for head in seen)
    counts = read_json(run / "manifest.json")["stages"]["extract"]["counts"]
    assert counts["n_queries"] == queries["kept"]
    assert counts["n_accepted"] == len(accepted)
    assert counts["n_rejected"] == len(rejected)
    top_k = 5
    assert candidates["offered"] == top_k * queries["kept"]


def test_no_candidate_twice_and_none_lost(run: Path) -> None:
    accepted = [tuple(row[n] for n in ("head_id", "relation", "tail_id")) for row in kg(run)]
    rejected = [tuple(json.loads(row["candidate"])) for row in rows(run, "kg/rejected")]
    counts = Counter([*accepted, *rejected])
    assert max(counts.values()) == 1
    assert all(head != tail for head, _, tail in counts)


def kg(run: Path) -> list[Row]:
    return rows(run, "kg/triples")


# --- evidence -------------------------------------------------------------------------------


def test_surfaces_equal_the_text(run: Path) -> None:
    documents = {row["doc_id"]: row for row in rows(run, "corpus/documents")}
    names, triples = names_of(run), {row["triple_id"]: row for row in kg(run)}
    model_hash = sha256_file(run / "model" / "model.safetensors")
    found: Counter[str] = Counter()
    for row in rows(run, "kg/evidence"):
        triple, text = triples[row["triple_id"]], documents[row["doc_id"]]["text"]
        found[row["triple_id"]] += 1
        assert row["sha256"] == hashlib.sha256(text.encode()).hexdigest()
        assert row["sha256"] == documents[row["doc_id"]]["sha256"]
        assert text[row["sent_start"] : row["sent_end"]] == row["sentence"] != ""
        assert text[row["head_start"] : row["head_end"]] == row["head_surface"]
        assert row["sent_start"] <= row["head_start"] < row["head_end"] <= row["sent_end"]
        assert row["head_surface"].casefold() in names[triple["head_id"]]
        is_inferred = row["tail_start"] is None
        assert row["method"].endswith("inferred") == is_inferred
        assert (row["tail_end"] is None) == (row["tail_surface"] is None) == is_inferred
        if not is_inferred:
            assert text[row["tail_start"] : row["tail_end"]] == row["tail_surface"]
            assert row["sent_start"] <= row["tail_start"] < row["tail_end"] <= row["sent_end"]
            assert row["tail_surface"].casefold() in names[triple["tail_id"]]
        assert (row["domain"], row["model_hash"]) == ("text", model_hash)
        assert row["score"] == triple["score"]
    assert found == {one: row["n_evidence"] for one, row in triples.items()}
    in_text = {row["tail_start"] is not None for row in rows(run, "kg/evidence")}
    assert True in in_text


def test_rejected_rows_name_a_place_in_the_text(run: Path) -> None:
    texts = {row["doc_id"]: row["text"] for row in rows(run, "corpus/documents")}
    for row in rows(run, "kg/rejected"):
        head, _, _ = json.loads(row["candidate"])
        assert row["doc_id"] == head
        assert 0 <= row["sent_start"] < row["sent_end"] <= len(texts[row["doc_id"]])
        assert row["reason"]


def test_spans_of_sequences_and_mentions(run: Path) -> None:
    documents = {row["doc_id"]: row for row in rows(run, "corpus/documents")}
    sequences = {row["seq_id"]: row for row in rows(run, "corpus/sequences")}
    names = names_of(run)
    for row in sequences.values():
        text = documents[row["doc_id"]]["text"]
        assert 0 <= row["start"] < row["end"] <= len(text)
        assert text[row["start"] : row["end"]].strip() == text[row["start"] : row["end"]]
    for row in rows(run, "corpus/mentions"):
        sequence = sequences[row["seq_id"]]
        assert sequence["start"] <= row["start"] < row["end"] <= sequence["end"]
        text = documents[row["doc_id"]]["text"]
        assert text[row["start"] : row["end"]] == row["surface"]
        assert row["surface"].casefold() in names[row["entity_id"]]
        assert not row["is_title"] or (row["entity_id"], row["start"]) == (row["doc_id"], 0)
    assert sum(row["doc_id"] == row["entity_id"] for row in rows(run, "corpus/mentions")) >= len(
        documents
    )


# --- triples --------------------------------------------------------------------------------


def test_triples_are_identified_by_content(run: Path) -> None:
    entities = {row["entity_id"]: row for row in rows(run, "kg/entities")}
    seed = {row["entity_id"]: row for row in rows(run, "seed/entities")}
    assert {k: row | {"merged_from": []} for k, row in seed.items()} == entities
    for row in kg(run):
        assert row["triple_id"] == content_id(row["head_id"], row["relation"], row["tail_id"])
        assert row["head"] == entities[row["head_id"]]["name"]
        assert row["tail"] == entities[row["tail_id"]]["name"]
        assert 0 <= row["score"] <= 1


def closure(known: Iterable[Ids], relations: dict[str, Row]) -> set[Ids]:
    """Apply the rules until nothing new follows."""
    found = set(known)
    while True:
        new: set[Ids] = set()
        tails: dict[tuple[str, str], set[str]] = defaultdict(set)
        for head, relation, tail in found:
            tails[relation, head].add(tail)
        for head, relation, tail in found:
            rule = relations[relation]
            new |= {(head, parent, tail) for parent in rule.get("sub_relation_of", ())}
            inverses = {rule.get("inverse")} | {
                name for name, other in relations.items() if other.get("inverse") == relation
            }
            new |= {(tail, name, head) for name in inverses - {None}}
            if rule["symmetric"]:
                new.add((tail, relation, head))
            if rule["transitive"]:
                new |= {(head, relation, far) for far in tails[relation, tail]}
        if new <= found:
            return found
        found |= new


def test_novel_is_what_does_not_follow_from_training(run: Path) -> None:
    relations = tomllib.loads((run / "seed/schema.toml").read_text("utf-8"))["relations"]
    train, held_out = part(run, "train"), part(run, "valid", "test")
    known = closure(train, relations)
    assert len(known) > len(train)
    for row in kg(run):
        triple = (row["head_id"], row["relation"], row["tail_id"])
        assert row["novel"] == (triple not in known)
        # A held-out triple counts as novel, unless it follows from training.
        assert row["novel"] or triple not in held_out or triple in known


def test_accepted_triples_with_the_seed_keep_the_schema(run: Path) -> None:
    entities = [
        Entity(row["entity_id"], row["name"], row["type"]) for row in rows(run, "seed/entities")
    ]
    accepted = [Triple(row["head_id"], row["relation"], row["tail_id"]) for row in kg(run)]
    seed = [Triple(*one) for one in part(run, "train")]
    schema = read_schema(run / "seed" / "schema.toml")
    assert validate(KG.build(entities, [*seed, *accepted]), schema) == []


# --- what is held out -----------------------------------------------------------------------


def mirrors(triples: set[Ids], relations: dict[str, Row]) -> set[Ids]:
    turned = {name: one.get("inverse") for name, one in relations.items() if one.get("inverse")}
    return {(tail, turned[name], head) for head, name, tail in triples if name in turned}


def test_the_split_is_by_head_and_whole(run: Path, finished: Path) -> None:
    relations = tomllib.loads((run / "seed/schema.toml").read_text("utf-8"))["relations"]
    train, valid, test = (part(run, one) for one in ("train", "valid", "test"))
    read = {tuple(one) for one in read_obo(finished / "tiny.obo").kg.triples}
    assert train | valid | test == read
    assert len(train) + len(valid) + len(test) == len(read)
    both = mirrors(read, relations)
    assert mirrors(valid | test, relations) & both & train == set()
    heads = {head for head, _, _ in train}
    for held in (valid, test):
        again = {one for one in held if one[0] in heads}
        assert again <= mirrors(held, relations)
    assert {head for head, _, _ in valid} & {head for head, _, _ in test} == set()


def test_nothing_held_out_is_on_a_chain(run: Path) -> None:
    entities = [row["entity_id"] for row in rows(run, "seed/entities")]
    names = tuple(sorted(read_schema(run / "seed" / "schema.toml").relations))
    train = part(run, "train")
    ids = {content_id(*one) for one in train}
    assert {row["triple"] for row in rows(run, "chains/injected")} <= ids
    n_leaves = 0
    for row in rows(run, "chains/chains"):
        for head, name, tail in zip(
            row["head_entity"], row["relation"], row["tail_entity"], strict=True
        ):
            assert (entities[head], names[name], entities[tail]) in train
            n_leaves += 1
    assert n_leaves > len(train)


def test_training_sees_no_held_out_definition(run: Path) -> None:
    held_out = {head for head, _, _ in part(run, "valid", "test")}
    prepared = Prepared.load(run, max_tail_tokens=tiny_run.MAX_TAIL_TOKENS)
    trained = {chain.chain_id for chain in prepared.training_chains()}
    documents = {row["seq_id"]: row["doc_id"] for row in rows(run, "corpus/sequences")}
    assert len(held_out) >= 20
    assert {documents[one] for one in trained} & held_out == set()
    assert trained == {one for one, document in documents.items() if document not in held_out}


# --- files ----------------------------------------------------------------------------------


def test_manifest_names_inputs_and_outputs(finished: Path, run: Path) -> None:
    manifest = read_json(run / "manifest.json")
    assert manifest.keys() == {"config", "config_hash", "inputs", "versions", "seed", "stages"}
    assert manifest["inputs"] == {"kg": sha256_file(finished / "tiny.obo")}
    assert manifest["config"]["split"]["n_test_heads"] == 12
    assert manifest["stages"].keys() == set(STAGES)
    named: dict[str, str] = {}
    for record in manifest["stages"].values():
        assert record["state"] == "done"
        assert named.keys() & record["outputs"].keys() == set()
        named |= record["outputs"]
    assert all(sha256_file(run / name) == digest for name, digest in named.items())
    unnamed = tiny_run.contents(run).keys() - named.keys()
    assert {name for name in unnamed if not name.startswith("model/checkpoints/")} == {
        "manifest.json",
        "ledger.json",
        "run.toml",
        "model/fingerprint.txt",
    }


def test_times_are_in_timings_only(run: Path) -> None:
    timings = read_json(run / "timings.json")
    assert timings.keys() == {*STAGES, "hardware"}
    assert all(timings[name]["seconds"] > 0 for name in STAGES)
    assert all(timings[name]["peak_memory_bytes"] > 0 for name in STAGES)
    for name in ("manifest.json", "ledger.json", "metrics.json"):
        keys = re.findall(r'"(\w+)":', (run / name).read_text(encoding="utf-8"))
        told = {one for one in keys if re.search(r"(^|_)(time|seconds|date|host|memory)", one)}
        assert told <= {"max_seconds", "timeout_s"}  # settings


def test_metrics(run: Path) -> None:
    metrics = read_json(run / "metrics.json")
    assert metrics.keys() == {"system", "test", "calibration", "extraction", "rule", "graph"}
    test, ranks = metrics["test"], rows(run, "kg/ranks_all")
    assert metrics["system"] in test["systems"]
    assert {"relation_frequency", "longest_name_in_text", "bm25_names", "char_ngram"} <= test[
        "systems"
    ].keys()
    for name, system in test["systems"].items():
        own = [row for row in ranks if row["system"] == name]
        assert system["n"] == len(own) == test["n_triples"]
        by_relation = defaultdict(list)
        for row in own:
            by_relation[row["relation"]].append(1 / row["rank"])
            assert 1 <= row["rank"] <= test["n_entities"]
        means = [sum(one) / len(one) for one in by_relation.values()]
        assert system["mrr_macro"]["value"] == pytest.approx(sum(means) / len(means), abs=1e-5)
        every = [1 / row["rank"] for row in own]
        assert system["mrr_micro"]["value"] == pytest.approx(sum(every) / len(every), abs=1e-5)
        assert system["mrr_macro"]["low"] <= system["mrr_macro"]["high"]
    assert test["n_entities"] == len(rows(run, "seed/entities"))
    seen = {head for head, _, _ in part(run, "train")}
    unseen = {one for one in part(run, "test") if one[0] not in seen}
    assert test["n_triples"] == len(unseen)
    assert test["n_heads"] == len({head for head, _, _ in unseen}) == 12
    found = {(row["head_id"], row["relation"], row["tail_id"]) for row in kg(run)}
    assert metrics["extraction"]["n_accepted_held_out"] == len(found & part(run, "test"))
    assert metrics["extraction"]["n_novel"] == sum(row["novel"] for row in kg(run))


class _Resources(HTMLParser):
    """Collect what a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in {"src", "srcset", "data", "poster", "background"} or (
                name in {"href", "xlink:href"} and tag in {"link", "image", "use", "script"}
            ):
                self.loaded.append(f"{tag} {value}")


def test_report_needs_no_other_file(run: Path) -> None:
    page = (run / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://", page.replace("http://www.w3.org/2000/svg", ""))
    assert "<script src" not in page
    assert not re.search(r"@import|url\((?!['\"]?(#|data:))", page)
    reader = _Resources()
    reader.feed(page)
    assert [one for one in reader.loaded if not one.split()[1].startswith(("#", "data:"))] == []
    macro = read_json(run / "metrics.json")["test"]["systems"]["graphmert"]["mrr_macro"]["value"]
    for text in (page, (run / "report.md").read_text(encoding="utf-8")):
        assert f"{macro:.3f}" in text
        assert "extract: candidates" in text


# --- the same inputs, the same bytes --------------------------------------------------------


def test_two_folders_hold_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    tiny_run.write_inputs(tmp_path)
    tiny_run.execute(tmp_path)
    one, two = tiny_run.contents(finished), tiny_run.contents(tmp_path)
    assert one.keys() == two.keys()
    assert [name for name in one if one[name] != two[name]] == []
    assert any(name.startswith("run/model/checkpoints/checkpoint-40/") for name in one)
