"""A whole code run on four small packages: stages, resume, pages, search; and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

pytest.importorskip("tree_sitter_python", reason="the extra `code` is not installed")

import code_toy
from graphmert.batch import RelationNames
from graphmert.config import build, to_toml
from graphmert.errors import CapabilityError, ConfigError
from graphmert.progress import Silent
from graphmert.run.code import (
    STAGES,
    CodeRunConfig,
    _Plan,
    cost,
    execute_code,
    find,
    load_code,
    stages,
)
from graphmert.run.code.asking import hold_out
from graphmert.run.code.find import find_functions
from graphmert.run.code.search import SearchFeed, search_pairs, words_chain
from graphmert.run.code.stages import load_prepared
from graphmert.run.code.together import Together
from graphmert.run.stages import load_model
from graphmert.shards import read_table

ROOT = Path(__file__).parents[3]
SETTINGS: dict[str, Any] = {
    "data": {"vocab_size": 400},
    "split": {"valid_packages": ["beta"], "test_packages": ["gamma"]},
    "chains": {"max_roots": 96},
    "model": {
        "preset": "graphmer-se",
        "changes": {"hidden_size": 16, "n_layers": 1, "n_attn_heads": 2, "ffn_size": 24},
    },
    "feed": {"n_negatives": 8, "n_facts": 8},
    "train": {
        "total_steps": 4, "batch_size": 6, "warmup_steps": 1, "device": "cpu", "n_threads": 1,
        "eval_every": 2, "checkpoint_every": 2, "log_every": 1,
        "weight_ramps": {"leaf": 3}, "length_curriculum": [[0, 24], [2, 96]],
    },
    "tune": {"steps": 2, "batch_size": 4, "max_roots": 64},
    "evaluate": {
        "n_link_queries": 4, "n_search": 10, "kge_epochs": 2, "kge_widths": [8],
        "kge_learning_rates": [0.05, 0.2], "n_resamples": 10, "hidden_share": 0.4,
    },
}  # fmt: skip


def config_for(out: Path, index: Path, **changes: Any) -> CodeRunConfig:
    values = {**SETTINGS, **changes, "out": str(out)}
    values["data"] = {**values["data"], "index": str(index)}
    return build(values, CodeRunConfig)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return code_toy.make_index(tmp_path_factory.mktemp("index"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, index: Path) -> CodeRunConfig:
    config = config_for(tmp_path_factory.mktemp("run") / "out", index)
    result = execute_code(config)
    assert result.exit_code == 1  # an untrained network misses targets
    assert list(result.summary["stages"].values()) == ["done"] * len(STAGES)
    return config


def test_every_measure_is_there(finished: CodeRunConfig) -> None:
    metrics = json.loads((Path(finished.out) / "metrics.json").read_text())
    assert metrics["packages"] == ["gamma"]
    assert [row["measure"] for row in metrics["compliance"]]
    assert all(row["value"] is not None for row in metrics["compliance"][:2])
    systems = metrics["links"]["systems"]
    assert {"graphmert", "graphmert_without_leaves", "relation_frequency", "seen_pair",
            "bm25_names", "transe", "complex", "rotate"} == set(systems)  # fmt: skip
    for one in metrics["links"]["embeddings"].values():
        assert [tried["learning_rate"] for tried in one["tried"]] == [0.05, 0.2]
        assert one["valid_mrr"] == max(tried["valid_mrr"] for tried in one["tried"])
        assert one["n_valid_questions"] > 0
    assert {"graph", "shuffled_graph", "empty_graph", "bm25"} == set(metrics["search"]["systems"])
    assert metrics["masked"]["mlm"]["graphmert"]["n"] > 20
    assert {"both_types", "head_type", "tail_type", "majority", "neighbour", "graphmert"} == set(
        metrics["masked"]["relation"]
    )
    assert set(metrics["violations"]) >= {"type", "acyclicity", "antisymmetry", "inheritance"}


def test_finished_stages_are_not_done_again(finished: CodeRunConfig) -> None:
    again = execute_code(finished)
    assert set(again.summary["stages"].values()) == {"already done"}
    planned = execute_code(finished, dry_run=True)
    assert set(planned.summary["stages"].values()) == {"done"}


def test_what_helps_against_full_memory_undoes_no_stage(finished: CodeRunConfig) -> None:
    free = {"micro_batch_size": 2, "prefetch": True}
    other = finished.model_copy(update={"train": finished.train.model_copy(update=free)})
    planned = execute_code(other, dry_run=True)
    assert set(planned.summary["stages"].values()) == {"done"}


@pytest.mark.parametrize(
    ("section", "changes", "first"),
    [
        ("chains", {"max_roots": 96, "max_name_tokens": 8}, "prepare"),
        ("chains", {"max_roots": 96, "tail_names": "short"}, "prepare"),
        ("data", {"vocab_size": 400, "min_score": 0.4}, "prepare"),
        ("split", {**SETTINGS["split"], "near_duplicate": 0.81}, "prepare"),
        ("masking", {"mention_rate": 0.9, "facts": "pair"}, "train"),
        ("train", {**SETTINGS["train"], "learning_rate": 3e-4}, "train"),
        ("tune", {**SETTINGS["tune"], "max_roots": 65}, "train"),
        ("tune", {**SETTINGS["tune"], "max_query_tokens": 7}, "tune"),
        ("evaluate", {**SETTINGS["evaluate"], "n_search": 9}, "evaluate"),
        ("train", {**SETTINGS["train"], "prefetch": False, "micro_batch_size": 3}, None),
    ],
)
def test_a_stage_depends_on_its_settings_and_all_before(
    finished: CodeRunConfig, section: str, changes: dict[str, Any], first: str | None
) -> None:
    """Also where prepare would write the same bytes again: chains are built in every stage.

    Fingerprints are compared with the same files before them, so only settings can tell.
    """
    other = config_for(Path(finished.out), Path(finished.data.index), **{section: changes})
    one, two = _Plan(finished), _Plan(other)
    changed = [name for name in STAGES if one.fingerprint(name) != two.fingerprint(name)]
    assert changed == ([] if first is None else list(STAGES[STAGES.index(first) :]))


def test_search_settings_count_where_nothing_was_tuned(
    finished: CodeRunConfig,
) -> None:
    index, out = Path(finished.data.index), Path(finished.out)
    one, two = (
        _Plan(config_for(out, index, tune={"steps": 0, "max_query_tokens": n})) for n in (7, 8)
    )
    assert one.fingerprint("evaluate") != two.fingerprint("evaluate")


def test_traced_truth_is_no_input_of_training(finished: CodeRunConfig, tmp_path: Path) -> None:
    truth = tmp_path / "truth.jsonl"
    truth.write_text("{}\n", encoding="utf-8")
    settings = {**SETTINGS["evaluate"], "truth": str(truth)}
    plans = [
        _Plan(finished),
        _Plan(config_for(Path(finished.out), Path(finished.data.index), evaluate=settings)),
    ]
    assert len({plan.fingerprint("train") for plan in plans}) == 1
    marks = {plan.fingerprint("evaluate") for plan in plans}
    truth.write_text("{} \n", encoding="utf-8")
    marks.add(_Plan(plans[1].config).fingerprint("evaluate"))
    assert len(marks) == 3


def test_shorter_names_train_anew(index: Path, tmp_path: Path) -> None:
    """Prepare writes the same bytes with other names; the model must not be the old one."""
    config = config_for(tmp_path / "out", index, tune={"steps": 0})
    execute_code(config, last="train")
    weights = tmp_path / "out" / "model" / "model.safetensors"
    before = weights.read_bytes()
    chains = {**SETTINGS["chains"], "max_name_tokens": 3}
    again = execute_code(
        config_for(tmp_path / "out", index, tune={"steps": 0}, chains=chains), last="train"
    )
    assert again.summary["stages"] == {"prepare": "done", "train": "done"}
    assert weights.read_bytes() != before


def test_the_same_settings_give_the_same_bytes(
    finished: CodeRunConfig, index: Path, tmp_path: Path
) -> None:
    other = config_for(tmp_path / "again", index)
    execute_code(other, last="train")
    for name in ("training.jsonl", "model.safetensors", "config.json"):
        one, two = (Path(c.out) / "model" / name for c in (finished, other))
        assert one.read_bytes() == two.read_bytes(), name


def test_pages_are_made_from_the_files(finished: CodeRunConfig) -> None:
    out = Path(finished.out)
    card = (out / "model_card.md").read_text()
    assert "4 updates of 6 chains" in card
    assert "graphmer-se" in card
    assert "| train |" in card
    report = (out / "report.md").read_text()
    assert "link prediction MRR" in report
    deployment = (out / "deployment.md").read_text()
    assert "ms per chain alone" in deployment
    assert "GraphMERT.from_pretrained" in deployment
    assert f"graphmert code search --model {out}" in deployment
    assert "the tail of a triple among all entities (`entity`)" in deployment
    assert "Graph embeddings, as validation packages chose them" in report


def test_words_find_functions(finished: CodeRunConfig, tmp_path: Path) -> None:
    found = find_functions(finished.out, "add up the areas of shapes", limit=3)
    assert len(found) == 3
    assert found[0]["score"] >= found[-1]["score"]
    assert all("#" in one["entity_id"] for one in found)
    with pytest.raises(ConfigError, match="no words"):
        find_functions(finished.out, "  ")
    with pytest.raises(ConfigError, match="no encoder tuned"):
        find_functions(tmp_path, "anything")


def test_the_kept_run_file_and_queries_are_those_of_the_last_run(
    finished: CodeRunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other settings of search tune again, and search asks with them; prepare is not redone."""
    out = tmp_path / "out"
    shutil.copytree(finished.out, out)
    changed = config_for(
        out, Path(finished.data.index), tune={**SETTINGS["tune"], "max_query_tokens": 5}
    )
    result = execute_code(changed, last="tune")
    assert result.summary["stages"] == {
        "prepare": "already done", "train": "already done", "tune": "done",
    }  # fmt: skip
    assert load_code(out / "run.toml") == changed
    asked: list[int] = []
    monkeypatch.setattr(
        find,
        "words_chain",
        lambda tokenizer, words, *, max_tokens: (
            asked.append(max_tokens) or words_chain(tokenizer, words, max_tokens=max_tokens)
        ),
    )
    find_functions(out, "add up the areas", limit=1)
    assert asked == [5]
    execute_code(finished.model_copy(update={"out": str(out)}), last="train")
    find_functions(out, "add up the areas", limit=1)
    assert asked == [5, 5]  # what was tuned was tuned on five tokens


def test_hidden_pairs_are_hidden_both_ways(finished: CodeRunConfig) -> None:
    prepared = load_prepared(finished, Path(finished.out))
    held = hold_out(prepared, "test", share=0.5, seed=0)
    visible = {(h, t) for h, _, t in held.visible.tolist()}
    assert not visible & held.pairs
    assert not {(t, h) for h, t in visible} & held.pairs
    assert len(held.visible) + len(held.hidden) == len(prepared.triples("test"))
    assert held.questions
    assert {(q.head, q.tail) for q in held.questions} <= held.pairs
    assert hold_out(prepared, "test", share=0.5, seed=0).pairs == held.pairs


def test_training_sees_no_name_of_held_out_packages(finished: CodeRunConfig) -> None:
    prepared = load_prepared(finished, Path(finished.out))
    entities = prepared.vocabulary.entities[: prepared.vocabulary.n_train]
    assert not [e for e in entities if "gamma" in e or "beta" in e]
    facts = prepared.facts("train").triples
    assert facts[:, [0, 2]].max() < prepared.vocabulary.n_train


def test_a_body_of_the_roberta_family_serves_the_codebert_form(index: Path, tmp_path: Path) -> None:
    import torch
    import transformers

    prepared_config = config_for(tmp_path / "first", index, tune={"steps": 0})
    execute_code(prepared_config, last="prepare")
    tokenizer = load_prepared(prepared_config, tmp_path / "first").tokenizer
    torch.manual_seed(0)
    body = transformers.RobertaForMaskedLM(
        transformers.RobertaConfig(
            vocab_size=tokenizer.vocab_size, hidden_size=16, num_hidden_layers=1,
            num_attention_heads=2, intermediate_size=24, max_position_embeddings=130,
            pad_token_id=1, bos_token_id=0, eos_token_id=2, type_vocab_size=1,
        )
    )  # fmt: skip
    body.save_pretrained(tmp_path / "body")
    tokenizer.save(tmp_path / "body")
    config = config_for(
        tmp_path / "codebert",
        index,
        data={"body": str(tmp_path / "body"), "profile": "codebert"},
        model={"preset": "codebert"},
        chains={"max_roots": 128, "max_tail_tokens": 7, "max_leaves_per_root": 7},
        masking={"tail_rate": 0.0, "relation_rate": 0.15, "both_rate": 0.0, "facts": "pair"},
        train={
            **SETTINGS["train"], "total_steps": None, "epochs": 0.3, "length_curriculum": [],
            "weight_ramps": {}, "weights": {"mlm": 0.6, "relation": 0.4},
            "learning_rate": 4e-4, "pretrained_learning_rate": 5e-5,
        },
        checkpoint_epochs=0.1,
        tune={"steps": 0},
    )  # fmt: skip
    execute_code(config)
    deployment = (tmp_path / "codebert" / "deployment.md").read_text()
    assert "graphmert code search --model" in deployment
    assert "does not serve" in deployment.replace("\n", " ")
    assert "--model " + config.out not in deployment
    assert "ranks no entities" in deployment
    assert "the tail of a triple" not in deployment
    metrics = json.loads((tmp_path / "codebert" / "metrics.json").read_text())
    assert metrics["masked"]["relation"]["graphmert"]["n"] > 0
    assert "links" not in metrics  # it has no entity objective to answer with
    assert [row["value"] for row in metrics["compliance"]][:2] == [None, None]
    assert all(row["passes"] is None and row["reason"] for row in metrics["compliance"][:2])
    shape = json.loads((tmp_path / "codebert" / "model" / "config.json").read_text())
    assert shape["n_positions"] == 1024
    assert shape["objectives"] == ["mlm", "relation"]


@pytest.mark.slow
def test_two_processes_make_one_run(finished: CodeRunConfig, tmp_path: Path) -> None:
    """As torchrun starts them: one folder, one print, the weights of one process."""
    for name, n_processes in (("one", 1), ("two", 2)):
        settings = {
            "train": {**SETTINGS["train"], "micro_batch_size": 3},
            "tune": {**SETTINGS["tune"], "micro_batch_size": 2},
        }
        config = config_for(tmp_path / name, Path(finished.data.index), **settings)
        path = tmp_path / f"{name}.toml"
        path.write_text(to_toml(config, comments=False), encoding="utf-8")
        (tmp_path / name / "model").mkdir(parents=True)
        (tmp_path / name / "model" / "stale.txt").touch()
        printed = run_processes(["code", "train", str(path), "--json"], n_processes)
        assert [bool(text) for text in printed] == [True, *[False] * (n_processes - 1)]
        assert set(json.loads(printed[0])["stages"].values()) == {"done"}
        assert not (tmp_path / name / "model" / "stale.txt").exists()
    for place in ("model", "search"):
        one, two = (load_file(tmp_path / n / place / "model.safetensors") for n in ("one", "two"))
        assert sorted(one) == sorted(two)
        for name, value in one.items():
            assert np.abs(value - two[name]).max() < 2e-4, (place, name)
    vectors = [
        read_table(tmp_path / n / "search" / "functions.parquet").column("entity_id").to_pylist()
        for n in ("one", "two")
    ]
    assert vectors[0] == vectors[1]


def run_processes(arguments: list[str], n_processes: int) -> list[str]:
    """What each process of `graphmert` printed, all of them in one group."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    started = []
    for rank in range(n_processes):
        group = {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(n_processes),
            "LOCAL_WORLD_SIZE": str(n_processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
        }  # fmt: skip
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "graphmert.cli", *arguments],
                env=os.environ
                | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
                | (group if n_processes > 1 else {}),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    printed = []
    for process in started:
        text, messages = process.communicate(timeout=240)
        assert process.returncode == 0, messages
        printed.append(text)
    return printed


def test_an_update_of_search_is_cut_into_micro_batches(finished: CodeRunConfig) -> None:
    prepared = load_prepared(finished, Path(finished.out))
    pairs = search_pairs(prepared, "train")
    batches = {}
    for size in (None, 2):
        settings = finished.tune.model_copy(update={"micro_batch_size": size})
        feed = SearchFeed(pairs, words=RelationNames(), pad_id=0, settings=settings, seed=1)
        batches[size] = feed.batch(1)
    assert [batch.n_samples for batch in batches[None]] == [4]
    assert [batch.n_samples for batch in batches[2]] == [2, 2]
    parts = [batch.number_B.tolist() for batch in batches[2]]
    assert [n for part in parts for n in part] == batches[None][0].number_B.tolist()


def test_sharded_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(CapabilityError, match="whole weights"):
        Together(on_cpu=True)


def test_evaluation_takes_the_device_of_training(
    finished: CodeRunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evaluation sees models where train.device says; no accelerator is needed to look."""
    seen: list[list[str]] = []
    monkeypatch.setattr(stages.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        stages, "evaluate_code", lambda p, model, tuned, *a: seen.append([model.on, tuned.on])
    )

    class Loaded:
        on = "cpu"

        def to(self, device: Any) -> Loaded:
            self.on = device.type
            return self

    monkeypatch.setattr(stages, "load_model", lambda path: Loaded())
    train = finished.train.model_copy(update={"device": "auto"})
    for config in (finished, finished.model_copy(update={"train": train})):
        stages.evaluate(config, Path(finished.out), Silent())
    assert seen == [["cpu", "cpu"], ["cuda", "cuda"]]


def test_the_clock_waits_for_the_device_after_warming_up(
    finished: CodeRunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = load_prepared(finished, Path(finished.out))
    model = load_model(Path(finished.out) / "model")
    done: list[str] = []
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda batch: (done.append("f"), forward(batch))[1])
    monkeypatch.setattr(cost, "wait_for", lambda device: done.append("w"))
    assert cost.measure_cost(prepared, model, "test")["device"] == "cpu"
    assert "".join(done) == 2 * ("f" * cost.N_WARM + "wfw" * 7)


def test_only_a_measured_target_is_missed(
    finished: CodeRunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"passes": True}, {"passes": None}]
    monkeypatch.setattr("graphmert.run.code.measuring.read_metrics", lambda _: {"compliance": rows})
    assert execute_code(finished).exit_code == 0
    rows.append({"passes": False})
    assert execute_code(finished).exit_code == 1
    assert execute_code(finished, last="tune").exit_code == 0


def test_what_is_missing_is_named(tmp_path: Path, index: Path) -> None:
    with pytest.raises(ConfigError, match="no index of code"):
        execute_code(config_for(tmp_path / "o", tmp_path))
    wrong = config_for(tmp_path / "o", index, split={"test_packages": ["delta"]})
    with pytest.raises(ConfigError, match="no such package"):
        execute_code(wrong, last="prepare")


@pytest.mark.parametrize("path", sorted((ROOT / "runs").glob("code_*.toml")), ids=lambda p: p.stem)
def test_run_files_of_the_repository_are_read(path: Path) -> None:
    config = load_code(path)
    assert config.data.profile in ("graphmer-se", "codebert")
