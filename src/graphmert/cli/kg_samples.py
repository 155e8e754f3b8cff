"""Commands on an extracted graph: samples and judges, edits, duplicates, questions."""

from __future__ import annotations

import datetime as dt
import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graphmert.cli.store import StorePath
from graphmert.cli.terminal import AsJson, finish, print_result, progress_shown, reporting, say
from graphmert.errors import ConfigError

if TYPE_CHECKING:
    from graphmert.llm import LLM, LLMSettings


class Format(enum.StrEnum):
    """How a server is told the form of an answer."""

    JSON_SCHEMA = "json_schema"
    JSON_OBJECT = "json_object"
    TEXT = "text"


N = Annotated[int, typer.Option(min=1, help="Triples to draw.")]
Seed = Annotated[int, typer.Option(min=0, help="Of the draw.")]
By = Annotated[str, typer.Option(help="Who edits; kept in the log.")]
Url = Annotated[str, typer.Option(help="Language model: base URL, such as http://host:8080/v1.")]
Model = Annotated[str, typer.Option(help="Language model: its name on that server.")]
KeyEnv = Annotated[
    str, typer.Option(help="Language model: environment variable that holds the key.")
]
Concurrent = Annotated[int, typer.Option(min=1, help="Language model: calls at a time.")]
Cache = Annotated[Path | None, typer.Option(help="Folder of kept answers; STORE/llm unless given.")]
AnswerFormat = Annotated[
    Format, typer.Option(help="Language model: how the server is told the form of an answer.")
]
MaxTokens = Annotated[int, typer.Option(min=1, help="Language model: longest answer.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Estimate calls and tokens; ask nothing.")]


class Context(enum.StrEnum):
    """What a judge reads beside a triple."""

    SEQUENCE = "sequence"
    SENTENCE = "sentence"


class Measure(enum.StrEnum):
    """What a judge is asked."""

    FACTSCORE = "factscore"
    FACTSCORE_TRUTH = "factscore_truth"
    VALIDITY = "validity"


def sample(
    store: StorePath,
    out: Annotated[Path, typer.Option(help="File to write, .csv or .jsonl.")],
    n: N = 200,
    seed: Seed = 0,
    blind: Annotated[
        bool, typer.Option("--blind/--open", help="Hide score, novelty and method.")
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    as_json: AsJson = False,
) -> None:
    """Draw accepted triples at random for people to label."""
    with reporting(as_json):
        from graphmert.evaluate.samples import draw_sample, write_sample
        from graphmert.query import open_store

        if out.exists() and not force:
            # It may hold labels.
            raise ConfigError("file exists", where=str(out), fix="Give --force to replace it.")
        items = draw_sample(open_store(store).tables, n=n, seed=seed)
        write_sample(out, items, blind=blind)
        say("fill in the column label: yes, no or unsure; see docs/judging.md")
        result = {"path": str(out), "n": len(items), "blind": blind, "seed": seed}
        finish(0 if len(items) == n else 1, result, as_json)


def score_sample(
    store: StorePath,
    labels: Annotated[Path, typer.Argument(metavar="LABELS", help="The file filled in.")],
    second: Annotated[Path | None, typer.Option(help="The file of another rater.")] = None,
    as_json: AsJson = False,
) -> None:
    """Report the precision that labels give, with intervals, and how far two raters agree."""
    with reporting(as_json):
        from graphmert.evaluate import samples
        from graphmert.query import open_store

        first = samples.read_labels(labels)
        other = None if second is None else samples.read_labels(second)
        tables = open_store(store).tables
        print_result(samples.score_sample(tables, first, other), as_json)


def judge(
    store: StorePath,
    url: Url,
    model: Model,
    measure: Annotated[
        list[Measure] | None, typer.Option(help="What to ask; may be repeated; all unless given.")
    ] = None,
    n: N = 200,
    seed: Seed = 0,
    key_env: KeyEnv = "",
    concurrent: Concurrent = 4,
    answer_format: AnswerFormat = Format.JSON_SCHEMA,
    max_tokens: MaxTokens = 512,
    context: Annotated[
        Context, typer.Option(help="FActScore*: what the judge reads beside the triple.")
    ] = Context.SEQUENCE,
    cache: Cache = None,
    out: Annotated[
        Path | None, typer.Option(help="Also write scores and every verdict here, as JSON.")
    ] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Have a language model judge a sample: FActScore* and ValidityScore."""
    with reporting(as_json):
        from graphmert.evaluate import judged, samples
        from graphmert.query import open_store
        from graphmert.shards import atomic_write_json

        settings = _settings(url, model, key_env, concurrent, answer_format, max_tokens)
        llm = _llm(store, settings, cache)
        opened = open_store(store)
        items = samples.draw_sample(opened.tables, n=n, seed=seed)
        if context is Context.SEQUENCE:
            items = judged.in_sequences(items, opened.run)
        wanted: list[Any] = [one.value for one in measure or list(Measure)]
        if dry_run:
            estimates = {
                one: llm.estimate(judged.judge_prompts(items, one), judged.form_of(one)).to_dict()
                for one in wanted
            }
            print_result({"n": len(items), "estimates": estimates}, as_json)
            return
        result: dict[str, Any] = {"n": len(items), "seed": seed, "model": model}
        result["context"] = context.value
        verdicts: dict[str, Any] = {}
        with progress_shown() as progress:
            for one in wanted:
                progress.begin(f"judge {one}", total=len(items), unit="triples")
                found = judged.judge(items, llm, one, progress=progress)
                progress.end()
                result[one], verdicts[one] = found.scores, found.rows
        result["usage"] = llm.usage.to_dict()
        if out is not None:
            atomic_write_json(out, {**result, "verdicts": verdicts})
        print_result(result, as_json)


def qa(
    store: StorePath,
    n: Annotated[int, typer.Option(min=1, help="Questions of each length.")] = 500,
    seed: Seed = 0,
    url: Url = "",
    model: Model = "",
    key_env: KeyEnv = "",
    concurrent: Concurrent = 4,
    answer_format: AnswerFormat = Format.JSON_SCHEMA,
    max_tokens: MaxTokens = 512,
    cache: Cache = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Answer questions from held-out triples by local search, and by a model if one is given."""
    with reporting(as_json):
        from graphmert.evaluate import graph_measures as measures
        from graphmert.evaluate import graph_qa
        from graphmert.query import Graph, Link, open_store

        opened = open_store(store)
        questions, vocabulary, ledger = measures.questions_of(
            opened.run, opened.tables, n_per_hop=n, seed=seed
        )
        train = measures.triples_of_split(opened.run, "train")
        links = measures.links_of_tables(opened.tables)
        result: dict[str, Any] = {"questions": ledger.to_dict()}
        if not dry_run:
            result |= graph_qa.graph_qa(questions, train, links, vocabulary, seed=seed)
        if url:
            settings = _settings(url, model, key_env, concurrent, answer_format, max_tokens)
            llm = _llm(store, settings, cache)
            seed_links = [Link(one.triple_id, *one) for one in train]
            graphs = {"none": None, "seed": Graph(seed_links), "both": Graph([*seed_links, *links])}
            if dry_run:
                result["estimates"] = {
                    name: llm.estimate(
                        graph_qa.model_prompts(questions, graph, vocabulary), graph_qa.NamedAnswer
                    ).to_dict()
                    for name, graph in graphs.items()
                }
            else:
                result["model"] = graph_qa.model_qa(questions, graphs, vocabulary, llm)
        finish(0 if questions else 1, result, as_json)


def _settings(
    url: str, model: str, key_env: str, concurrent: int, answer_format: Format, max_tokens: int
) -> LLMSettings:
    from graphmert.llm import LLMSettings

    return LLMSettings(
        url=url,
        model=model,
        key_env=key_env,
        n_concurrent=concurrent,
        answer_format=answer_format.value,
        max_tokens=max_tokens,
    )


def _llm(store: Path, settings: LLMSettings, cache: Path | None) -> LLM:
    from graphmert.llm import LLM

    return LLM(settings, cache_dir=store / "llm" if cache is None else cache)


def edit(
    store: StorePath,
    accept: Annotated[
        tuple[str, str, str] | None,
        typer.Option(metavar="HEAD RELATION TAIL", help="Accept a triple."),
    ] = None,
    reject: Annotated[
        str | None, typer.Option(metavar="TRIPLE_ID", help="Take a triple out.")
    ] = None,
    relabel: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="TRIPLE_ID RELATION", help="Give a triple another relation."),
    ] = None,
    merge: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="KEPT GONE", help="Merge the second entity into the first."),
    ] = None,
    by: By = "",
    note: Annotated[str, typer.Option(help="Why; kept in the log.")] = "",
    as_json: AsJson = False,
) -> None:
    """Edit the graph by one line in its log; without an option, show the log."""
    with reporting(as_json):
        from graphmert.curate import Edit, add_edits, in_force, read_edits
        from graphmert.query import open_store
        from graphmert.store import RunDir

        n_given = sum(one is not None for one in (accept, reject, relabel, merge))
        if n_given == 0:
            edits = read_edits(RunDir(store))
            numbers = {one.number for one in in_force(edits)}
            rows = [
                {**one.to_dict(), "in_force": one.number in numbers or one.kind == "undo"}
                for one in edits
            ]
            print_result({"n_edits": len(edits), "edits": rows}, as_json)
            return
        if n_given > 1:
            raise ConfigError("one edit at a time", got=f"{n_given} edits")
        values: dict[str, Any] = {"by": by, "note": note, "at": _now()}
        if accept is not None:
            opened = open_store(store)
            head, tail = (opened.entity(accept[place]).entity_id for place in (0, 2))
            values |= {"head_id": head, "relation": accept[1], "tail_id": tail, "kind": "accept"}
        elif reject is not None:
            values |= {"kind": "reject", "triple_id": reject}
        elif relabel is not None:
            values |= {"kind": "relabel", "triple_id": relabel[0], "relation": relabel[1]}
        elif merge is not None:
            opened = open_store(store)
            kept, gone = (opened.entity(one).entity_id for one in merge)
            values |= {"kind": "merge", "entity_id": kept, "merged_id": gone}
        curated = add_edits(RunDir(store), [Edit(**values)])
        print_result(_after(curated), as_json)


def undo(
    store: StorePath,
    number: Annotated[
        int | None, typer.Argument(metavar="NUMBER", help="The edit; the last one unless given.")
    ] = None,
    by: By = "",
    as_json: AsJson = False,
) -> None:
    """Take an edit back by one more line in the log; undoing an undo brings it back."""
    with reporting(as_json):
        from graphmert.curate import Edit, add_edits, in_force, read_edits
        from graphmert.store import RunDir

        run = RunDir(store)
        if number is None:
            counting = in_force(read_edits(run))
            if not counting:
                raise ConfigError("there is no edit to undo", where=str(store))
            number = counting[-1].number
        curated = add_edits(run, [Edit(kind="undo", edit=number, by=by, at=_now())])
        print_result(_after(curated), as_json)


def _after(curated: Any) -> dict[str, Any]:
    return {
        "edit": curated.edits[-1].to_dict(),
        "n_triples": len(curated.tables.triples),
        "n_entities": len(curated.tables.entities),
        "n_withdrawn": len(curated.withdrawn),
        "edits": curated.ledger.to_dict(),
    }


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def resolve(
    store: StorePath,
    threshold: Annotated[
        float | None,
        typer.Option(help="Also list names whose 3-grams have at least this Jaccard."),
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Merge what is listed; `kg undo` takes it back.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="Most rows shown.")] = 50,
    by: By = "",
    as_json: AsJson = False,
) -> None:
    """List entities that seem to be one and the same, and merge them if asked to."""
    with reporting(as_json):
        from graphmert import resolve as resolving
        from graphmert.query import open_store

        opened = open_store(store)
        found, ledger = resolving.find_duplicates(opened.tables, threshold=threshold)
        if apply and found:
            resolving.merge_duplicates(opened.run, found, by=by, at=_now())
        rows = [one.to_dict() for one in (found if as_json else found[:limit])]
        result = {
            "n_found": len(found),
            "n_merged": len(found) if apply else 0,
            "pairs": ledger.to_dict(),
            "duplicates": rows,
        }
        print_result(result, as_json)


def add_commands(app: typer.Typer) -> None:
    """Put the commands of this module into the group `kg`."""
    for command in (sample, judge, qa, edit, undo, resolve):
        app.command()(command)
    app.command("score-sample")(score_sample)
