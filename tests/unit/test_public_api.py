"""The public names: there, imported on demand, and torch only with what needs it."""

from __future__ import annotations

import subprocess
import sys

import pytest

import graphmert


@pytest.mark.parametrize("name", graphmert.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(graphmert, name).__module__.startswith("graphmert.")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        graphmert.nonsense  # noqa: B018


def test_import_is_light() -> None:
    code = "import sys, graphmert; graphmert.read_obo; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
