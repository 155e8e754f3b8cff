"""A finished run on the documentation's sample that takes seconds, and texts to ask it about."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tiny_run
from graphmert import run
from graphmert.config import build
from graphmert.run import RunConfig
from graphmert.shards import sha256_file

SAMPLE = Path(__file__).parents[1] / "docs" / "sample"
NETWORK = {"hidden_size": 16, "n_layers": 1, "n_attn_heads": 2, "ffn_size": 16, "dropout": 0.0}
SETTINGS: dict[str, Any] = {
    "out": "run",
    "data": {"kg": "sample/ontology", "corpus": "sample/documents"},
    "split": {"n_valid_heads": 3, "n_test_heads": 3},
    "model": {"preset": "tiny", "vocab_size": 400, "changes": NETWORK},
    "text": {"max_tokens": 40},
    "candidates": {
        "phrases": {"min_count": 3, "min_documents": 1, "min_c_value": 2.0, "min_npmi": 0.0}
    },
    "embedding": {"model": "lexical"},
    "inject": {"method": "scored", "alpha": 0.1, "triples_per_head": 2},
    "train": {"total_steps": 8, "batch_size": 8, "warmup_steps": 2, "n_threads": 1},
    "extract": {
        "min_accepted": 0,
        "n_rule_queries": 4,
        "top_k": 3,
        "corpus": {
            "enabled": True,
            "tails": "corpus",
            "min_phrase_count": 1,
            "min_novel_examples": 1,
            "beta": -1.0,
        },
    },
}
# About every second proposal is accepted, so that triples have several places and meet the schema.
RULE = {
    "token_weight": 0.1,
    "relation_weight": 0.25,
    "calibrator": {"kind": "temperature", "temperature": 1.0, "bias": 3.9},
    "threshold": 0.5,
    "relations": {
        "threshold": -2.0,
        "wanted_recall": 0.9,
        "n_pairs": 10,
        "recall": 0.9,
        "share_asked": 0.7,
        "share_known": 0.2,
    },
    "novel_tails": {
        "calibrator": {"kind": "temperature", "temperature": 1.0, "bias": 3.6},
        "threshold": 0.55,
    },
    "beta": 0.05,
}
TEXTS = (
    "Rye bread is made from rye flour. Salt gives rye bread its taste.",
    "A baguette is a long wheat bread.\r\n\r\nIts crust is thin, since steam fills the oven.",
    "In alcoholic fermentation yeast makes carbon dioxide. Lactic acid fermentation is slower.",
    "The café 🥖 sells brioche and pita. Brioche holds butter; butter holds the yeast back.",
    "Kneading leads to gluten development. Long cold fermentation needs little kneading.",
    "Wheat flour holds starch and gluten. Rye flour holds starch. Wheat flour makes wheat bread.",
    "A Dutch oven keeps the steam, and a baking stone keeps the heat. Scoring needs a lame.",
    "The Maillard reaction browns the crust. Crust formation ends in the oven.",
    "20 min 75 % 2 % 240 °C 20 min 210 °C",
    "A sourdough starter holds yeast and lactic acid bacteria. Sourdough bread is a bread.",
    "Nothing of that kind is named here at all.",
    "Proofing in a banneton takes a night. Proofing is a process, and yeast lifts the dough.",
)


def make_run(folder: Path, **changes: Mapping[str, Any]) -> Path:
    """Prepare, train and extract in a folder; return the run directory, its rule replaced."""
    shutil.copytree(SAMPLE, folder / "sample")
    tree = SETTINGS | {
        name: {**SETTINGS.get(name, {}), **section} for name, section in changes.items()
    }
    with tiny_run.working_in(folder):
        result = run.execute(build(tree, RunConfig), stage="extract")
    assert result.exit_code == 0
    asks_all = tree["extract"]["corpus"]["enabled"]
    parts = RULE if asks_all else {name: RULE[name] for name in list(RULE)[:4]}
    change_json(folder / "run", "kg/measured.json", {"rule": {**parts, "tried": {}}})
    return folder / "run"


def change_json(run_dir: Path, name: str, changes: Mapping[str, Any]) -> None:
    """Change a file of a run as if the run had written it so."""
    path = run_dir / name
    values = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps(values), encoding="utf-8")
    manifest = json.loads((run_dir / "manifest.json").read_text(encoding="utf-8"))
    for stage in manifest["stages"].values():
        if name in stage["outputs"]:
            stage["outputs"][name] = sha256_file(path)
    (run_dir / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def write_texts(folder: Path, texts: Mapping[str, str]) -> Path:
    """Make a folder hold exactly these texts, by file name; return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.name not in texts:
            path.unlink()
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8", newline="")
    return folder


def all_texts() -> dict[str, str]:
    """All of `TEXTS` by file name."""
    return {f"t{place:02d}.txt": text for place, text in enumerate(TEXTS)}
