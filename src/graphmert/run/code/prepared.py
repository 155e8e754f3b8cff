"""What a code run is made of: the index, split by package, as chains."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from graphmert.batch import RelationNames
from graphmert.chain import LeafyChain
from graphmert.domains.code.chains import ChainBuilder, Vocabulary
from graphmert.domains.code.ontology import load_ontology, load_profile
from graphmert.domains.code.rules import fact_rules
from graphmert.domains.code.samples import CodeSample, make_samples
from graphmert.domains.code.splits import PARTS, SplitSamples, split_samples
from graphmert.domains.code.tables import CodeTables
from graphmert.facts import FactSource
from graphmert.feed import NameTable
from graphmert.masking import MaskVocabulary
from graphmert.run.code.settings import CodeRunConfig
from graphmert.run.manifest import StageOutput
from graphmert.shards import Ledger, atomic_write_json, write_table
from graphmert.tokens import Tokenizer


@dataclass(frozen=True)
class CodePrepared:
    """Samples, chains and vocabulary of a run.

    Attributes:
        chains: part -> chains, one for each sample of the part, in its order.
        ledgers: of samples, split and chains.
    """

    config: CodeRunConfig
    tables: CodeTables
    split: SplitSamples
    builder: ChainBuilder
    chains: Mapping[str, Sequence[LeafyChain]]
    ledgers: Sequence[Ledger]

    @classmethod
    def load(cls, config: CodeRunConfig, tokenizer_dir: Path) -> CodePrepared:
        """Build everything from the index; the same index and settings give the same chains."""
        return cls.build(config, *read_split(config), tokenizer=Tokenizer.load(tokenizer_dir))

    @classmethod
    def build(
        cls,
        config: CodeRunConfig,
        tables: CodeTables,
        split: SplitSamples,
        ledger: Ledger,
        *,
        tokenizer: Tokenizer,
    ) -> CodePrepared:
        """Build chains from tables and their split."""
        vocabulary = Vocabulary.build(tables, load_profile(config.data.profile), split.part_of)
        builder = ChainBuilder(tables, vocabulary, tokenizer, config.chains)
        chains, ledgers = {}, [tables.ledger, ledger, split.ledger]
        for part in PARTS:
            chains[part], one = builder.build(split.parts[part])
            one.stage = f"chains of {part}"
            ledgers.append(one)
        return cls(config, tables, split, builder, chains, tuple(ledgers))

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of roots, tails and names."""
        return self.builder.tokenizer

    @property
    def vocabulary(self) -> Vocabulary:
        """Relations and entities as indices."""
        return self.builder.vocabulary

    @property
    def profile(self) -> dict[str, tuple[str, ...]]:
        """Relations by name, and what of the ontology each is."""
        return load_profile(self.config.data.profile)

    @cached_property
    def mask_vocabulary(self) -> MaskVocabulary:
        """The ids masking needs."""
        return MaskVocabulary(
            mask_id=self.tokenizer.mask_id,
            special_ids=self.tokenizer.special_ids,
            ordinary_ids=self.tokenizer.ordinary_ids,
            n_relations=len(self.vocabulary.relations),
        )

    @cached_property
    def relation_words(self) -> RelationNames:
        """The words of each relation as tokens; the hidden relation is one mask token."""
        labels = load_ontology().relations
        words = [labels[n].label if n in labels else n.replace("_", " ") for n in self.profile]
        encoded = self.tokenizer.encode_batch(words)
        mask = (self.tokenizer.mask_id,)
        return RelationNames((*(tuple(e.ids.tolist()) for e in encoded), mask))

    @cached_property
    def names(self) -> NameTable:
        """Full names of all entities as chains of tokens."""
        cls_id, sep_id = self.tokenizer.cls_id, self.tokenizer.sep_id
        return NameTable(tuple((cls_id, *name, sep_id) for name in self.builder.name_tokens))

    @cached_property
    def training_names(self) -> NameTable:
        """Names of the entities of training packages, which are the first."""
        return replace(self.names, roots=self.names.roots[: self.vocabulary.n_train])

    @property
    def type_of_row(self) -> np.ndarray:
        """int64 (entities,), index of each entity's type."""
        return self.builder.type_of_row

    @cached_property
    def part_of_row(self) -> np.ndarray:
        """Part of the package each entity is defined in, as an index into PARTS; -1 outside."""
        part_of, package = self.split.part_of, self.tables.package_of_entity
        places = {part: i for i, part in enumerate(PARTS)}
        return np.array(
            [places.get(part_of.get(package(e), ""), -1) for e in self.vocabulary.entities]
        )

    def triples(self, *parts: str) -> np.ndarray:
        """int64 (n, 3): triples whose heads belong to packages of the parts, sorted."""
        row_of, relation_of = self.vocabulary.row_of, self.vocabulary.relation_of
        wanted = {PARTS.index(part) for part in parts}
        rows = [
            (row_of[edge.head_id], relation_of[edge.relation], row_of[edge.tail_id])
            for edge in self.tables.edges
            if int(self.part_of_row[row_of[edge.head_id]]) in wanted
        ]
        return np.array(sorted(rows), dtype=np.int64).reshape(-1, 3)

    def known_tails(self, *parts: str) -> dict[tuple[int, int], frozenset[int]]:
        """(head, relation) -> true tails in the parts."""
        found: dict[tuple[int, int], set[int]] = defaultdict(set)
        for head, relation, tail in self.triples(*parts).tolist():
            found[head, relation].add(tail)
        return {key: frozenset(tails) for key, tails in found.items()}

    def facts(self, *parts: str) -> FactSource:
        """Triples of the parts for the regularisers."""
        return FactSource(
            triples=self.triples(*parts),
            name_roots=self.names.roots,
            rules=fact_rules(self.profile),
            n_triples=self.config.feed.n_facts,
            pad_id=self.tokenizer.pad_id,
        )


def read_split(config: CodeRunConfig) -> tuple[CodeTables, SplitSamples, Ledger]:
    """Read the index of a run and split its samples; the ledger is that of the samples."""
    tables = CodeTables.load(
        config.data.index, load_profile(config.data.profile), min_score=config.data.min_score
    )
    samples, ledger = make_samples(tables)
    split = split_samples(
        samples,
        valid=config.split.valid_packages,
        test=config.split.test_packages,
        seed=config.split.seed,
        threshold=config.split.near_duplicate,
    )
    return tables, split, ledger


def training_texts(tables: CodeTables, samples: Sequence[CodeSample]) -> list[str]:
    """What a tokenizer of code is trained on: code and docstrings of training samples."""
    texts = [sample.text for sample in samples if sample.kind != "class"]
    return texts + [sample.docstring for sample in samples if sample.docstring]


def prepare_code(config: CodeRunConfig, run_dir: Path, body: str | None) -> StageOutput:
    """Split the index, make the tokenizer, and record who went where.

    Writes `chains/tokenizer.json`, `code/samples.parquet` and `code/packages.json`.
    """
    tables, split, ledger = read_split(config)
    if body is not None:
        tokenizer = Tokenizer.load(body)
    else:
        texts = training_texts(tables, split.parts["train"])
        tokenizer = Tokenizer.train_bytes(texts, vocab_size=config.data.vocab_size)
    tokenizer_file = tokenizer.save(run_dir / "chains")
    prepared = CodePrepared.build(config, tables, split, ledger, tokenizer=tokenizer)
    samples_file = run_dir / "code" / "samples.parquet"
    write_table(samples_file, _sample_table(prepared))
    packages_file = run_dir / "code" / "packages.json"
    atomic_write_json(packages_file, {"part_of_package": dict(sorted(split.part_of.items()))})
    counts: dict[str, object] = {"vocab_size": tokenizer.vocab_size}
    for part in PARTS:
        chains = prepared.chains[part]
        counts[part] = {
            "samples": len(chains),
            "functions": sum(s.kind == "function" for s in split.parts[part]),
            "roots": sum(len(chain.roots) for chain in chains),
            "triples": sum(len(chain.triples) for chain in chains),
        }
    counts["entities"] = len(prepared.vocabulary.entities)
    return StageOutput([tokenizer_file, samples_file, packages_file], counts, prepared.ledgers)


def _sample_table(prepared: CodePrepared) -> pa.Table:
    rows = [
        (s.entity_id, part, s.kind, s.language, s.package, s.doc_id, len(c.roots), len(c.triples))
        for part in PARTS
        for s, c in zip(prepared.split.parts[part], prepared.chains[part], strict=True)
    ]
    names = ("entity_id", "part", "kind", "language", "package", "doc_id", "n_roots", "n_triples")
    return pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))
