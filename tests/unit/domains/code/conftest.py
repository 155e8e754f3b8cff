from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("tree_sitter_python", reason="the extra `code` is not installed")

import code_toy


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of four small packages."""
    return code_toy.make_index(tmp_path_factory.mktemp("code"))
