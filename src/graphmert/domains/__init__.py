"""Domains: each turns its material into chains, and knows nothing of the others."""

from __future__ import annotations
