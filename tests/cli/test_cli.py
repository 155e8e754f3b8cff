from __future__ import annotations

import errno
import json
import os
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import graphmert
from graphmert import cli, errors
from graphmert.cli import runs, terminal

ERRORS = [
    errors.GraphMERTError,
    errors.ConfigError,
    errors.FormatError,
    errors.SchemaError,
    errors.ProvenanceError,
    errors.CheckpointError,
    errors.CapabilityError,
    errors.JudgeError,
]


class FakeRun(types.ModuleType):
    """The functions of the run module that the commands call, recording the calls."""

    def __init__(self) -> None:
        super().__init__("graphmert.run")
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.exit_code = 0
        self.error: BaseException | None = None

    def _result(self) -> types.SimpleNamespace:
        if self.error is not None:
            raise self.error
        summary = {"kept": 3, "metrics": [{"name": "mrr", "value": 0.51234}]}
        return types.SimpleNamespace(exit_code=self.exit_code, summary=summary)

    def load(self, path: Path, overrides: list[str]) -> str:
        self.calls.append(("load", {"path": path, "overrides": list(overrides)}))
        return "config"

    def execute(self, config: object, **options: Any) -> types.SimpleNamespace:
        progress = options.pop("progress")
        progress.begin("train", total=2, unit="steps")
        progress.update(1, note="loss 1.0")
        progress.end("kept 3")
        self.calls.append(("execute", {"config": config, **options}))
        return self._result()

    def demo(self, *, offline: bool, out: Path, progress: object) -> types.SimpleNamespace:
        self.calls.append(("demo", {"offline": offline, "out": out}))
        return self._result()

    def init_toml(self, corpus: str, kg: str) -> str:
        return f"# The corpus.\ncorpus = {corpus!r}\nkg = {kg!r}\n"


@pytest.fixture
def fake_run(monkeypatch: pytest.MonkeyPatch) -> FakeRun:
    module = FakeRun()
    monkeypatch.setitem(sys.modules, "graphmert.run", module)
    monkeypatch.setattr(graphmert, "run", module, raising=False)
    return module


def invoke(*words: object) -> Any:
    return CliRunner().invoke(cli.app, [str(word) for word in words])


def test_run_passes_everything_on(fake_run: FakeRun) -> None:
    result = invoke("run", "R.toml", "--set", "a.b=1", "--set", "c=x", "--stage", "extract")
    assert result.exit_code == 0, result.output
    assert fake_run.calls == [
        ("load", {"path": Path("R.toml"), "overrides": ["a.b=1", "c=x"]}),
        ("execute", {"config": "config", "stage": "extract", "dry_run": False}),
    ]


def test_dry_run(fake_run: FakeRun) -> None:
    invoke("run", "R.toml", "--dry-run")
    assert fake_run.calls[1][1] == {"config": "config", "stage": None, "dry_run": True}


@pytest.mark.parametrize("stage", list(runs.Stage))
def test_stage_commands_stop_after_their_stage(fake_run: FakeRun, stage: runs.Stage) -> None:
    assert invoke(stage.value, "R.toml", "--set", "a=1").exit_code == 0
    assert fake_run.calls[0][1]["overrides"] == ["a=1"]
    assert fake_run.calls[1][1]["stage"] == stage.value


def test_data_on_stdout_and_messages_on_stderr(fake_run: FakeRun) -> None:
    result = invoke("run", "R.toml")
    assert result.stdout == "kept: 3\nmetrics:\n  name  value\n  mrr   0.5123\n"
    assert result.stderr.startswith("train: 2 steps\ntrain: done in ")
    assert result.stderr.endswith(" s, kept 3\n")


@pytest.mark.parametrize("exit_code", [0, 1])
@pytest.mark.parametrize("words", [("run", "R.toml"), ("demo",)], ids=" ".join)
def test_exit_code_of_a_result(fake_run: FakeRun, words: tuple[str, ...], exit_code: int) -> None:
    fake_run.exit_code = exit_code
    result = invoke(*words, "--json")
    assert result.exit_code == exit_code
    assert json.loads(result.stdout)["exit_code"] == exit_code
    assert json.loads(result.stdout)["metrics"] == [{"name": "mrr", "value": 0.51234}]
    assert ("less than asked" in result.stderr) == (exit_code == 1)


@pytest.mark.parametrize("cls", ERRORS, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("as_json", [False, True], ids=["plain", "json"])
def test_exit_code_of_an_error(
    fake_run: FakeRun, cls: type[errors.GraphMERTError], as_json: bool
) -> None:
    fake_run.error = cls("it broke", where="a.csv, line 3", got=1, expected=2, fix="Mend it.")
    result = invoke("run", "R.toml", *(["--json"] if as_json else []))
    assert result.exit_code == cls.exit_code
    assert result.stderr.endswith(f"error: {fake_run.error}\n")
    if as_json:
        told = json.loads(result.stdout)
        assert told["exit_code"] == cls.exit_code
        assert told["error"]["where"] == "a.csv, line 3"
    else:
        assert result.stdout == ""


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/x/y"), "disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/y"), "/x/y"),
        (MemoryError(), "out of memory"),
    ],
    ids=["disk", "permission", "memory"],
)
def test_machine_errors_are_capabilities(
    fake_run: FakeRun, error: BaseException, words: str
) -> None:
    fake_run.error = error
    result = invoke("run", "R.toml")
    assert result.exit_code == 4
    assert words in result.stderr


def test_a_defect_is_not_hidden(fake_run: FakeRun) -> None:
    fake_run.error = ZeroDivisionError("defect")
    assert isinstance(invoke("run", "R.toml").exception, ZeroDivisionError)


def test_interrupt_says_how_to_resume(fake_run: FakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_run.error = KeyboardInterrupt()
    monkeypatch.setattr(sys, "argv", ["graphmert", "run", "my run.toml", "--set", "a=1"])
    result = invoke("run", "my run.toml", "--set", "a=1")
    assert result.exit_code == 130
    assert "To resume: graphmert run 'my run.toml' --set a=1" in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("run",),
        ("run", "R.toml", "--stage", "none"),
        ("run", "R.toml", "--unknown"),
        ("unknown",),
        ("data", "fetch"),
        ("init", "--corpus", "c"),
        ("info", "paper", "--relations", "0"),
    ],
    ids=" ".join,
)
def test_bad_usage_is_2(words: tuple[str, ...]) -> None:
    result = invoke(*words)
    assert result.exit_code == 2
    assert result.stdout == ""


def test_init_writes_once(fake_run: FakeRun, tmp_path: Path) -> None:
    out = tmp_path / "RUN.toml"
    words = ("init", "--corpus", "docs", "--kg", "go.obo", "--out", out)
    first = invoke(*words, "--json")
    assert first.exit_code == 0
    assert json.loads(first.stdout) == {"path": str(out)}
    assert out.read_text(encoding="utf-8") == fake_run.init_toml("docs", "go.obo")
    second = invoke(*words)
    assert second.exit_code == 2
    assert "--force" in second.stderr
    assert invoke(*words, "--force").exit_code == 0


def test_data_list(tmp_path: Path) -> None:
    result = invoke("data", "list", "--root", tmp_path, "--json")
    assert result.exit_code == 0
    listed = json.loads(result.stdout)
    assert listed["root"] == str(tmp_path)
    names = [row["name"] for row in listed["datasets"]]
    assert names == sorted(names)
    assert {"doid-2021-06", "go-2021-12", "minilm-l6-384"} <= set(names)
    assert not any(row["fetched"] for row in listed["datasets"])
    plain = invoke("data", "list", "--root", tmp_path)
    assert "go-2021-12" in plain.stdout


def test_data_fetch_of_an_unknown_name(tmp_path: Path) -> None:
    result = invoke("data", "fetch", "gpt", "--root", tmp_path)
    assert result.exit_code == 2
    assert "go-2021-12" in result.stderr


def test_data_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from graphmert import datasets

    monkeypatch.setattr(datasets, "fetch", lambda name, *, root: Path(root) / name)
    result = invoke("data", "fetch", "go-2021-12", "--root", tmp_path, "--json")
    assert json.loads(result.stdout)["path"] == str(tmp_path / "go-2021-12")
    assert "CC BY 4.0" in result.stderr


def test_version() -> None:
    assert invoke("--version").stdout == f"graphmert {graphmert.__version__}\n"


def test_bars_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with terminal.progress_shown() as progress:
        assert isinstance(progress, terminal.Bars)
        progress.begin("train", total=4, unit="steps")
        progress.update(2, note="loss 1.0")
        progress.message("[not markup]")
        progress.end("kept 2")
        progress.begin("extract")
        progress.update(5)
        progress.end()
    assert [task.completed for task in progress._bars.tasks] == [4, 5]


def test_plain_lines_tell_rate_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    lines = terminal.PlainLines(every_s=0.0)
    lines.begin("train", total=10, unit="steps")
    lines.update(5, note="loss 1.0")
    lines.end()
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "train: 10 steps"
    assert told[1].startswith("train: 5/10 steps, ")
    assert told[1].endswith(" s left, loss 1.0")
