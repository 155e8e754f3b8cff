"""How fast text is read: sequences, names, candidates and links, in CPU seconds of one core.

    python benchmarks/bench_text.py run-output/pubmed --out bench_text.json

The argument is the run directory of a prepared corpus; its first row groups are done again, each
step by itself, and nothing is written there. Embedding is left out.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from graphmert.domains.text.candidates import find_candidates, phrase_index
from graphmert.domains.text.linking import LetterIndex, names_of, normal_name
from graphmert.domains.text.mentions import NameIndex, find_mentions
from graphmert.domains.text.phrases import count_runs
from graphmert.domains.text.quality import drop_low_information
from graphmert.domains.text.sequences import make_sequences
from graphmert.domains.text.tagger import MentionTagger
from graphmert.shards import atomic_write_json, n_groups, read_group
from graphmert.store import RunDir
from graphmert.tokens import Tokenizer

Result = TypeVar("Result")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--groups", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found = measure(RunDir(options.run), options.groups)
    print(json.dumps(found, indent=2))
    if options.out is not None:
        atomic_write_json(options.out, found)


def measure(run: RunDir, groups: int) -> dict[str, Any]:
    """Return CPU seconds and MB of UTF-8 text a second, by step."""
    seconds: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Result]) -> Result:
        started = time.process_time()
        result = work()
        seconds[name] = seconds.get(name, 0.0) + time.process_time() - started
        return result

    entities = run.read("seed/entities")
    names = timed("once: index of names", lambda: NameIndex(entities, normalise=True))
    own = [normal_name(one) for one in names_of(entities)[1]]
    letters = timed("once: index of letters", lambda: LetterIndex(own))
    phrases = phrase_index(run.read("corpus/phrases"))
    tagger = load_tagger(run)
    tokenizer = Tokenizer.load(run.path / "chains")
    max_tokens = json.loads(run.manifest.read_text(encoding="utf-8"))["config"]["text"][
        "max_tokens"
    ]
    n_bytes = 0
    for group in range(min(groups, n_groups(run.documents))):
        documents = read_group(run.documents, group)
        texts = documents["text"].to_pylist()
        n_bytes += sum(len(text.encode()) for text in texts)
        sequences, _ = timed(
            "sequences", lambda d=documents: make_sequences(d, tokenizer, max_tokens=max_tokens)
        )
        timed("low information", lambda s=sequences, d=documents: drop_low_information(s, d))
        mentions, _ = timed("names", lambda s=sequences, d=documents: find_mentions(s, d, names))
        timed("phrase counts", lambda t=texts: count_runs(t, max_words=5))
        candidates, _ = timed(
            "candidates",
            lambda s=sequences, d=documents, m=mentions: find_candidates(
                s, d, m, phrases=phrases, tagger=tagger, min_score=0.2
            ),
        )
        surfaces = sorted(set(candidates["surface"].to_pylist()))
        timed("links", lambda u=surfaces: [letters.alike(normal_name(one), 0.5) for one in u])
    rates = {
        name: round(n_bytes / 1e6 / max(value, 1e-9), 2)
        for name, value in seconds.items()
        if not name.startswith("once")
    }
    both = seconds["names"] + seconds["links"]
    return {
        "mb_of_text": round(n_bytes / 1e6, 2),
        "n_names": len(own),
        "cpu_seconds": {name: round(value, 3) for name, value in seconds.items()},
        "mb_per_cpu_second": rates | {"names and links": round(n_bytes / 1e6 / both, 2)},
    }


def load_tagger(run: RunDir) -> MentionTagger:
    from safetensors.numpy import load_file

    return MentionTagger(load_file(run.path / "corpus" / "tagger.safetensors")["weights"])


if __name__ == "__main__":
    main()
