"""Serving what was built: read-only servers."""

from __future__ import annotations
