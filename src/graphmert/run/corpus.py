"""Prepare a run from a corpus of documents: import, sequences, candidates, links, injection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from safetensors.numpy import save

from graphmert.domains.text import passes
from graphmert.domains.text.candidates import add_linked_mentions, with_links
from graphmert.domains.text.corpus import import_documents
from graphmert.domains.text.embedding import Embedder
from graphmert.domains.text.linking import link_surfaces, normal_name
from graphmert.domains.text.passes import ChainPart, ReadPart, Source
from graphmert.domains.text.phrases import (
    PhraseSettings,
    RunCounts,
    add_counts,
    choose_phrases,
    recurring,
)
from graphmert.domains.text.selection import select_triples, texts_of, triple_texts
from graphmert.domains.text.tagger import (
    MentionTagger,
    Sentence,
    is_held_out,
    measure_tagger,
)
from graphmert.errors import DataError
from graphmert.inject import inject_scored, inject_simple, training_triples
from graphmert.kept import KeptResults, drop_kept
from graphmert.kg import KGDocument, Schema, reduce_seed, split_by_head, write_schema
from graphmert.progress import Progress
from graphmert.run.holding import hold_out_documents
from graphmert.run.manifest import PACKAGES, StageOutput, fingerprint
from graphmert.run.settings import RunConfig, open_embedder
from graphmert.shards import (
    Ledger,
    atomic_write_bytes,
    map_shards,
    n_groups,
    read_group,
    sha256_file,
)
from graphmert.store import RunDir, empty_table, kg_to_tables, make_table
from graphmert.tokens import Tokenizer

TAGGER_FILE = "tagger.safetensors"
KEPT = ".shards"

_TOKENIZER_CHARS = 20_000_000
_MEASURED_SEQUENCES = 4_000


@dataclass
class _Work:
    """The state of preparing one corpus.

    Attributes:
        mark: hash of all that preparing depends on; results of shards are kept under it.
    """

    config: RunConfig
    run: RunDir
    progress: Progress
    mark: str
    ledgers: list[Ledger] = field(default_factory=list)
    counts: dict[str, Any] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    _embedder: Embedder | None = None

    @property
    def kept(self) -> Path:
        """Where results of shards lie until the corpus is prepared."""
        return self.run.path / KEPT

    def map(self, note: str, fn: Any, shards: Sequence[Any]) -> list[Any]:
        """Apply a pass to every shard and tell how far it is; go on where a killed one stopped."""
        self.progress.begin(note, total=len(shards), unit="shards")
        keep = KeptResults(
            self.kept,
            note.replace(" ", "-"),
            fingerprint(self.mark, note, len(shards)),
            records=(ReadPart, RunCounts, ChainPart),
        )
        results = map_shards(
            fn,
            shards,
            n_workers=self.config.n_workers,
            keep=keep,
            on_progress=lambda done, total: self.progress.update(done, total=total),
        )
        self.progress.end()
        return results

    def write(self, name: str, table: pa.Table) -> None:
        """Write a table of the run directory."""
        self.files.append(self.run.write(name, table))

    def merge(self, parts: Sequence[Sequence[Ledger]]) -> None:
        """Add the ledgers of all shards, in shard order."""
        for own in zip(*parts, strict=True):
            total = Ledger(own[0].stage)
            for one in own:
                total.merge(one)
            self.ledgers.append(total)

    def embedder(self) -> Embedder:
        """The embedding model, loaded when first needed."""
        if self._embedder is None:
            self._embedder = open_embedder(self.config.embedding)
        return self._embedder


def prepare_corpus(
    config: RunConfig,
    run_dir: Path,
    kg: KGDocument,
    schema: Schema,
    *,
    corpus: Path,
    body: str | None,
    progress: Progress,
    mark: str,
) -> StageOutput:
    """Write corpus/, seed/ and chains/ from documents and a seed KG.

    Documents are read in row groups; each pass over them can be shared among processes
    (`n_workers`), which changes no byte. Heads are held out only if the corpus names them.
    Results of row groups are kept until the end, so that a killed call goes on with the same
    `mark`, the hash of all that the tables depend on.
    """
    versions = {name: version(name) for name in PACKAGES}
    work = _Work(
        config, RunDir(run_dir), progress, fingerprint(mark, versions, config.train.n_threads)
    )
    progress.begin("import documents")
    work.counts["documents"], ledger = import_documents(corpus, config.corpus, work.run.documents)
    progress.end(f"{work.counts['documents']} documents")
    work.files.append(work.run.documents)
    work.ledgers += [kg.ledger, ledger]
    source = _names_and_tokens(work, kg, body)
    groups = list(range(n_groups(work.run.documents)))
    phrases = config.candidates.phrases
    parts: list[ReadPart] = work.map(
        "sequences and names",
        partial(
            passes.read_part,
            source=source,
            max_tokens=config.text.max_tokens,
            drop_low=config.corpus.drop_low_information,
            max_words=phrases.max_words if phrases.enabled else 0,
        ),
        groups,
    )
    work.merge([part.ledgers for part in parts])
    triples, schema = _split(work, kg, schema, parts)
    candidates = _candidates(work, source, parts)
    mentions = _link(work, parts, candidates)
    sequences = pa.concat_tables([part.sequences for part in parts])
    work.write("corpus/sequences", sequences)
    work.write("corpus/mentions", pa.concat_tables(mentions))
    injected = _choose(work, schema, triples, parts, mentions)
    _chains(work, source, schema, parts, mentions, injected)
    _hold_out(work, triples)
    work.counts |= {"sequences": sequences.num_rows, "entities": len(kg.kg.entities)}
    drop_kept(work.kept)
    return StageOutput(work.files, work.counts, work.ledgers)


def _names_and_tokens(work: _Work, kg: KGDocument, body: str | None) -> Source:
    """Write the entities and the tokenizer, which every pass reads from disk."""
    entities, _ = kg_to_tables(type(kg.kg).build(kg.kg.entities.values(), ()), {})
    work.write("seed/entities", entities)
    tokenizer = Tokenizer.load(body) if body is not None else _train_tokenizer(work, kg)
    file = tokenizer.save(work.run.path / "chains")
    work.files.append(file)
    key = sha256_file(work.run.seed_entities) + sha256_file(file)
    return Source(str(work.run.path), key)


def _train_tokenizer(work: _Work, kg: KGDocument) -> Tokenizer:
    """Train on entity names and on documents spread evenly over the corpus."""
    texts = [entity.name for entity in kg.kg.entities.values()]
    groups = n_groups(work.run.documents)
    share = _TOKENIZER_CHARS // groups + 1
    for group in range(groups):
        n_chars = 0
        for text in read_group(work.run.documents, group, ["text"])["text"].to_pylist():
            if n_chars >= share:
                break
            texts.append(text)
            n_chars += len(text)
    return Tokenizer.train(texts, vocab_size=work.config.model.vocab_size)


def _split(
    work: _Work, kg: KGDocument, schema: Schema, parts: Sequence[ReadPart]
) -> tuple[pa.Table, Schema]:
    """Hold out heads that the corpus names, and write the seed."""
    named = {one for part in parts for one in part.mentions["entity_id"].unique().to_pylist()}
    split = split_by_head(
        kg.kg,
        schema,
        n_valid_heads=work.config.split.n_valid_heads,
        n_test_heads=work.config.split.n_test_heads,
        seed=work.config.split.seed,
        eligible=named,
    )
    _, triples = kg_to_tables(kg.kg, split)
    if work.config.reduce.is_set:
        triples, schema, ledger = reduce_seed(triples, schema, work.config.reduce)
        work.ledgers.append(ledger)
    work.write("seed/triples", triples)
    write_schema(work.run.seed_schema, schema)
    work.files.append(work.run.seed_schema)
    parts_of = triples["split"].value_counts().to_pylist()
    work.counts["triples"] = {one["values"]: one["counts"] for one in parts_of}
    work.counts["entities_named_in_corpus"] = len(named)
    return triples, schema


# --- candidates and links -------------------------------------------------------------------


def _candidates(work: _Work, source: Source, parts: Sequence[ReadPart]) -> list[pa.Table]:
    """Find phrases and tagged spans; return the candidates of every group."""
    settings = work.config.candidates
    digest = (
        _find_phrases(work, source, parts, settings.phrases) if settings.phrases.enabled else ""
    )
    tagger = _train_tagger(work, parts) if settings.tagger.enabled else None
    if not digest and tagger is None:
        return [empty_table("corpus/candidates") for _ in parts]
    found = work.map(
        "candidate entities",
        partial(
            passes.candidate_part,
            source=source,
            phrases=digest,
            tagger=tagger,
            min_score=settings.tagger.min_score,
        ),
        [(group, part.sequences, part.mentions) for group, part in enumerate(parts)],
    )
    work.merge([(ledger,) for _, ledger in found])
    return [table for table, _ in found]


def _find_phrases(
    work: _Work, source: Source, parts: Sequence[ReadPart], settings: PhraseSettings
) -> str:
    """Choose phrases by their counts and write them; return the table's hash."""
    counts = add_counts([part.counts for part in parts if part.counts is not None])
    keys = recurring(counts, settings)
    pass_ = partial(passes.spell_part, source=source, keys=keys, max_words=settings.max_words)
    spelled: dict[int, str] = {}
    for one in work.map("phrases", pass_, range(len(parts))):
        spelled = one | spelled
    entities = work.run.read("seed/entities")
    known = {normal_name(name) for name in entities["name"].to_pylist()}
    known.update(normal_name(one) for own in entities["synonyms"].to_pylist() for one in own)
    ordered = {key: spelled[key] for key in sorted(spelled)}
    table, ledger = choose_phrases(counts, ordered, known, settings)
    work.ledgers.append(ledger)
    work.write("corpus/phrases", table)
    work.counts["phrases"] = table.num_rows
    return sha256_file(work.run.table_path("corpus/phrases"))


def _train_tagger(work: _Work, parts: Sequence[ReadPart]) -> MentionTagger:
    """Train the tagger on matches, some names hidden; measure it; keep its weights."""
    settings = work.config.candidates.tagger
    trained, measured, hidden = _tagger_sentences(work, parts, settings.held_out_share)
    n_wanted = max(1, len(trained) * settings.max_tokens // max(1, _n_tokens(trained)))
    step = max(1, -(-len(trained) // n_wanted))
    work.progress.begin("train mention tagger", total=1)
    tagger = MentionTagger.train(trained[::step], settings)
    step = max(1, -(-len(measured) // _MEASURED_SEQUENCES))
    work.counts["tagger"] = measure_tagger(
        tagger, measured[::step], hidden[::step], min_score=settings.min_score
    )
    work.progress.end()
    path = work.run.path / "corpus" / TAGGER_FILE
    atomic_write_bytes(path, save({"weights": tagger.weights}))
    work.files.append(path)
    return tagger


def _n_tokens(sentences: Sequence[Sentence]) -> int:
    """About how many tokens some sentences have."""
    return sum(len(one.text) for one in sentences) // 5


def _tagger_sentences(
    work: _Work, parts: Sequence[ReadPart], share: float
) -> tuple[list[Sentence], list[Sentence], list[tuple[tuple[int, int], ...]]]:
    """Return sequences without a hidden name, those with one, and the hidden spans of these."""
    budget = 12 * work.config.candidates.tagger.max_tokens // max(1, len(parts))
    trained: list[Sentence] = []
    measured: list[Sentence] = []
    hidden: list[tuple[tuple[int, int], ...]] = []
    for group, part in enumerate(parts):
        documents = read_group(work.run.documents, group, ["doc_id", "text"])
        spans: dict[str, list[tuple[int, int, bool]]] = {}
        columns = (
            part.mentions[name].to_pylist() for name in ("seq_id", "start", "end", "surface")
        )
        for seq_id, start, end, surface in zip(*columns, strict=True):
            is_hidden = is_held_out(normal_name(surface), share)
            spans.setdefault(seq_id, []).append((start, end, is_hidden))
        n_chars = 0
        rows = zip(
            part.sequences["seq_id"].to_pylist(),
            part.sequences["start"].to_pylist(),
            texts_of(part.sequences, documents),
            strict=True,
        )
        for seq_id, first, text in rows:
            if n_chars > budget:
                break
            n_chars += len(text)
            own = spans.get(seq_id, [])
            sentence = Sentence(text, tuple((a - first, b - first) for a, b, _ in own))
            if any(flag for _, _, flag in own):
                measured.append(sentence)
                hidden.append(tuple((a - first, b - first) for a, b, flag in own if flag))
            elif own:
                trained.append(sentence)
    return trained, measured, hidden


def _link(work: _Work, parts: Sequence[ReadPart], candidates: Sequence[pa.Table]) -> list[pa.Table]:
    """Link candidates to entities; write them; return the mentions of every group with links."""
    entity_of: dict[str, str] = {}
    surfaces = sorted({one for table in candidates for one in table["surface"].to_pylist()})
    if work.config.link.enabled and surfaces:
        entities = work.run.read("seed/entities")
        links, ledger = link_surfaces(
            surfaces, entities, work.embedder(), work.config.link, progress=work.progress
        )
        work.ledgers.append(ledger)
        entity_of = {surface: link.entity_id for surface, link in links.items()}
    linked = [with_links(table, entity_of) for table in candidates]
    work.write("corpus/candidates", pa.concat_tables(linked))
    mentions = [
        add_linked_mentions(part.mentions, table, part.sequences)
        for part, table in zip(parts, linked, strict=True)
    ]
    n_exact = sum(part.mentions.num_rows for part in parts)
    methods = [one for table in linked for one in table["method"].to_pylist()]
    work.counts |= {
        "mentions": {
            "exact": n_exact,
            "linked": sum(table.num_rows for table in mentions) - n_exact,
        },
        "candidates": {
            "phrase_spans": methods.count("phrase"),
            "tagger_spans": methods.count("tagger"),
            "surfaces": len(surfaces),
            "surfaces_linked": len(entity_of),
        },
    }
    return mentions


# --- injection ------------------------------------------------------------------------------


def _choose(
    work: _Work,
    schema: Schema,
    triples: pa.Table,
    parts: Sequence[ReadPart],
    mentions: Sequence[pa.Table],
) -> list[pa.Table]:
    """Choose the triples of every group's sequences."""
    config = work.config
    wanted = training_triples(triples, leave_out=config.select.leave_out_relations)
    names = _column(work.run.read("seed/entities"), "entity_id", "name")
    n_tokens = _tail_lengths(work, wanted, names)
    limits = {
        "max_tail_tokens": config.text.max_tail_tokens,
        "max_triples_per_chain": config.text.max_triples_per_chain,
    }
    all_mentions = pa.concat_tables(mentions)
    if config.inject.method == "all":
        injected, ledger = inject_simple(all_mentions, wanted, n_tail_tokens=n_tokens, **limits)
        work.ledgers.append(ledger)
    else:
        chosen = _scored(work, schema, wanted, names, parts, all_mentions)
        injected, ledger = inject_scored(
            chosen, wanted, config.inject, n_tail_tokens=n_tokens, **limits
        )
        work.ledgers.append(ledger)
    group_of = {
        seq_id: group
        for group, part in enumerate(parts)
        for seq_id in part.sequences["seq_id"].to_pylist()
    }
    owner = np.array([group_of[one] for one in injected["seq_id"].to_pylist()], dtype=np.int64)
    return [injected.filter(pa.array(owner == group)) for group in range(len(parts))]


def _scored(
    work: _Work,
    schema: Schema,
    wanted: pa.Table,
    names: Mapping[str, str],
    parts: Sequence[ReadPart],
    mentions: pa.Table,
) -> pa.Table:
    """Score the triples of mentioned heads by their similarity to the sequence."""
    heads = set(wanted["head_id"].unique().to_pylist())
    named = set(mentions["entity_id"].unique().to_pylist())
    wanted_rows = [one in named for one in wanted["head_id"].to_pylist()]
    labels = {name: schema.relations[name].label for name in schema.relation_names}
    texts = triple_texts(wanted.filter(pa.array(wanted_rows, pa.bool_())), names, labels)
    embedder = work.embedder()
    asked = mentions.filter(
        pa.array([one in heads for one in mentions["entity_id"].to_pylist()], pa.bool_())
    )
    seq_ids = set(asked["seq_id"].to_pylist())
    used: list[str] = []
    sequence_texts: list[str] = []
    for group, part in enumerate(parts):
        keep = pa.array(
            [one in seq_ids for one in part.sequences["seq_id"].to_pylist()], pa.bool_()
        )
        own = part.sequences.filter(keep)
        documents = read_group(work.run.documents, group, ["doc_id", "text"])
        used += own["seq_id"].to_pylist()
        sequence_texts += texts_of(own, documents)
    if not used:
        raise DataError(
            "no sequence names the head of a training triple",
            got=f"{mentions.num_rows} mentions",
            fix="Check that corpus and KG fit together.",
        )
    some = embedder.embed(texts, progress=work.progress)
    vectors = np.zeros((wanted.num_rows, some.shape[1]), np.float32)
    vectors[np.flatnonzero(wanted_rows)] = some
    table, ledger = select_triples(
        asked,
        wanted,
        embedder.embed(sequence_texts, progress=work.progress),
        {seq_id: row for row, seq_id in enumerate(used)},
        vectors,
        top_k=work.config.select.top_k,
    )
    work.ledgers.append(ledger)
    return table


def _tail_lengths(work: _Work, wanted: pa.Table, names: Mapping[str, str]) -> dict[str, int]:
    tokenizer = Tokenizer.load(work.run.path / "chains")
    tails = sorted(set(wanted["tail_id"].to_pylist()))
    encoded = tokenizer.encode_batch([names[one] for one in tails])
    return {one: len(tokens) for one, tokens in zip(tails, encoded, strict=True)}


def _column(table: pa.Table, key: str, value: str) -> dict[str, str]:
    return dict(zip(table[key].to_pylist(), table[value].to_pylist(), strict=True))


def _chains(
    work: _Work,
    source: Source,
    schema: Schema,
    parts: Sequence[ReadPart],
    mentions: Sequence[pa.Table],
    injected: Sequence[pa.Table],
) -> None:
    """Build and write the chains of all groups."""
    first = np.cumsum([0, *(part.sequences.num_rows for part in parts)])
    built = work.map(
        "chains",
        partial(passes.chain_part, source=source, relations=schema.relation_names),
        [
            (group, int(first[group]), part.sequences, mentions[group], injected[group])
            for group, part in enumerate(parts)
        ],
    )
    work.merge([part.ledgers for part in built])
    hung = pa.concat_tables([part.injected for part in built])
    work.write("chains/chains", pa.concat_tables([part.chains for part in built]))
    work.write("chains/heads", pa.concat_tables([part.heads for part in built]))
    work.write("chains/injected", hung)
    work.counts["injected"] = {
        "rows": hung.num_rows,
        "triples": len(hung["triple"].unique()),
        "sequences": len(hung["seq_id"].unique()),
    }


def _hold_out(work: _Work, triples: pa.Table) -> None:
    """Choose the documents that train nothing, and write them."""
    ids = work.run.read("seed/entities")["entity_id"].to_pylist()
    row_of = {one: row for row, one in enumerate(ids)}
    heads: dict[str, set[int]] = {part: set() for part in ("train", "valid", "test")}
    for head, part in zip(
        triples["head_id"].to_pylist(), triples["split"].to_pylist(), strict=True
    ):
        heads[part].add(row_of[head])
    held = {head: part for part in ("valid", "test") for head in heads[part]}
    spans = work.run.read("chains/heads")
    documents = work.run.read("corpus/sequences")["doc_id"].to_pylist()
    chosen = hold_out_documents(
        zip(spans["chain"].to_pylist(), spans["entity"].to_pylist(), strict=True),
        documents,
        held,
        measured=set(held) - heads["train"],
        ids=ids,
        share=work.config.corpus.held_out_share,
    )
    rows = {"doc_id": sorted(chosen), "split": [chosen[one] for one in sorted(chosen)]}
    work.write("corpus/held_out", make_table("corpus/held_out", rows))
    work.counts["documents_held_out"] = len(chosen)


__all__ = ["TAGGER_FILE", "prepare_corpus"]
