"""Small code projects, indexed, and their triples in short form."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from graphmert.domains.code.index import build_index
from graphmert.domains.code.queries import CodeStore
from graphmert.store import RunDir

PYTHON = {
    "pyproject.toml": '[project]\nname = "shop"\nversion = "1.2"\nlicense = "MIT"\n',
    "shop/__init__.py": "from .cart import Cart\n__all__ = ['Cart']\n",
    "shop/cart.py": (
        "from .items import Item, price_of\n\n\n"
        "class Cart:\n"
        '    """Hold items."""\n\n'
        "    def __init__(self, owner: str):\n"
        "        self.items: list[Item] = []\n"
        "        self.owner = owner\n\n"
        "    def add(self, item: Item) -> None:\n"
        "        self.items.append(item)\n\n"
        "    def total(self):\n"
        "        return sum(item.price() for item in self.items)\n\n\n"
        "def checkout(cart: Cart):\n"
        "    value = cart.total()\n"
        "    return price_of(value)\n"
    ),
    "shop/items.py": (
        "class Item:\n"
        "    def price(self):\n"
        "        return 1\n\n\n"
        "def price_of(amount):\n"
        "    if amount < 0:\n"
        "        raise ValueError(amount)\n"
        "    return amount\n"
    ),
    "tests/test_cart.py": (
        "from shop import Cart\n\n\ndef test_total():\n    assert Cart('a').total() == 0\n"
    ),
}


def write(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content, encoding="utf-8")
    return folder


def index(folder: Path, files: Mapping[str, str | bytes], **options: object) -> CodeStore:
    """Write a project named `p` (unless a package file says otherwise) and index it."""
    build_index([write(folder / "p", files)], folder / "index", **options)  # type: ignore[arg-type]
    return CodeStore(folder / "index")


def short(entity_id: str) -> str:
    """`p/a.py#f.g` becomes `a.py#f.g`; names outside stay."""
    return entity_id.partition("/")[2] if entity_id.startswith(("p/", "shop/")) else entity_id


def triples(store: CodeStore, *relations: str) -> set[tuple[str, str, str]]:
    return {
        (short(one["head_id"]), one["relation"], short(one["tail_id"]))
        for one in store.triples.to_pylist()
        if not relations or one["relation"] in relations
    }


def references(store: CodeStore) -> list[dict]:
    return store.run.read("code/references").to_pylist()


def call(store: CodeStore, text: str) -> dict:
    """Return the one call of that name."""
    found = [
        one
        for one in references(store)
        if one["text"] == text and one["relation"] in ("calls", "invokes", "instantiates")
    ]
    assert len(found) == 1, found
    return found[0]


def tables(run: RunDir) -> dict[str, list[dict]]:
    return {name: run.read(name).to_pylist() for name in run.names()}
