"""The ablation and query benchmarks run whole at a toy size, and go on where they stopped."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from graphmert.errors import ConfigError

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"


def _load(name: str) -> ModuleType:
    """Import a file of the benchmarks folder, which is no package."""
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


for needed in ("dense", "bench_train", "ablation_plan"):
    _load(needed)
table = _load("ablation_table")
ablate = _load("ablate")
bench_queries = _load("bench_queries")
visible_leaves = _load("visible_leaves")

RUN = """
out = "unused"
[data]
kg = "{kg}"
[split]
n_valid_heads = 4
n_test_heads = 5
[text]
max_tail_tokens = 8
[model]
preset = "tiny"
vocab_size = 150
[model.changes]
dropout = 0.0
[feed]
n_negatives = 8
[train]
epochs = 1
batch_size = 8
warmup_steps = 1
weights = {{mlm = 0.5, leaf = 0.5, relation = 0.5, entity = 1.0}}
"""
TOY_VARIANTS = """
[[variant]]
name = "base"
group = "base"
[[variant]]
name = "leaf_only"
group = "objectives"
objectives = ["leaf"]
[[variant]]
name = "as_base"
group = "visibility"
set = ["model.changes.leaf_visibility=isolated"]
[[variant]]
name = "reference"
group = "form"
set = ["model.form=reference", "model.changes.n_leaf_slots=16"]
[[variant]]
name = "open"
group = "visibility"
set = ["model.changes.leaf_visibility=open"]
"""
COLOURS = ("red", "green", "blue", "grey", "brown", "black")
THINGS = ("cell", "wall", "leaf", "root", "stem", "seed")


def _obo() -> str:
    terms = []
    for i, thing in enumerate(THINGS):
        terms.append((f"X:{i}", thing, f"The {thing} of a plant.", []))
        for j, colour in enumerate(COLOURS):
            links = [f"is_a: X:{i}", f"relationship: part_of X:{(i + 1) % len(THINGS)}"]
            text = f"A {thing} that is {colour}, near the root, the stem and a seed."
            terms.append((f"X:{i}{j}", f"{colour} {thing}", text, links))
    blocks = [
        "\n".join(["[Term]", f"id: {one}", f"name: {name}", f'def: "{text}" []', *links])
        for one, name, text, links in terms
    ]
    return "\n\n".join(["format-version: 1.2", *blocks, "[Typedef]\nid: part_of\nname: part of"])


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run file, variants and, in out/, the results of one seed each."""
    folder = tmp_path_factory.mktemp("ablate")
    (folder / "toy.obo").write_text(_obo(), encoding="utf-8")
    (folder / "run.toml").write_text(RUN.format(kg=folder / "toy.obo"), encoding="utf-8")
    (folder / "variants.toml").write_text(TOY_VARIANTS, encoding="utf-8")
    ablate.main(_words(folder))
    return folder


def _words(folder: Path, *more: str) -> list[str]:
    files = [str(folder / "run.toml"), "--variants", str(folder / "variants.toml")]
    places = ["--out", str(folder / "out"), "--scratch", str(folder / "scratch")]
    options = [*places, "--seeds", "0", "--steps", "2", "--max-queries", "6"]
    return [*files, *options, "--max-valid-queries", "4", *more]


def _result(folder: Path, name: str) -> dict:
    return json.loads((folder / "out" / "results" / f"{name}.json").read_text(encoding="utf-8"))


def test_every_variant_ranks_the_same_triples(toy: Path) -> None:
    results = [_result(toy, f"{name}-seed0") for name in ("base", "leaf_only", "reference")]
    triples = [result["parts"]["test"]["triples"] for result in results]
    assert triples[0] == triples[1] == triples[2]
    assert json.loads((toy / "out" / triples[0]).read_text(encoding="utf-8"))
    for result in results:
        assert result["n_updates"] == 2
        assert result["failed"] is None
        assert all(rank >= 1 for rank in result["parts"]["test"]["ranks"]["combined"])
    systems = [set(result["parts"]["test"]["systems"]) for result in results]
    assert systems == [set(table.SYSTEMS), {"tokens", "combined"}, set(table.SYSTEMS)]


def test_a_variant_changes_only_what_it_says(toy: Path) -> None:
    base, leaf, reference = (
        _result(toy, f"{name}-seed0")["config"] for name in ("base", "leaf_only", "reference")
    )
    assert leaf["train"].pop("weights") == {"leaf": 0.5}
    assert base["train"].pop("weights") == reference["train"].pop("weights")
    assert leaf == base
    reference["model"] |= {"form": "default", "changes": base["model"]["changes"]}
    assert reference == base


def test_equal_variants_are_trained_once(toy: Path) -> None:
    base, twin = _result(toy, "base-seed0"), _result(toy, "as_base-seed0")
    assert twin["same_as"] == "base"
    assert base["config_hash"] == twin["config_hash"]
    assert base["parts"] == twin["parts"]


def test_finished_trials_are_kept_and_stale_ones_done_again(
    toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    real = ablate.run_trial

    def counted(trial, *args, **options):  # type: ignore[no-untyped-def]
        done.append(trial.name)
        return real(trial, *args, **options)

    monkeypatch.setattr(ablate, "run_trial", counted)
    ablate.main(_words(toy))
    assert done == []
    path = toy / "out" / "results" / "leaf_only-seed0.json"
    path.write_text(json.dumps(_result(toy, "leaf_only-seed0") | {"config_hash": "other"}))
    ablate.main(_words(toy, "--only", "leaf_only"))
    assert done == ["leaf_only-seed0"]
    assert not list((toy / "scratch" / "work").iterdir())


def test_the_table_has_every_variant(toy: Path) -> None:
    ablate.main(_words(toy, "--table"))
    written = json.loads((toy / "out" / "table.json").read_text(encoding="utf-8"))
    rows = {row["variant"]: row for row in written["rows"]}
    assert list(rows) == ["base", "leaf_only", "as_base", "reference", "open"]
    assert rows["as_base"]["difference"]["over_seeds"]["mean"] == 0
    assert "| leaf_only |" in (toy / "out" / "table.md").read_text(encoding="utf-8")


def test_queries_are_spread_over_relations(toy: Path) -> None:
    prepared = ablate.Prepared.load(next((toy / "scratch").glob("prepared-*")), max_tail_tokens=8)
    everything = ablate.choose_queries(prepared, "test", 1000)
    assert len(everything) == len({(q.head_entity, q.relation) for q in everything}) == 10
    few = ablate.choose_queries(prepared, "test", 4)
    assert sorted(q.relation for q in few) == [0, 0, 1, 1]
    assert set(few) <= set(everything)


def test_an_unknown_variant_is_refused(toy: Path) -> None:
    with pytest.raises(ConfigError, match="no such variant"):
        ablate.main(_words(toy, "--only", "nothing"))


def test_the_interval_over_seeds_is_students() -> None:
    interval = table.seed_interval([0.1, 0.2, 0.3])
    assert interval["mean"] == pytest.approx(0.2)
    assert interval["half_width"] == pytest.approx(4.303 * 0.1 / 3**0.5)
    assert table.seed_interval([0.5])["half_width"] is None


def test_the_variants_of_the_repository_plan(toy: Path) -> None:
    variants = ablate.load_toml(ROOT / "runs/ablations/variants.toml", ablate.Variants).variant
    limits = ablate.Limits(budget_s=300, n_steps=None, max_queries=6, max_valid_queries=4)
    base = ["model.changes.hgat=none", "model.changes.decay=none"]

    def plans(times: dict[str, float]) -> dict[str, ablate.Trial]:
        run = toy / "run.toml"
        return {v.name: ablate.plan(run, v, 0, limits, base, times) for v in variants}

    unmeasured = plans({})
    assert {trial.n_steps for trial in unmeasured.values()} == {None}
    times = {trial.speed: 0.5 for trial in unmeasured.values()}
    times[unmeasured["form_paper"].speed] = 2.0
    trials = plans(times)
    assert trials["base"].n_steps == trials["base"].config.train.total_steps == 600
    assert trials["form_paper"].n_steps == 150
    assert trials["base"].key != unmeasured["base"].key
    assert len(trials) == len(variants)
    assert trials["hgat_none"].key == trials["base"].key == trials["decay_none"].key
    assert trials["mnm_all"].key == trials["base"].key
    paper = trials["form_paper"].config
    assert "hgat" not in paper.model.changes  # the form's own H-GAT
    assert paper.train.schedule == "step"
    assert trials["scratch"].config.data.body == ""


def test_queries_per_second_are_measured(toy: Path, tmp_path: Path) -> None:
    run_dir = next((toy / "scratch").glob("prepared-*"))
    out = tmp_path / "queries.json"
    words = [str(run_dir), "--tiny", "--precision", "fp32", "--threads", "1", "--heads", "3"]
    bench_queries.main([*words, "--relations", "2", "--out", str(out)])
    result = json.loads(out.read_text(encoding="utf-8"))
    assert result["largest_difference_fp32"] < 1e-5
    assert result["ways"]["together"]["n_queries"] == 2 * 3 * 2
    assert result["texts"]["heads_from_mentions"] + result["texts"]["heads_filled_in"] == 6
    assert result["ratios"]["over_bi_encoder"] > 0


def test_a_budget_in_seconds_needs_measured_updates(toy: Path) -> None:
    words = _words(toy)
    cut = words.index("--steps")
    words = [*words[:cut], *words[cut + 2 :], "--budget", "0.2"]
    with pytest.raises(ConfigError, match="--measure"):
        ablate.main([*words, "--only", "base"])
    ablate.main([*words, "--measure"])
    measured = json.loads((toy / "out" / "step_times.json").read_text(encoding="utf-8"))
    assert {entry["variant"] for entry in measured.values()} == {
        "base",
        "leaf_only",
        "reference",
        "open",
    }
    ablate.main([*words, "--list"])
    times = ablate.read_times(toy / "out")
    assert all(seconds > 0 for seconds in times.values())


def test_visible_leaves_matter_only_where_roots_see_them(toy: Path, tmp_path: Path) -> None:
    words = _words(toy, "--only", "as_base", "open", "--keep-models")
    words[words.index("--out") + 1] = str(tmp_path)
    ablate.main(words)
    visible_leaves.main([*words[:-1], "--queries", "8"])
    written = json.loads((tmp_path / "visible_leaves.json").read_text(encoding="utf-8"))
    isolated, opened = (trial["contexts"] for trial in written["trials"])
    assert [trial["n_queries"] for trial in written["trials"]] == [8, 8]
    assert isolated["own"] == isolated["strange"] == isolated["none"]
    assert opened["own"] != opened["none"]
