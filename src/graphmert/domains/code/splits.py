"""Splits of code by package, with near-duplicates across and within parts removed."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from graphmert.domains.code.duplicates import find_duplicates
from graphmert.domains.code.samples import CodeSample
from graphmert.errors import ConfigError, DataError
from graphmert.shards import Ledger

PARTS = ("train", "valid", "test")


@dataclass(frozen=True)
class SplitSamples:
    """Samples by part, the part of every package, and what was left out.

    Attributes:
        parts: part -> samples, in the order of the index.
        part_of: package -> part.
    """

    parts: Mapping[str, Sequence[CodeSample]]
    part_of: Mapping[str, str]
    ledger: Ledger


def split_packages(
    languages: Mapping[str, Counter[str]],
    *,
    valid: Collection[str] = (),
    test: Collection[str] = (),
    seed: int = 0,
) -> dict[str, str]:
    """Give every package to one part.

    Packages that are named go where they are named. Where none is named, one package of each
    language that has at least three goes to valid and one to test: those of median size, ties
    and equals by a hash of name and seed.

    Args:
        languages: package -> samples by language.
        valid, test: names of packages.

    Raises:
        ConfigError: a named package is not there or named twice, or nothing is left to train on.
    """
    for name in (*valid, *test):
        if name not in languages:
            raise ConfigError(
                "no such package in the index", got=name, expected=", ".join(sorted(languages))
            )
    if both := set(valid) & set(test):
        raise ConfigError("a package is in valid and test", got=", ".join(sorted(both)))
    part_of = dict.fromkeys(languages, "train")
    if not valid and not test:
        main: dict[str, list[str]] = defaultdict(list)
        for package, counts in languages.items():
            main[counts.most_common(1)[0][0]].append(package)
        for _, packages in sorted(main.items()):
            if len(packages) < 3:
                continue
            ranked = sorted(packages, key=lambda p: (languages[p].total(), _hash(p, seed)))
            middle = len(ranked) // 2
            part_of[ranked[middle]] = "test"
            part_of[ranked[middle - 1]] = "valid"
    part_of |= dict.fromkeys(valid, "valid") | dict.fromkeys(test, "test")
    if "train" not in part_of.values():
        raise ConfigError("every package is held out", got=", ".join(sorted(languages)))
    return part_of


def split_samples(
    samples: Sequence[CodeSample],
    *,
    valid: Collection[str] = (),
    test: Collection[str] = (),
    seed: int = 0,
    threshold: float = 0.8,
) -> SplitSamples:
    """Split samples by package and remove near-duplicates.

    Test samples are kept first, then validation, then training: a sample that is like one kept
    before it is left out, so that no held-out sample has a near copy in training.

    Raises:
        DataError: there are no samples.
    """
    if not samples:
        raise DataError("the index holds no function, class or module", fix="Index other files.")
    languages: dict[str, Counter[str]] = defaultdict(Counter)
    for sample in samples:
        languages[sample.package][sample.language] += 1
    part_of = split_packages(languages, valid=valid, test=test, seed=seed)
    order = sorted(
        range(len(samples)), key=lambda i: (-PARTS.index(part_of[samples[i].package]), i)
    )
    # The name is no part of what makes two samples alike, and a module is its path as well.
    texts = [sample.text[len(sample.prefix) :] for sample in samples]
    found = find_duplicates(texts, order, threshold=threshold)
    ledger = Ledger("split")
    parts: dict[str, list[CodeSample]] = {part: [] for part in PARTS}
    for index, sample in enumerate(samples):
        ledger.offered()
        part = part_of[sample.package]
        if index in found.twin:
            other = samples[found.twin[index]]
            where = "its own part" if part_of[other.package] == part else part_of[other.package]
            ledger.leave_out(
                f"near-duplicate, {part} of {where}",
                example=f"{sample.entity_id} of {other.entity_id}",
            )
            continue
        parts[part].append(sample)
        ledger.keep()
    return SplitSamples(parts, part_of, ledger.check())


def _hash(package: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{package}".encode()).hexdigest()
