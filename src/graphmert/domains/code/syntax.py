"""Parsers of the four languages, and character offsets in place of bytes."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from graphmert.errors import CapabilityError, ConfigError

if TYPE_CHECKING:
    from tree_sitter import Node, Parser, Tree

LANGUAGES = {
    ".py": "python",
    ".pyi": "python",
    ".pyw": "python",
    ".java": "java",
    ".js": "javascript",
    ".mjs": "javascript",
    ".cjs": "javascript",
    ".jsx": "javascript",
    ".ts": "typescript",
    ".mts": "typescript",
    ".cts": "typescript",
    ".tsx": "tsx",
}
"""File ending -> grammar; `tsx` is TypeScript too."""


@lru_cache(maxsize=8)
def parser_of(grammar: str) -> Parser:
    """Return the parser of a grammar.

    Raises:
        CapabilityError: the packages of the extra `code` are not installed.
    """
    try:
        import tree_sitter
        import tree_sitter_java
        import tree_sitter_javascript
        import tree_sitter_python
        import tree_sitter_typescript
    except ImportError as error:
        raise CapabilityError(
            "the parsers of code are not installed",
            got=error,
            fix="Run `pip install 'graphmert[code]'`.",
        ) from error
    languages = {
        "python": tree_sitter_python.language,
        "java": tree_sitter_java.language,
        "javascript": tree_sitter_javascript.language,
        "typescript": tree_sitter_typescript.language_typescript,
        "tsx": tree_sitter_typescript.language_tsx,
    }
    if grammar not in languages:
        raise ConfigError("no such grammar", got=repr(grammar), expected=sorted(languages))
    return tree_sitter.Parser(tree_sitter.Language(languages[grammar]()))


class Source:
    """A decoded text, its tree, and offsets of nodes in characters."""

    def __init__(self, text: str, grammar: str) -> None:
        self.text = text
        self.data = text.encode("utf-8", errors="surrogatepass")
        self.tree: Tree = parser_of(grammar).parse(self.data)
        self._chars: np.ndarray | None = None
        if len(self.data) != len(text):
            # Continuation bytes 10xxxxxx begin no character.
            starts = (np.frombuffer(self.data, np.uint8) & 0xC0) != 0x80
            self._chars = np.concatenate([np.cumsum(starts) - 1, [len(text)]])
            self._chars[:-1][~starts] += 1

    @property
    def root(self) -> Node:
        """The root of the tree."""
        return self.tree.root_node

    def offset(self, byte: int) -> int:
        """Return the character offset of a byte offset."""
        return byte if self._chars is None else int(self._chars[byte])

    def span(self, node: Node) -> tuple[int, int]:
        """Return where a node starts and ends, in characters."""
        if self._chars is None:
            return node.start_byte, node.end_byte
        return int(self._chars[node.start_byte]), int(self._chars[node.end_byte])

    def of(self, node: Node) -> str:
        """Return the text of a node."""
        return self.data[node.start_byte : node.end_byte].decode("utf-8", errors="surrogatepass")

    def errors(self, limit: int = 5) -> list[str]:
        """Return the first syntax errors, each with its line; empty when there are none."""
        if not self.root.has_error:
            return []
        found: list[str] = []
        todo = [self.root]
        while todo and len(found) < limit:
            node = todo.pop()
            if node.is_error or node.is_missing:
                what = f"missing {node.type}" if node.is_missing else "syntax error"
                found.append(f"{what} at line {node.start_point[0] + 1}")
            elif node.has_error:
                todo.extend(reversed(node.children))
        return found
