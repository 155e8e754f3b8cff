"""Documents from files: plain text, Markdown, HTML, JSON Lines, CSV, Parquet, Wikipedia dumps and
Debian packages of HTML pages."""

from __future__ import annotations

from graphmert.documents.html import html_to_text
from graphmert.documents.readers import read_documents
from graphmert.documents.table import make_documents
from graphmert.documents.wikitext import wikitext_to_text

__all__ = ["html_to_text", "make_documents", "read_documents", "wikitext_to_text"]
