"""The manifest: what was run on what, and which stages are done. Same inputs, same bytes."""

from __future__ import annotations

import hashlib
import json
import platform
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from graphmert.errors import FormatError
from graphmert.shards import Ledger, atomic_write_json, sha256_file

PACKAGE = "graphmert"
PACKAGES = (PACKAGE, "torch", "transformers", "tokenizers", "numpy", "pyarrow")


def fingerprint(*parts: object) -> str:
    """Sha256 of the canonical JSON of some values."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class StageOutput:
    """What a stage returns: counts, ledgers, and the files it wrote."""

    files: Sequence[Path]
    counts: Mapping[str, Any] = field(default_factory=dict)
    ledgers: Sequence[Ledger] = ()
    timings: Mapping[str, Any] = field(default_factory=dict)


class Manifest:
    """`manifest.json`, `ledger.json` and `timings.json` of a run directory.

    The header is of the call that wrote last; each stage keeps the versions and the hash of the
    configuration that it was done with.
    """

    def __init__(self, path: Path, header: Mapping[str, Any], order: Sequence[str]) -> None:
        self.path = path
        self.order = order
        self.stages: dict[str, dict[str, Any]] = {}
        self.timings: dict[str, Any] = {}
        old = _read_json(path / "manifest.json")
        if old:
            self.stages = dict(old.get("stages", {}))
            self.timings = _read_json(path / "timings.json")
        self.header = dict(header) | {"versions": {name: version(name) for name in PACKAGES}}

    def made_by(self, stage: str) -> str | None:
        """The version of this package that did a stage, where it is recorded."""
        return self.stages.get(stage, {}).get("versions", {}).get(PACKAGE)

    def is_done(self, stage: str, wanted: str) -> bool:
        """Whether the stage was finished on the same inputs and its files are still the same."""
        record = self.stages.get(stage)
        if record is None or record["fingerprint"] != wanted:
            return False
        return all(
            (self.path / name).is_file() and sha256_file(self.path / name) == digest
            for name, digest in record["outputs"].items()
        )

    def outputs(self, stage: str) -> dict[str, str]:
        """Hashes of the files a finished stage wrote."""
        return dict(self.stages[stage]["outputs"])

    def run(self, stage: str, wanted: str, work: Callable[[], StageOutput]) -> StageOutput:
        """Do a stage, then record it; a stage that dies leaves no record."""
        self.stages.pop(stage, None)
        started = time.perf_counter()
        output = work()
        seconds = time.perf_counter() - started
        self.stages[stage] = {
            "state": "done",
            "fingerprint": wanted,
            "versions": self.header["versions"],
            "config_hash": self._config_hash(),
            "counts": dict(output.counts),
            "ledgers": [ledger.check().to_dict() for ledger in output.ledgers],
            "outputs": {
                str(file.relative_to(self.path)): sha256_file(file) for file in output.files
            },
        }
        self.timings[stage] = {
            "seconds": seconds,
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            **output.timings,
        }
        self.write()
        return output

    def _config_hash(self) -> str:
        known = self.header.get("config_hash")
        return fingerprint(self.header.get("config")) if known is None else str(known)

    def write(self) -> None:
        """Write the three files; ledgers in the order of the stages.

        The manifest comes last: a stage that it records has the other two on disk.
        """
        done = [self.stages[name] for name in self.order if name in self.stages]
        ledgers = [one for record in done for one in record["ledgers"]]
        hardware = {"machine": platform.machine(), "processor": _processor()}
        atomic_write_json(self.path / "ledger.json", {"stages": ledgers})
        atomic_write_json(self.path / "timings.json", self.timings | {"hardware": hardware})
        atomic_write_json(self.path / "manifest.json", self.header | {"stages": self.stages})


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FormatError(
            "a file of the run directory is damaged",
            where=str(path),
            got=str(error),
            expected="JSON",
            fix="remove the file; the stages it recorded will run again",
        ) from error
