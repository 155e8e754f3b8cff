"""Questions that only a larger graph can answer, put to a graph by local search.

Questions are words made from held-out triples, of one hop ("X regulates what?") and of two
("X regulates something that is part of what?"). The search reads the words: it finds the entity
named, the relations named, and follows them. The same search runs on the seed's training
triples, on the extracted graph and on both, so that the difference is the graph's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphmert.evaluate.bootstrap import clustered_interval
from graphmert.evaluate.proportions import share_of
from graphmert.kg import Entity, Schema, Triple
from graphmert.llm import LLM, Answer, Failure, Prompt
from graphmert.query import Graph, Link, NameTable, fold_name
from graphmert.shards import Ledger

MAX_ANSWERS = 10
MAX_FACTS = 60
_BETWEEN = " something that "
_END = " what?"


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        text: the question in words.
        head_id: the entity it is about.
        relations: the one or two relations it follows; for grouping, never for answering.
        answer_ids: every right answer: ends that no path of training triples reaches.
    """

    text: str
    head_id: str
    relations: tuple[str, ...]
    answer_ids: frozenset[str]

    @property
    def n_hops(self) -> int:
        """One or two."""
        return len(self.relations)


@dataclass(frozen=True)
class Vocabulary:
    """The words of a graph: names of entities and labels of relations.

    Attributes:
        entities: by id.
        schema: of the relations.
        names: entities by name.
        labels: relation by its label; a label that two relations share stands for neither.
    """

    entities: Mapping[str, Entity]
    schema: Schema
    names: NameTable
    labels: Mapping[str, str]

    @classmethod
    def build(cls, entities: Mapping[str, Entity], schema: Schema) -> Vocabulary:
        """Index the names of entities and the labels of relations."""
        owners: dict[str, list[str]] = defaultdict(list)
        for name, relation in sorted(schema.relations.items()):
            owners[fold_name(relation.label)].append(name)
        labels = {label: names[0] for label, names in owners.items() if len(names) == 1}
        table = NameTable((e.entity_id, e.name, e.synonyms) for e in entities.values())
        return cls(entities, schema, table, labels)

    def text_of(self, head_id: str, relations: Sequence[str]) -> str:
        """The question about an entity along relations."""
        labels = [self.schema.relations[name].label for name in relations]
        return f"{self.entities[head_id].name} {_BETWEEN.join(labels)}{_END}"


def make_questions(
    held_out: Iterable[Triple],
    training: Iterable[Triple],
    vocabulary: Vocabulary,
    *,
    n_per_hop: int | None = 500,
    seed: int = 0,
) -> tuple[list[Question], Ledger]:
    """Make questions of one and two hops from held-out triples.

    A two-hop question has at least one held-out triple on every path to its answers.

    Args:
        held_out: the test part.
        training: the training part; the answers it gives by itself are no answers.
        vocabulary: names and labels.
        n_per_hop: at most so many questions of each length, drawn evenly; None keeps all.
        seed: of the draw.

    Returns: questions by hops and text, and the ledger of those that could be made.
    """
    test, train = sorted(set(held_out)), set(training)
    test = [triple for triple in test if triple not in train]
    made: dict[tuple[str, tuple[str, ...]], set[str]] = defaultdict(set)
    for head, relation, tail in test:
        made[head, (relation,)].add(tail)
    for (head, relations), ends in _two_hops(test, train).items():
        made[head, relations] |= ends
    ledger = Ledger("graph QA: questions")
    kept: dict[int, list[Question]] = {1: [], 2: []}
    for (head, relations), ends in sorted(made.items()):
        ledger.offered()
        reason = _objection(head, relations, ends, vocabulary)
        if reason is not None:
            ledger.leave_out(reason, example=f"{head} {' '.join(relations)}")
            continue
        text = vocabulary.text_of(head, relations)
        kept[len(relations)].append(Question(text, head, relations, frozenset(ends)))
    rng = np.random.default_rng(seed)
    questions: list[Question] = []
    for n_hops, found in kept.items():
        n = len(found) if n_per_hop is None else min(n_per_hop, len(found))
        chosen = sorted(rng.permutation(len(found))[:n].tolist())
        questions += [found[place] for place in chosen]
        ledger.keep(n)
        ledger.leave_out(f"not drawn, {n_hops} hop", len(found) - n)
    return questions, ledger.check()


def _two_hops(
    test: Sequence[Triple], train: set[Triple]
) -> dict[tuple[str, tuple[str, ...]], set[str]]:
    """Ends of two-hop paths with a held-out triple, without those of training paths alone."""
    out: dict[str, list[tuple[str, str, bool]]] = defaultdict(list)
    for triples, is_test in ((test, True), (sorted(train), False)):
        for head, relation, tail in triples:
            out[head].append((relation, tail, is_test))
    into: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for head, relation, tail in train:
        into[tail].append((relation, head))
    # Heads of held-out triples, and heads of training triples that lead to one of them.
    starts = {head for head, _, _ in test}
    starts |= {first for head in list(starts) for _, first in into.get(head, ())}
    found: dict[tuple[str, tuple[str, ...]], set[str]] = defaultdict(set)
    for start in sorted(starts):
        ends: dict[tuple[str, str], dict[str, bool]] = defaultdict(dict)
        for first, middle, test_1 in out[start]:
            for second, end, test_2 in out.get(middle, ()):
                if end != start:
                    known = ends[first, second].get(end, False) or not (test_1 or test_2)
                    ends[first, second][end] = known
        for relations, reached in ends.items():
            new = {end for end, known in reached.items() if not known}
            if new:
                found[start, relations] = new
    return found


def _objection(
    head: str, relations: Sequence[str], ends: set[str], vocabulary: Vocabulary
) -> str | None:
    entity = vocabulary.entities.get(head)
    if entity is None or any(end not in vocabulary.entities for end in ends):
        return "an end is no entity"
    if any(name not in vocabulary.schema.relations for name in relations):
        return "a relation is not in the schema"
    schema = vocabulary.schema
    if any(fold_name(schema.relations[one].label) not in vocabulary.labels for one in relations):
        return "the label of its relation is ambiguous"
    if len(ends) > MAX_ANSWERS:
        return f"more than {MAX_ANSWERS} answers"
    if [one.entity_id for one in vocabulary.names.exact(entity.name)] != [head]:
        return "the name of its entity is ambiguous"
    return None


# --- answering ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reading:
    """What the search understood of a question."""

    entity_ids: tuple[str, ...]
    relations: tuple[str, ...]


def read_question(text: str, vocabulary: Vocabulary) -> Reading | None:
    """Find the entity and the relations that a question names, or None.

    The longest beginning that is a name is the entity; labels follow, joined by
    "something that".
    """
    if not text.endswith(_END):
        return None
    labels = vocabulary.labels
    words = text.removesuffix(_END).split(" ")
    for n_words in range(len(words), 0, -1):
        parts = " ".join(words[n_words:]).split(_BETWEEN)
        names = [labels.get(fold_name(part)) for part in parts]
        if all(name is not None for name in names):
            found = vocabulary.names.exact(" ".join(words[:n_words]))
            if found:
                ids = tuple(one.entity_id for one in found)
                return Reading(ids, tuple(name for name in names if name is not None))
    return None


class LocalSearch:
    """Follow the relations that a question names through a graph.

    A link serves a relation directly, as a sub-relation of it, or turned where the schema has an
    inverse or calls it symmetric. The answer is the end of the path with the largest product
    of scores; ties go to the smaller id.
    """

    def __init__(self, graph: Graph, vocabulary: Vocabulary) -> None:
        self.graph, self.vocabulary = graph, vocabulary
        self._serving: dict[str, tuple[tuple[str, bool], ...]] = {}

    def answer(self, text: str) -> str | None:
        """Return the entity id that answers a question, or None."""
        reading = read_question(text, self.vocabulary)
        if reading is None:
            return None
        places = dict.fromkeys(reading.entity_ids, 1.0)
        for relation in reading.relations:
            reached: dict[str, float] = {}
            for place, score in places.items():
                for end, link_score in self._follow(place, relation):
                    if end not in reading.entity_ids:
                        reached[end] = max(reached.get(end, 0.0), score * link_score)
            places = reached
        best = min(places.items(), key=lambda item: (-item[1], item[0]), default=None)
        return None if best is None else best[0]

    def _follow(self, entity_id: str, relation: str) -> Iterable[tuple[str, float]]:
        for name, turned in self._served_by(relation):
            if turned:
                yield from ((one.head_id, one.score) for one in self.graph.into(entity_id, name))
            else:
                yield from ((one.tail_id, one.score) for one in self.graph.out(entity_id, name))

    def _served_by(self, relation: str) -> tuple[tuple[str, bool], ...]:
        if relation not in self._serving:
            schema = self.vocabulary.schema
            found: set[tuple[str, bool]] = set()
            for name, one in schema.relations.items():
                implied = schema.super_relations(name)
                if relation in implied:
                    found.add((name, False))
                if one.symmetric and relation in implied:
                    found.add((name, True))
                inverse = one.inverse
                if inverse is not None and relation in schema.super_relations(inverse):
                    found.add((name, True))
            self._serving[relation] = tuple(sorted(found))
        return self._serving[relation]


class CommonestTail:
    """Baseline: the commonest tail of the last relation in training, whatever is asked."""

    def __init__(self, training: Iterable[Triple], vocabulary: Vocabulary) -> None:
        counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for _, relation, tail in training:
            counts[relation][tail] += 1
        self.vocabulary = vocabulary
        self._best = {
            relation: min(tails, key=lambda tail: (-tails[tail], tail))
            for relation, tails in counts.items()
        }

    def answer(self, text: str) -> str | None:
        """Return the commonest tail of the last relation named."""
        reading = read_question(text, self.vocabulary)
        return None if reading is None else self._best.get(reading.relations[-1])


def is_right(answer_id: str | None, question: Question, vocabulary: Vocabulary) -> bool:
    """Whether an answer is exactly one of the right ones, as entity or by name."""
    if answer_id is None:
        return False
    if answer_id in question.answer_ids:
        return True
    entity = vocabulary.entities.get(answer_id)
    names = {fold_name(vocabulary.entities[one].name) for one in question.answer_ids}
    return entity is not None and fold_name(entity.name) in names


def graph_qa(
    questions: Sequence[Question],
    training: Sequence[Triple],
    extracted: Iterable[Link],
    vocabulary: Vocabulary,
    *,
    seed: int = 0,
    n_resamples: int = 1000,
) -> dict[str, Any]:
    """Return exact-match accuracy of local search over the seed, the extracted graph and both.

    Args:
        questions: of `make_questions`.
        training: the seed's training triples, each of score 1.
        extracted: accepted triples with their scores.
        vocabulary: names and labels, the same for all graphs.
        seed: of the bootstrap over heads.
        n_resamples: bootstrap resamples.

    Returns:
        n_questions by hops; for seed, extracted, both and the baseline commonest_tail: by
        hops, n, n_answered, accuracy and accuracy_answered with intervals; and `gain`, the
        paired difference of accuracy, both - seed, with its interval.

    Source: GraphMERT, evaluation by question answering. Differs: exact match, no model's own
    knowledge can answer.
    Checked by: tests/unit/evaluate/test_graph_qa.py
    """
    seed_links = [Link(one.triple_id, *one) for one in training]
    extracted_links = list(extracted)
    searches: dict[str, LocalSearch | CommonestTail] = {
        "seed": LocalSearch(Graph(seed_links), vocabulary),
        "extracted": LocalSearch(Graph(extracted_links), vocabulary),
        "both": LocalSearch(Graph([*seed_links, *extracted_links]), vocabulary),
        "commonest_tail": CommonestTail(training, vocabulary),
    }
    right: dict[str, list[bool]] = {}
    systems: dict[str, Any] = {}
    for name, search in searches.items():
        answers = [search.answer(question.text) for question in questions]
        right[name] = [is_right(a, q, vocabulary) for a, q in zip(answers, questions, strict=True)]
        systems[name] = _accuracy(questions, [a is not None for a in answers], right[name])
    return {
        "n_questions": {str(n): sum(q.n_hops == n for q in questions) for n in (1, 2)},
        "systems": systems,
        "gain": _gain(questions, right["both"], right["seed"], seed, n_resamples),
    }


def _accuracy(
    questions: Sequence[Question], answered: Sequence[bool], right: Sequence[bool]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for n_hops in (1, 2):
        places = [i for i, question in enumerate(questions) if question.n_hops == n_hops]
        n_right = sum(right[i] for i in places)
        n_answered = sum(answered[i] for i in places)
        found[str(n_hops)] = {
            "n": len(places),
            "n_answered": n_answered,
            "n_right": n_right,
            "accuracy": share_of(n_right, len(places)),
            "accuracy_answered": share_of(n_right, n_answered),
        }
    return found


def _gain(
    questions: Sequence[Question],
    one: Sequence[bool],
    other: Sequence[bool],
    seed: int,
    n_resamples: int,
) -> dict[str, float] | None:
    if not questions:
        return None
    row_of = {head: row for row, head in enumerate(sorted({q.head_id for q in questions}))}
    return clustered_interval(
        np.array(one, float) - np.array(other, float),
        [row_of[question.head_id] for question in questions],
        [question.n_hops for question in questions],
        average="micro",
        seed=seed,
        n_resamples=n_resamples,
    ).to_dict()


# --- a language model as the answerer -------------------------------------------------------


class NamedAnswer(Answer):
    """The answer of a language model: the name of one thing, or "unknown"."""

    answer: str


_TASK = (
    "Answer the question with the exact name of one thing, and nothing else. "
    "Use the facts listed, if there are any. If you do not know, answer: unknown"
)


def model_prompts(
    questions: Sequence[Question], graph: Graph | None, vocabulary: Vocabulary
) -> list[Prompt]:
    """Return a prompt for each question, with the facts around the entity its words name.

    Args:
        graph: where facts come from; None gives none, which measures what the model knows
            by itself.
    """
    prompts = []
    for question in questions:
        facts = [] if graph is None else _facts(question.text, graph, vocabulary)
        listed = "\n".join(facts) if facts else "(none)"
        prompts.append(Prompt(_TASK, f"Facts:\n{listed}\n\nQuestion: {question.text}"))
    return prompts


def _facts(text: str, graph: Graph, vocabulary: Vocabulary) -> list[str]:
    reading = read_question(text, vocabulary)
    if reading is None:
        return []
    links = graph.around(reading.entity_ids, n_hops=2, limit=MAX_FACTS)
    return [
        f"{_name(vocabulary, link.head_id)} "
        f"{vocabulary.schema.relations[link.relation].label} "
        f"{_name(vocabulary, link.tail_id)}"
        for link in links
        if link.relation in vocabulary.schema.relations
    ]


def _name(vocabulary: Vocabulary, entity_id: str) -> str:
    entity = vocabulary.entities.get(entity_id)
    return entity_id if entity is None else entity.name


def model_qa(
    questions: Sequence[Question],
    graphs: Mapping[str, Graph | None],
    vocabulary: Vocabulary,
    llm: LLM,
) -> dict[str, Any]:
    """Return exact-match accuracy of a language model that is given facts of each graph.

    Give a graph None too: what the model knows by itself is no merit of a graph. A name or
    synonym of a right answer is right. Questions without a valid answer count as wrong.

    Args:
        graphs: where the facts come from, by name.
    """
    systems: dict[str, Any] = {}
    for name, graph in graphs.items():
        answers = llm.ask_all(model_prompts(questions, graph, vocabulary), NamedAnswer)
        answered, right = [], []
        for answer, question in zip(answers, questions, strict=True):
            text = "" if isinstance(answer, Failure) else fold_name(answer.answer)
            entities = [vocabulary.entities[one] for one in question.answer_ids]
            names = {fold_name(one) for e in entities for one in (e.name, *e.synonyms)}
            answered.append(text not in ("", "unknown"))
            right.append(text in names)
        systems[name] = _accuracy(questions, answered, right)
    return {"model": llm.settings.model, "systems": systems, "usage": llm.usage.to_dict()}
