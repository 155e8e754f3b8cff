from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graphmert.domains.vectors import links, open_vectors, write_vectors
from graphmert.domains.vectors.links import (
    Leaves,
    LinkSettings,
    choose_leaves,
    entity_names,
    link_rows,
    write_links,
)
from graphmert.errors import DataError, FormatError, ProvenanceError
from graphmert.kg import KG, Entity, Triple
from tiny_vectors import walk, write_documents

DIM = 8
SETTINGS = LinkSettings(alpha=0.3, max_entities=3, max_leaves=4)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a = a.astype(float) / np.linalg.norm(a, axis=1, keepdims=True)
    return a @ (b.astype(float) / np.linalg.norm(b, axis=1, keepdims=True)).T


def random_vectors(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, DIM)).astype(np.float32)


@pytest.mark.parametrize("cells", [1, 100, 8_000_000])
def test_rows_are_linked_to_the_nearest_entities(
    monkeypatch: pytest.MonkeyPatch, cells: int
) -> None:
    monkeypatch.setattr(links, "_BLOCK_CELLS", cells)
    texts, entities = random_vectors(20, 1), random_vectors(30, 2)
    found = link_rows(texts, entities, SETTINGS)
    expected = cosines(texts, entities)
    for row in range(20):
        best = [int(one) for one in np.argsort(-expected[row]) if expected[row, one] >= 0.3][:3]
        chosen = found.entity[row][found.entity[row] >= 0].tolist()
        assert chosen == best
        assert np.allclose(found.score[row][: len(best)], expected[row, best], atol=1e-6)
    n_linked = int((expected.max(1) >= 0.3).sum())
    assert found.ledger.n_kept == n_linked
    assert found.ledger.n_offered == 20


def test_entities_that_are_vectors_of_the_corpus_are_never_linked() -> None:
    """Also where so many are that the places kept for a row are all taken by them."""
    texts = walk(40, DIM, noise=0.05)
    others = random_vectors(30, 2)
    entities = np.concatenate([texts * 2.0, others]).astype(np.float32)  # length plays no part
    found = link_rows(texts, entities, SETTINGS)
    assert not found.usable[:40].any()
    assert found.usable[40:].all()
    alone = link_rows(texts, others, SETTINGS)
    assert np.array_equal(found.entity, np.where(alone.entity >= 0, alone.entity + 40, -1))
    assert np.allclose(found.score, alone.score, atol=1e-6)


def test_the_corpus_is_no_entity_table() -> None:
    texts = random_vectors(5, 1)
    with pytest.raises(DataError, match="the corpus itself"):
        link_rows(texts, texts, SETTINGS)
    with pytest.raises(DataError, match="different models"):
        link_rows(texts, texts[:, :4], SETTINGS)
    with pytest.raises(DataError, match="empty"):
        link_rows(texts, texts[:0], SETTINGS)


def leaves_of(columns: dict[str, np.ndarray], row: int) -> list[tuple[int, int, int]]:
    at = columns["row"] == row
    names = ("entity", "relation_number", "tail")
    return list(zip(*(columns[name][at].tolist() for name in names), strict=True))


def test_a_later_vector_changes_no_earlier_leaf() -> None:
    """The target of a window, or any vector after its context, plays no part in its leaves."""
    texts, entities = random_vectors(30, 3), random_vectors(25, 4)
    rng = np.random.default_rng(0)
    triples = [tuple(int(x) for x in rng.integers(0, (25, 4, 25))) for _ in range(120)]
    settings = LinkSettings(alpha=0.1, max_leaves=3, relation_bucket=1)

    def leaves(vectors: np.ndarray) -> dict[str, np.ndarray]:
        return choose_leaves(link_rows(vectors, entities, settings), [0, 18], triples, settings)[0]

    before = leaves(texts)
    for target in (5, 17, 18, 29):
        changed = texts.copy()
        changed[target:] = random_vectors(30 - target, 99 + target)
        after = leaves(changed)
        early = [name for name in before if name != "row"]
        for row in range(target):
            assert leaves_of(before, row) == leaves_of(after, row)
        kept = before["row"] < target
        for name in early:
            assert np.array_equal(before[name][kept], after[name][after["row"] < target])
    assert len(before["row"]) > 30
    # Documents do not influence one another either.
    changed = texts.copy()
    changed[:18] = random_vectors(18, 7)
    after = leaves(changed)
    assert all(leaves_of(before, row) == leaves_of(after, row) for row in range(18, 30))


def linked(entity: list[list[int]], score: list[list[float]], n_entities: int) -> links.Linked:
    return links.Linked(
        np.array(entity, np.int32),
        np.array(score, np.float32),
        np.ones(n_entities, bool),
        links.Ledger("link"),
    )


def test_score_comes_first_then_diversity() -> None:
    # Relation 0 is used up by earlier rows; relation 1 is as good to within a bucket.
    triples = [(0, 0, 5), (0, 1, 6), (1, 2, 7)]
    settings = LinkSettings(max_leaves=1, relation_bucket=1, score_bucket=0.05)
    both = linked([[0, -1]] * 3, [[0.9, 0.0]] * 3, 8)
    columns, ledger = choose_leaves(both, [0], triples, settings)
    assert columns["relation_number"].tolist() == [0, 1, 0]
    assert ledger.n_offered == 6
    assert ledger.reasons == {"more than 1 leaves on a row": 3}
    # A better score beats a fresher relation, when it lies in a better bucket.
    mixed = linked([[0, 1]] * 2, [[0.9, 0.7]] * 2, 8)
    columns, _ = choose_leaves(mixed, [0], triples, settings)
    assert columns["entity"].tolist() == [0, 0]
    near = linked([[0, 1]] * 3, [[0.91, 0.905]] * 3, 8)
    columns, _ = choose_leaves(near, [0], triples, settings)
    assert columns["relation_number"].tolist() == [0, 1, 2]
    # Counts begin anew with each document.
    columns, _ = choose_leaves(both, [0, 1, 2], triples, settings)
    assert columns["relation_number"].tolist() == [0, 0, 0]


def test_equal_leaves_are_hung_once() -> None:
    triples = [(0, 0, 5), (1, 0, 5), (1, 0, 6)]
    two = linked([[0, 1]], [[0.9, 0.8]], 8)
    columns, ledger = choose_leaves(two, [0], triples, SETTINGS)
    assert leaves_of(columns, 0) == [(0, 0, 5), (1, 0, 6)]
    assert columns["rank"].tolist() == [0, 1]
    assert ledger.n_offered == 3
    assert ledger.n_kept == 2


def graph() -> KG:
    entities = [Entity(f"E:{i}", f"name {i}", "thing") for i in range(7)]
    triples = [
        Triple("E:1", "is_a", "E:2"),
        Triple("E:1", "part_of", "E:3"),
        Triple("E:4", "is_a", "E:2"),
        Triple("E:4", "is_a", "E:9"),
    ]
    return KG.build(entities, triples)


def test_entities_are_those_in_triples() -> None:
    names = entity_names(graph())
    assert names.ids == ("E:1", "E:2", "E:3", "E:4")
    assert names.names == ("name 1", "name 2", "name 3", "name 4")
    assert names.relations == ("is_a", "part_of")
    assert names.triples == ((0, 0, 1), (0, 1, 2), (3, 0, 1))
    assert names.ledger.reasons == {
        "an end of the triple is no entity": 1,
        "entity is in no triple": 3,
    }
    with pytest.raises(DataError, match="no triple"):
        entity_names(KG.build([Entity("E:1", "one", "thing")], []))


def entity_table(folder: Path, vectors: np.ndarray, model: str = "0" * 64) -> links.VectorTable:
    rows = pa.table(
        {
            "doc_id": ["E:1", "E:2", "E:3", "E:4"],
            "position": pa.array([0] * 4, pa.int32()),
            "text": ["name 1", "name 2", "name 3", "name 4"],
        }
    )
    return write_vectors(folder, vectors.astype(np.float32), rows, {"model_sha256": model})


def test_links_are_written_and_read(tmp_path: Path) -> None:
    corpus = write_documents(tmp_path / "v", [6, 7])
    near = np.array(corpus.vectors[[2, 2, 9, 9]]) + 0.1 * random_vectors(4, 5)
    entities = entity_table(tmp_path / "links" / "entities", near)
    names = entity_names(graph())
    settings = LinkSettings(alpha=0.8)
    info = write_links(tmp_path / "links", corpus, entities, names, settings, kg_sha256="k")
    leaves = Leaves.load(tmp_path / "links", corpus)
    assert leaves.relations == ("is_a", "part_of")
    assert leaves.entity_ids == names.ids
    assert leaves.entities.shape == (4, DIM)
    assert leaves.offsets.shape == (14,)
    assert leaves.offsets[-1] == info["n_leaves"] == len(leaves.tail)
    expected = cosines(corpus.vectors, near)
    for row in range(13):
        at = leaves.of_row(row)
        found = set(zip(leaves.head[at], leaves.relation[at], leaves.tail[at], strict=True))
        heads = [h for h in range(4) if expected[row, h] >= 0.8]
        assert found <= {one for one in names.triples if one[0] in heads}
        # The same relation and tail through two heads is one leaf.
        assert {one[1:] for one in found} == {t[1:] for t in names.triples if t[0] in heads}
        assert np.allclose(leaves.score[at], expected[row, leaves.head[at]], atol=1e-6)
    assert leaves.of_row(2).stop > leaves.of_row(2).start
    table = pq.read_table(tmp_path / "links" / "linked.parquet")
    assert table.schema.names == links.LINKED_SCHEMA.names
    assert set(table["tail_id"].to_pylist()) <= {"E:2", "E:3"}
    for ledger in info["ledgers"]:
        assert ledger["kept"] + sum(ledger["left_out"].values()) == ledger["offered"]
    first = (tmp_path / "links" / "linked.parquet").read_bytes()
    write_links(tmp_path / "links", corpus, entities, names, settings, kg_sha256="k")
    assert (tmp_path / "links" / "linked.parquet").read_bytes() == first


def test_a_folder_of_two_links_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = write_documents(tmp_path / "v", [6, 7])
    near = np.array(corpus.vectors[[2, 2, 9, 9]]) + 0.1 * random_vectors(4, 5)
    folder, names = tmp_path / "links", entity_names(graph())
    entities = entity_table(folder / "entities", near)
    write_links(folder, corpus, entities, names, LinkSettings(alpha=0.8), kg_sha256="k")
    Leaves.load(folder, corpus)

    old = (folder / "linked.parquet").read_bytes()
    write_links(folder, corpus, entities, names, LinkSettings(alpha=0.3), kg_sha256="k")
    assert (folder / "linked.parquet").read_bytes() != old
    (folder / "linked.parquet").write_bytes(old)
    with pytest.raises(ProvenanceError, match=r"different links.*linked\.parquet"):
        Leaves.load(folder, corpus)

    # The names are embedded again, then the command is killed before it links.
    write_links(folder, corpus, entities, names, LinkSettings(alpha=0.8), kg_sha256="k")
    entities = entity_table(folder / "entities", near + 0.1)
    with pytest.raises(ProvenanceError, match=r"different links.*entities"):
        Leaves.load(folder, corpus)

    def killed(*values: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(links, "choose_leaves", killed)
    with pytest.raises(KeyboardInterrupt):
        write_links(folder, corpus, entities, names, SETTINGS, kg_sha256="k")
    with pytest.raises(FormatError, match="not found"):
        Leaves.load(folder, corpus)


def test_entities_that_are_vectors_of_the_corpus_are_remembered(tmp_path: Path) -> None:
    corpus = write_documents(tmp_path / "v", [6, 7])
    near = np.array(corpus.vectors[[2, 2, 9, 9]]) + 0.1 * random_vectors(4, 5)
    near[1] = corpus.vectors[4]
    entities = entity_table(tmp_path / "links" / "entities", near)
    write_links(tmp_path / "links", corpus, entities, entity_names(graph()), SETTINGS,
                kg_sha256="k")  # fmt: skip
    leaves = Leaves.load(tmp_path / "links", corpus)
    assert leaves.usable.tolist() == [True, False, True, True]


def test_links_of_other_vectors_are_refused(tmp_path: Path) -> None:
    corpus = write_documents(tmp_path / "v", [6, 7])
    entities = entity_table(tmp_path / "links" / "entities", random_vectors(4, 5))
    names = entity_names(graph())
    write_links(tmp_path / "links", corpus, entities, names, SETTINGS, kg_sha256="k")
    other = write_documents(tmp_path / "w", [6, 7], seed=1)
    with pytest.raises(ProvenanceError, match="other vectors"):
        Leaves.load(tmp_path / "links", other)
    stranger = entity_table(tmp_path / "stranger", random_vectors(4, 5), model="1" * 64)
    with pytest.raises(ProvenanceError, match="different models"):
        write_links(tmp_path / "l", corpus, stranger, names, SETTINGS, kg_sha256="k")
    with pytest.raises(DataError, match="not that of the graph"):
        write_links(
            tmp_path / "l", corpus, open_vectors(other.path), names, SETTINGS, kg_sha256="k"
        )
