"""Ask a trained model for tails and relations: (sequence, head span, relation) -> scores.

Under isolated visibility all queries of a chain share one forward pass and do not change one
another's answers; under open visibility every query has a row of its own. Nothing here knows a
domain. Legend: Q queries, E known entities (candidates), D width, V vocabulary, n tail length.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from graphmert.batch import ChainBatch, RelationNames, collate
from graphmert.chain import LeafTriple, LeafyChain
from graphmert.errors import ConfigError
from graphmert.feed import NameTable
from graphmert.model import GraphMERT

LENGTH_POWER = 0.8
_NO_TOKENS = -1e4  # token score of a candidate that is longer than the longest leaf group


@dataclass(frozen=True, slots=True)
class Query:
    """Which tail does (head span of a chain, relation) have?"""

    chain: int
    head_start: int
    head_end: int
    relation: int
    head_entity: int = -1
    head_type: int = -1


@dataclass(frozen=True)
class Answers:
    """Scores of a block of queries.

    Attributes:
        index_Q: int64, which queries.
        entity_QE: float32, cosine of the query and each entity name.
        token_QE: float32, sum_k log p(token_k | slot k) / n ** 0.8 of each name, or None.
        relation_Q: float32, log probability of the query's relation given head and text.
    """

    index_Q: np.ndarray
    entity_QE: np.ndarray
    token_QE: np.ndarray | None
    relation_Q: np.ndarray | None


@dataclass(frozen=True)
class TokenCandidates:
    """Names by length: n -> (entity rows, int64 tokens (n, names))."""

    by_length: Mapping[int, tuple[np.ndarray, Tensor]]
    n_entities: int

    @classmethod
    def build(cls, names: Sequence[Sequence[int]], *, max_tokens: int) -> TokenCandidates:
        """Group names (token ids without specials) of 1 to max_tokens tokens by length."""
        groups: dict[int, list[int]] = {}
        for row, name in enumerate(names):
            if 1 <= len(name) <= max_tokens:
                groups.setdefault(len(name), []).append(row)
        by_length = {
            n: (np.array(rows), torch.tensor([list(names[row]) for row in rows]).T.contiguous())
            for n, rows in sorted(groups.items())
        }
        return cls(by_length, len(names))


@dataclass(frozen=True)
class Asker:
    """What turns queries into leaf groups: the mask token, the relations' words, limits.

    A chain with many groups is given several rows: attention costs the square of a row, and
    groups do not see one another. `added` are relations that came after training.
    """

    mask_id: int
    pad_id: int
    relation_names: RelationNames
    query_slots: int
    max_nodes_per_forward: int = 16_384
    max_leaves_per_row: int = 192
    max_scores_per_forward: int = 1 << 27
    added: frozenset[int] = frozenset()

    def group(self, query: Query, *, relation: int | None = None, n_slots: int) -> LeafTriple:
        """A wholly masked leaf group at the query's head."""
        return LeafTriple(
            relation=query.relation if relation is None else relation,
            head_start=query.head_start,
            head_end=query.head_end,
            tail=(self.mask_id,) * n_slots,
            head_entity=query.head_entity,
            head_type=query.head_type,
        )

    def relation_log_p(self, logits_TE: Tensor) -> np.ndarray:
        """log p(relation), float32 (T, E): softmax over the relations of training.

        A relation that came later is measured on the same scale and changes nothing among them:
        log p(a) = z_a - log(exp(z_a) + sum over those of training).
        """
        logits_TE = logits_TE.float()
        if not self.added:
            return logits_TE.log_softmax(-1).cpu().numpy()
        later = torch.tensor(sorted(self.added), device=logits_TE.device)
        known_TE = logits_TE.index_fill(1, later, -torch.inf)
        log_z_T1 = known_TE.logsumexp(-1, keepdim=True)
        log_p_TE = logits_TE - log_z_T1
        own_TA = logits_TE[:, later]
        log_p_TE[:, later] = own_TA - torch.logaddexp(log_z_T1, own_TA)
        return log_p_TE.cpu().numpy()

    def split(self, groups: Sequence[LeafTriple]) -> list[slice]:
        """Runs of groups that make a row each, by their leaves (relation words included)."""
        rows: list[slice] = []
        start = n_leaves = 0
        for k, group in enumerate(groups):
            own = len(group.tail) + len(self.relation_names.of(group.relation))
            if n_leaves and n_leaves + own > self.max_leaves_per_row:
                rows.append(slice(start, k))
                start, n_leaves = k, 0
            n_leaves += own
        return [*rows, slice(start, len(groups))]


@dataclass(frozen=True)
class _Row:
    """One row of a forward pass: a chain and the tags of the groups put behind its own."""

    chain: LeafyChain
    first_group: int
    tags: tuple[tuple[str, int, int], ...]  # (kind, query, tail length)


@torch.no_grad()
def encode_entities(
    model: GraphMERT, names: NameTable, *, pad_id: int, max_nodes_per_forward: int = 16_384
) -> Tensor:
    """Unit vectors of all entity names, float32 (E, D), shortest names first for speed."""
    model.eval()
    order = np.argsort([len(roots) for roots in names.roots], kind="stable")
    vectors = torch.zeros(len(names), model.config.hidden_size)
    start = 0
    while start < len(order):
        longest = len(names.roots[order[min(start + 511, len(order) - 1)]])
        stop = start + max(1, max_nodes_per_forward // longest)
        rows = order[start:stop]
        batch = names.batch(rows, pad_id=pad_id).to(model.device)
        vectors[torch.from_numpy(rows)] = model.encode_names(batch).cpu()
        start = stop
    return vectors


@torch.no_grad()
def score_queries(
    model: GraphMERT,
    chains: Sequence[LeafyChain],
    queries: Sequence[Query],
    *,
    asker: Asker,
    entity_vectors: Tensor,
    tokens: TokenCandidates | None = None,
    relations: bool = True,
    together: bool = True,
) -> Iterator[Answers]:
    """Score every known entity as the tail of every query.

    Args:
        entity_vectors: unit vectors (E, D) of the candidates.
        tokens: candidates for MNM-leaf scoring, or None to leave it out.
        relations: also score the relation of each query with MNM-relation.
        together: share a forward pass among the queries of a chain (isolated visibility only).
    Yields:
        Answers in blocks; every query comes exactly once.
    Checked by: tests/unit/test_extract.py
    """
    model.eval()
    together = together and model.config.leaf_visibility == "isolated"
    lengths = tuple(tokens.by_length) if tokens is not None else ()
    asks = relations and model.relation_head is not None
    hidden = model.config.n_relations if asks else None
    by_chain: dict[int, list[int]] = {}
    for index, query in enumerate(queries):
        by_chain.setdefault(query.chain, []).append(index)
    order = sorted(by_chain, key=lambda c: (chains[c].n_nodes, c))
    pending: list[list[_Row]] = []
    width = n_nodes = n_scores = 0
    for chain in order:
        rows = _rows(chains[chain], by_chain[chain], queries, asker, lengths, hidden, together)
        longest = max(row.chain.n_nodes + 8 * len(row.tags) for row in rows)
        width = max(width, longest)
        n_nodes += len(rows)
        own_scores = len(by_chain[chain]) * len(entity_vectors)
        n_scores += own_scores
        is_full = (
            n_nodes * width > asker.max_nodes_per_forward or n_scores > asker.max_scores_per_forward
        )
        if pending and is_full:
            yield _answer(model, pending, queries, asker, entity_vectors, tokens)
            pending, width, n_nodes, n_scores = [], longest, len(rows), own_scores
        pending.append(rows)
    if pending:
        yield _answer(model, pending, queries, asker, entity_vectors, tokens)


def _rows(
    chain: LeafyChain,
    indices: Sequence[int],
    queries: Sequence[Query],
    asker: Asker,
    lengths: Sequence[int],
    hidden: int | None,
    together: bool,
) -> list[_Row]:
    """Lay the groups of a chain's queries out: in one row, or a row a group.

    `hidden` is the index that stands for a hidden relation, None where no relation is scored.
    """
    groups: list[tuple[LeafTriple, tuple[str, int, int]]] = []
    heads: dict[tuple[int, int], int] = {}
    for index in indices:
        query = queries[index]
        slots = asker.query_slots or 1
        groups.append((asker.group(query, n_slots=slots), ("entity", index, slots)))
        groups += [(asker.group(query, n_slots=n), ("token", index, n)) for n in lengths]
        span = (query.head_start, query.head_end)
        if hidden is not None and span not in heads:
            heads[span] = index
            group = asker.group(query, relation=hidden, n_slots=slots)
            groups.append((group, ("relation", index, slots)))
    own = len(chain.triples)
    if together:
        return [
            _Row(
                replace(chain, triples=tuple(group for group, _ in groups[part])),
                0,
                tuple(tag for _, tag in groups[part]),
            )
            for part in asker.split([group for group, _ in groups])
        ]
    return [
        _Row(replace(chain, triples=(*chain.triples, group)), own, (tag,)) for group, tag in groups
    ]


def _answer(
    model: GraphMERT,
    pending: Sequence[Sequence[_Row]],
    queries: Sequence[Query],
    asker: Asker,
    entity_vectors: Tensor,
    tokens: TokenCandidates | None,
) -> Answers:
    rows = [row for part in pending for row in part]
    batch = collate(
        [row.chain for row in rows], relation_names=asker.relation_names, pad_id=asker.pad_id
    )
    # Groups on one head are not in an order: each is asked as the head's first triple.
    batch = replace(batch, ordinal_T=torch.zeros_like(batch.ordinal_T)).to(model.device)
    states_BND = model(batch)
    places: dict[tuple[str, int, int], int] = {}
    first = 0
    for row in rows:
        for k, tag in enumerate(row.tags):
            places[tag] = first + row.first_group + k
        first += len(row.chain.triples)
    index = np.array(sorted({tag[1] for tag in places}), dtype=np.int64)
    slots = asker.query_slots or 1
    triple_Q = torch.tensor([places["entity", int(i), slots] for i in index])
    query_QD = model.entity_queries(states_BND, batch)[triple_Q].float().cpu()
    return Answers(
        index_Q=index,
        entity_QE=query_QD.numpy() @ entity_vectors.numpy().T,
        token_QE=None
        if tokens is None
        else _token_scores(model, states_BND, batch, places, index, tokens),
        relation_Q=_relation_scores(model, states_BND, batch, places, index, queries, asker),
    )


def _token_scores(
    model: GraphMERT,
    states_BND: Tensor,
    batch: ChainBatch,
    places: Mapping[tuple[str, int, int], int],
    index_Q: np.ndarray,
    tokens: TokenCandidates,
) -> np.ndarray:
    """Length-normalised log probability of every name of every length, (Q, E)."""
    flat_ND = states_BND.reshape(-1, states_BND.shape[-1])
    scores_QE = np.full((len(index_Q), tokens.n_entities), _NO_TOKENS, dtype=np.float32)
    for q, query in enumerate(index_Q):
        triples = torch.tensor([places["token", int(query), n] for n in tokens.by_length])
        positions = batch.leaf_index_TL[triples][batch.tail_mask_TL[triples]]
        log_p = model.token_logits(flat_ND, positions).float().log_softmax(-1).cpu()
        start = 0
        for n, (rows, token_nE) in tokens.by_length.items():
            picked = torch.gather(log_p[start : start + n], 1, token_nE).sum(0)
            scores_QE[q, rows] = (picked / n**LENGTH_POWER).numpy()
            start += n
    return scores_QE


def _relation_scores(
    model: GraphMERT,
    states_BND: Tensor,
    batch: ChainBatch,
    places: Mapping[tuple[str, int, int], int],
    index_Q: np.ndarray,
    queries: Sequence[Query],
    asker: Asker,
) -> np.ndarray | None:
    """log p(relation | head, text) of each query, from the group whose relation is hidden."""
    asked = {tag[1]: place for tag, place in places.items() if tag[0] == "relation"}
    if not asked:
        return None
    log_p_TE = asker.relation_log_p(model.relation_logits(states_BND, batch))
    by_head = {_head(queries[i]): log_p_TE[place] for i, place in asked.items()}
    picked = [by_head[_head(queries[int(i)])][queries[int(i)].relation] for i in index_Q]
    return np.array(picked, dtype=np.float32)


@torch.no_grad()
def score_relations(
    model: GraphMERT, chains: Sequence[LeafyChain], heads: Sequence[Query], *, asker: Asker
) -> np.ndarray:
    """Score every relation at every head with MNM-relation alone: one leaf group for a head.

    Args:
        heads: head spans; their relation is not looked at.
    Returns: float32 (heads, E), log p(relation | head, text), relation and tail hidden.
    Raises:
        ConfigError: the model has no MNM-relation output.
    Checked by: tests/unit/test_extract.py
    """
    if model.relation_head is None:
        raise ConfigError(
            "the model has no MNM-relation output",
            where="train.weights",
            fix="Train with a weight for relation.",
        )
    model.eval()
    together = model.config.leaf_visibility == "isolated"
    by_chain: dict[int, list[int]] = {}
    for index, query in enumerate(heads):
        by_chain.setdefault(query.chain, []).append(index)
    rows: list[tuple[LeafyChain, int, list[int]]] = []  # chain, its first own group, heads
    for chain in sorted(by_chain, key=lambda c: (chains[c].n_nodes, c)):
        rows += _relation_rows(model, chains[chain], by_chain[chain], heads, asker, together)
    scores = np.empty((len(heads), model.config.n_relations), np.float32)
    start = 0
    while start < len(rows):
        stop, width = start, 0
        while stop < len(rows):
            width = max(width, rows[stop][0].n_nodes + 8 * len(rows[stop][2]))
            if stop > start and (stop + 1 - start) * width > asker.max_nodes_per_forward:
                break
            stop += 1
        part = rows[start:stop]
        batch = collate(
            [row for row, _, _ in part], relation_names=asker.relation_names, pad_id=asker.pad_id
        )
        batch = replace(batch, ordinal_T=torch.zeros_like(batch.ordinal_T)).to(model.device)
        log_p_TE = asker.relation_log_p(model.relation_logits(model(batch), batch))
        first = 0
        for chain, own, indices in part:
            scores[indices] = log_p_TE[first + own : first + own + len(indices)]
            first += len(chain.triples)
        start = stop
    return scores


def _relation_rows(
    model: GraphMERT,
    chain: LeafyChain,
    indices: Sequence[int],
    heads: Sequence[Query],
    asker: Asker,
    together: bool,
) -> list[tuple[LeafyChain, int, list[int]]]:
    """Hidden relations at the heads of a chain: in as few rows as fit, or a row each."""
    slots, hidden = asker.query_slots or 1, model.config.n_relations
    groups = [asker.group(heads[i], relation=hidden, n_slots=slots) for i in indices]
    if not together:
        own = len(chain.triples)
        return [
            (replace(chain, triples=(*chain.triples, group)), own, [index])
            for index, group in zip(indices, groups, strict=True)
        ]
    return [
        (replace(chain, triples=tuple(groups[part])), 0, list(indices[part]))
        for part in asker.split(groups)
    ]


def _head(query: Query) -> tuple[int, int, int]:
    return query.chain, query.head_start, query.head_end


@dataclass(frozen=True)
class FormedTail:
    """A tail put together from tokens: no list of names was consulted."""

    tokens: tuple[int, ...]
    score: float


@torch.no_grad()
def form_tails(
    model: GraphMERT,
    chain: LeafyChain,
    query: Query,
    *,
    asker: Asker,
    max_tokens: int,
    n_best: int = 5,
    banned: frozenset[int] = frozenset(),
) -> list[FormedTail]:
    """Name tails token by token: a beam fills the surest slot first, for every length at once.

    A tail scores sum_k log p(token_k | slots filled before it) / n ** 0.8.

    Args:
        n_best: beam width and number of tails returned.
        banned: token ids that never fill a slot (specials); the mask token never does.
    Returns: the best tails over all lengths, best first.
    """
    model.eval()
    mask = asker.mask_id
    banned = banned | {mask}
    beams: list[tuple[float, tuple[int, ...]]] = [
        (0.0, (mask,) * n) for n in range(1, max_tokens + 1)
    ]
    finished: dict[tuple[int, ...], float] = {}
    while beams:
        groups = tuple(replace(asker.group(query, n_slots=1), tail=tail) for _, tail in beams)
        log_ps = _slot_log_probabilities(model, chain, groups, asker, banned)
        grown: dict[int, list[tuple[float, tuple[int, ...]]]] = {}
        for (score, tail), log_p in zip(beams, log_ps, strict=True):
            open_slots = [k for k, token in enumerate(tail) if token == mask]
            surest = int(log_p.max(dim=-1).values.argmax())
            slot = open_slots[surest]
            values, tokens = log_p[surest].topk(min(n_best, log_p.shape[-1]))
            for value, token in zip(values.tolist(), tokens.tolist(), strict=True):
                if value == -np.inf:
                    break
                filled = (*tail[:slot], token, *tail[slot + 1 :])
                grown.setdefault(len(tail), []).append((score + value, filled))
        beams = []
        for n, options in grown.items():
            for score, tail in sorted(set(options), key=lambda o: (-o[0], o[1]))[:n_best]:
                if mask in tail:
                    beams.append((score, tail))
                else:
                    finished[tail] = max(finished.get(tail, -np.inf), score / n**LENGTH_POWER)
    ranked = sorted(finished.items(), key=lambda item: (-item[1], item[0]))[:n_best]
    return [FormedTail(tokens, score) for tokens, score in ranked]


def _slot_log_probabilities(
    model: GraphMERT,
    chain: LeafyChain,
    groups: Sequence[LeafTriple],
    asker: Asker,
    banned: frozenset[int],
) -> list[Tensor]:
    """log p of every token in the open slots of every group: one (n open, V) tensor a group."""
    together = model.config.leaf_visibility == "isolated"
    if together:
        rows = [replace(chain, triples=tuple(groups[part])) for part in asker.split(groups)]
    else:
        rows = [replace(chain, triples=(*chain.triples, group)) for group in groups]
    batch = collate(rows, relation_names=asker.relation_names, pad_id=asker.pad_id)
    batch = batch.to(model.device)
    states_BND = model(batch)
    flat_ND = states_BND.reshape(-1, states_BND.shape[-1])
    step, first = (1, 0) if together else (len(chain.triples) + 1, len(chain.triples))
    triples = torch.arange(len(groups)) * step + first
    positions = batch.leaf_index_TL[triples][batch.tail_mask_TL[triples]]
    is_open = [[token == asker.mask_id for token in group.tail] for group in groups]
    positions = positions[torch.tensor([flag for flags in is_open for flag in flags])]
    logits = model.token_logits(flat_ND, positions).float().cpu()
    logits[:, sorted(banned)] = -torch.inf
    return list(torch.split(logits.log_softmax(-1), [sum(flags) for flags in is_open]))


@torch.no_grad()
def predict_tokens(
    model: GraphMERT,
    chain: LeafyChain,
    query: Query,
    *,
    asker: Asker,
    max_tokens: int,
    top_k: int,
    banned: frozenset[int] = frozenset(),
) -> dict[int, float]:
    """Return the likeliest tokens of a tail, whatever its length and their places.

    A token scores max over lengths n <= max_tokens and slots k of log p(token | slot k of n).

    Args:
        top_k: tokens returned.
        banned: token ids that are never returned; the mask token never is.
    Returns: token id -> score, the surest first.
    """
    model.eval()
    banned = banned | {asker.mask_id}
    groups = tuple(asker.group(query, n_slots=n) for n in range(1, max_tokens + 1))
    log_ps = _slot_log_probabilities(model, chain, groups, asker, banned)
    best = torch.cat(log_ps).max(dim=0).values
    values, tokens = best.topk(min(top_k, best.shape[-1]))
    pairs = zip(tokens.tolist(), values.tolist(), strict=True)
    return {token: value for token, value in pairs if value > -np.inf}
