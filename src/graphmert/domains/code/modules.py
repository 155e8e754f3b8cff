"""Which file a module name, a path or a Java type name stands for. It depends on paths alone,
but for Java, where it depends on the declared packages and types too."""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

_JS_ENDINGS = ("", ".js", ".mjs", ".cjs", ".jsx", ".ts", ".tsx", ".mts", ".cts", ".d.ts")
_JS_INDEX = tuple(f"/index{ending}" for ending in _JS_ENDINGS[1:])


@dataclass(frozen=True)
class Summary:
    """What the linker must know of a file before it reads its facts.

    Attributes:
        doc_id, package, path, language: the file.
        package_name: the declared package of a Java file.
        types: qualified names of Java types -> symbol.
        methods: short name -> symbols of methods of that name.
        is_test: whether it is a test.
    """

    doc_id: str
    package: str
    path: str
    language: str
    package_name: str = ""
    types: dict[str, int] = field(default_factory=dict)
    methods: dict[str, list[int]] = field(default_factory=dict)
    is_test: bool = False


class Modules:
    """Tables from names to files.

    Args:
        files: summaries, in the order of the files.
        entries: package -> main file of JavaScript packages.
    """

    def __init__(self, files: Sequence[Summary], entries: dict[str, str]) -> None:
        self.files = files
        self.by_path = {(one.package, one.path): number for number, one in enumerate(files)}
        self.python: dict[str, list[int]] = defaultdict(list)
        self.dotted: dict[int, str] = {}
        self.python_packages: set[str] = set()
        self.java: dict[str, tuple[int, int]] = {}
        self.java_packages: dict[str, dict[str, tuple[int, int]]] = defaultdict(dict)
        self.duplicates: dict[str, list[int]] = {}
        self._entries = entries
        paths = set(self.by_path)
        for number, one in enumerate(files):
            if one.language == "python":
                self._add_python(number, one, paths)
            elif one.language == "java":
                for name, symbol in one.types.items():
                    full = f"{one.package_name}.{name}" if one.package_name else name
                    known = self.java.setdefault(full, (number, symbol))
                    if known[0] != number:
                        self.duplicates.setdefault(full, [known[0]]).append(number)
                    if "." not in name:
                        self.java_packages[one.package_name].setdefault(name, known)
        for name, numbers in self.python.items():
            if len(numbers) > 1 and name not in ("__init__", "conftest", "setup"):
                self.duplicates[name] = numbers

    # --- Python -----------------------------------------------------------------------------

    def _add_python(self, number: int, one: Summary, paths: set[tuple[str, str]]) -> None:
        parts = one.path.rsplit(".", 1)[0].split("/")

        def is_package(stop: int) -> bool:
            return (one.package, "/".join([*parts[:stop], "__init__.py"])) in paths

        root = len(parts) - 1
        # A folder without __init__.py inside a package belongs to the package all the same.
        inside = next((stop for stop in range(root, 0, -1) if is_package(stop)), None)
        if inside is not None:
            root = inside
            while root > 0 and is_package(root):
                root -= 1
        names = parts[root:]
        if names[-1] == "__init__" and len(names) > 1:
            names = names[:-1]
        full = ".".join(names)
        self.dotted[number] = full
        self.python[full].append(number)
        for stop in range(1, len(names)):
            self.python_packages.add(".".join(names[:stop]))
        # Without __init__.py the folders above still are a namespace package.
        longer = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if longer != full:
            self.python[longer].append(number)
            pieces = longer.split(".")
            for stop in range(1, len(pieces)):
                self.python_packages.add(".".join(pieces[:stop]))

    def find_python(self, file: int, module: str, level: int) -> int | str | None:
        """Return the file of an imported module, the name of a package without one, or None."""
        name = module
        if level:
            base = self.dotted.get(file, "").split(".")
            keep = len(base) - level + self.files[file].path.endswith("/__init__.py")
            if self.files[file].path == "__init__.py":
                keep = len(base) - level + 1
            if keep < 0:
                return None
            prefix = ".".join(base[:keep])
            name = f"{prefix}.{module}" if prefix and module else prefix or module
        found = self._choose(self.python.get(name, ()), file)
        if found is not None:
            return found
        return name if name in self.python_packages else None

    def submodule(self, file: int, name: str) -> int | str | None:
        """Return the module `name` inside the package that a file is the front of."""
        if not self.files[file].path.endswith("__init__.py"):
            return None
        full = f"{self.dotted[file]}.{name}"
        found = self._choose(self.python.get(full, ()), file)
        return found if found is not None else full if full in self.python_packages else None

    def _choose(self, numbers: Sequence[int], file: int) -> int | None:
        """Return the nearest of files of one name: same package, most folders shared, first."""
        if not numbers:
            return None
        here = self.files[file]

        def rank(number: int) -> tuple[bool, bool, int, int]:
            there = self.files[number]
            shared = posixpath.commonpath(["/" + here.path, "/" + there.path]).count("/")
            away = there.package != here.package
            return away, there.is_test and not here.is_test, 0 if away else -shared, number

        return min(numbers, key=rank)

    # --- JavaScript and TypeScript ----------------------------------------------------------

    def find_script(self, file: int, spec: str) -> int | None:
        """Return the file that a JavaScript module text leads to, or None."""
        here = self.files[file]
        if spec.startswith("."):
            folder = posixpath.dirname(here.path)
            return self._script(here.package, posixpath.normpath(posixpath.join(folder, spec)))
        parts = spec.split("/")
        size = 2 if spec.startswith("@") else 1
        name, inner = "/".join(parts[:size]), "/".join(parts[size:])
        if name not in self._entries:
            return None
        target = posixpath.normpath(inner or self._entries[name])
        return self._script(name, target)

    def _script(self, package: str, path: str) -> int | None:
        path = "" if path == "." else path
        stem, _, ending = path.rpartition(".")
        # TypeScript names the .js that a .ts file becomes.
        swapped = [f"{stem}.{one}" for one in ("ts", "tsx")] if ending in ("js", "jsx") else []
        for one in (path, *swapped, *(path + ending for ending in _JS_ENDINGS[1:] + _JS_INDEX)):
            number = self.by_path.get((package, one.lstrip("/")))
            if number is not None:
                return number
        return None
