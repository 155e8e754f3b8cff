"""Train an encoder on leafy chain graphs and turn what it learned into a knowledge graph."""

from __future__ import annotations

__version__ = "0.1.0"
