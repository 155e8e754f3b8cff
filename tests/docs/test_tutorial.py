"""The commands of the tutorial run as they stand there."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import tomllib
from pathlib import Path

import pyarrow.parquet as pq
from typer.testing import CliRunner

import tiny_run
from graphmert import cli
from graphmert.documents.records import SUFFIXES
from graphmert.kg import read_schema
from graphmert.kg.reading import FORMATS

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "your-documents.md").read_text(encoding="utf-8")
COMMAND = re.compile(r"^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)


def test_the_commands_of_the_tutorial_run(tmp_path: Path) -> None:
    shutil.copytree(DOCS / "sample", tmp_path / "sample")
    lines = [line for block in COMMAND.findall(PAGE) for line in block.splitlines() if line]
    assert len(lines) == 10
    with tiny_run.working_in(tmp_path):
        for line in lines:
            words = shlex.split(line)
            assert words[0] == "graphmert"
            result = CliRunner().invoke(cli.app, words[1:])
            assert result.exit_code == 0, f"{line}\n{result.output}{result.exception}"
    run = tmp_path / "run-output"
    assert (run / "model" / "model.safetensors").is_file()
    phrases = pq.read_table(run / "corpus" / "phrases.parquet")["phrase"].to_pylist()
    assert any("cold fermentation" in one for one in phrases)
    assert pq.read_table(run / "chains" / "injected.parquet").num_rows > 10
    sequences = pq.read_table(run / "corpus" / "sequences.parquet")["doc_id"].to_pylist()
    assert "step-5" not in sequences
    new = pq.read_table(tmp_path / "new-output" / "corpus" / "documents.parquet")["doc_id"]
    assert new.to_pylist() == ["more-1", "more-2", "pizza.txt", "bread.txt"]
    assert pq.read_table(tmp_path / "new-output" / "kg" / "rejected.parquet").num_rows > 0
    timings = json.loads((tmp_path / "new-output" / "timings.json").read_text(encoding="utf-8"))
    assert (timings["extract"]["computed"], timings["extract"]["reused"]) == (1, 3)
    assert (tmp_path / "frozen" / "manifest.json").is_file()


def test_the_page_shows_the_sample_as_it_is() -> None:
    block = re.search(r"^```toml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert block is not None
    shown = tomllib.loads(block[1])["relations"]["made_from"]
    relation = read_schema(DOCS / "sample" / "ontology" / "schema.toml").relations["made_from"]
    assert set(shown["domain"]) == relation.domain
    assert tuple(shown["aliases"]) == relation.aliases
    examples = re.findall(r"^\| `\w+.csv` .*\| `([^`]*)` \|$", PAGE, re.MULTILINE)
    assert len(examples) == 2
    for row in examples:
        plain = row.replace("\\|", "|")
        files = [path.read_text(encoding="utf-8") for path in (DOCS / "sample/ontology").glob("*")]
        assert any(plain in text.splitlines() for text in files), plain


def test_every_format_is_named_on_the_page() -> None:
    for suffix in [*FORMATS, *SUFFIXES]:
        if suffix in (".ndjson", ".xml", ".json"):
            continue
        assert f"`{suffix}`" in PAGE or f"{suffix.upper()[1:]}" in PAGE, suffix
