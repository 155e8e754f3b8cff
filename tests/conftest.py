"""Settings of all tests: no network, and property tests that give the same cases every time."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import tiny_documents
import tiny_run

settings.register_profile(
    "repeatable",
    deadline=None,  # timing is never asserted
    derandomize=True,
    database=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse connections to other machines; processes of this one may talk to each other."""
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: object) -> object:
        is_local = self.family == socket.AF_UNIX or (
            isinstance(address, tuple) and str(address[0]) in {"127.0.0.1", "::1", "localhost"}
        )
        if not is_local:
            raise AssertionError(f"a test reached for the network: {address}")
        return connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with inputs and a finished run; tests copy it before they change anything."""
    folder = tmp_path_factory.mktemp("finished")
    tiny_run.write_inputs(folder)
    result = tiny_run.execute(folder)
    assert result.exit_code == 0, result.summary
    return folder


@pytest.fixture(scope="session")
def frozen_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run on documents, ready for new ones; tests copy it to change it."""
    return tiny_documents.make_run(tmp_path_factory.mktemp("frozen"))
