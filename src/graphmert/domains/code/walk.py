"""Find source files: ignore rules, packages, and what is skipped and why."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from graphmert.config import Settings
from graphmert.domains.code.syntax import LANGUAGES
from graphmert.errors import CapabilityError, ConfigError

_PACKAGE_FILES = ("PKG-INFO", "pyproject.toml", "package.json", "pom.xml", "setup.cfg", "setup.py")
_ALWAYS_IGNORED = frozenset(
    {".git", ".hg", ".svn", "node_modules", "__pycache__", ".venv", "venv", ".tox", ".nox"}
    | {".mypy_cache", ".pytest_cache", ".ruff_cache", ".idea", ".vscode", ".eggs"}
)
_TEST_FOLDERS = frozenset({"test", "tests", "__tests__", "spec", "androidTest", "testing"})
_TEST_FILE = re.compile(
    r"^(test_.*|.*_test|conftest)\.pyi?$|.*[.-](test|spec)\.[cm]?[jt]sx?$|.*(Test|Tests|TestCase)\.java$"
)


class WalkSettings(Settings):
    """Which files are read."""

    max_file_mb: float = Field(default=2.0, gt=0)
    """Larger files are skipped."""
    max_line_chars: int = Field(default=5_000, ge=100)
    """A file whose lines are longer than this on average is taken for generated and skipped."""
    tests: bool = True
    """Read tests too."""
    ignore: tuple[str, ...] = ()
    """More patterns to leave out, as in .gitignore."""


@dataclass(frozen=True)
class SourceFile:
    """A file to read.

    Attributes:
        location: where it lies.
        package, version, licence: of the package around it.
        path: within the package, with `/`.
        grammar: for its ending.
        is_test: lies among tests.
    """

    location: str
    package: str
    version: str
    licence: str
    path: str
    grammar: str
    is_test: bool

    @property
    def doc_id(self) -> str:
        """The id of the document."""
        return f"{self.package}/{self.path}"

    @property
    def language(self) -> str:
        """The language: TypeScript for both of its grammars."""
        return "typescript" if self.grammar == "tsx" else self.grammar


@dataclass(frozen=True)
class PackageInfo:
    """A package file's name, version and licence; `main` is for JavaScript."""

    name: str
    version: str = ""
    licence: str = ""
    main: str = ""


@dataclass(frozen=True)
class Walk:
    """What was found.

    Attributes:
        files: in order of package and path.
        skipped: (location, reason) of source files not read, and of package and ignore files
            that could not be read or understood.
        packages: package name -> its package file's content.
    """

    files: tuple[SourceFile, ...]
    skipped: tuple[tuple[str, str], ...]
    packages: dict[str, PackageInfo]


def find_files(paths: Sequence[Path | str], settings: WalkSettings) -> Walk:
    """Find the source files under paths, in an order that does not depend on the file system.

    Raises:
        ConfigError: a path does not exist.
    """
    walker = _Walker(settings)
    for path in paths:
        root = Path(path)
        if not root.exists():
            raise ConfigError("path not found", where=str(root), expected="a file or a folder")
        walker.walk(root)
    return walker.finish()


class _Walker:
    def __init__(self, settings: WalkSettings) -> None:
        self._settings = settings
        self._found: list[tuple[Path, Path, PackageInfo]] = []
        self._skipped: list[tuple[str, str]] = []
        self._seen: set[str] = set()
        self._names: dict[str, Path] = {}
        self._packages: dict[str, PackageInfo] = {}

    def walk(self, root: Path) -> None:
        if root.is_file():
            info = PackageInfo(root.resolve().parent.name or "root")
            self._take(root, root.parent, self._named(info, root.parent))
            return
        info = self._named(PackageInfo(root.resolve().name or "root"), root)
        self._folder(root, root, info, [])

    def finish(self) -> Walk:
        files = []
        for location, folder, info in self._found:
            path = location.relative_to(folder).as_posix()
            is_test = is_test_path(path)
            if is_test and not self._settings.tests:
                self._skipped.append((str(location), "test"))
                continue
            grammar = LANGUAGES[location.suffix.lower()]
            files.append(
                SourceFile(
                    str(location), info.name, info.version, info.licence, path, grammar, is_test
                )
            )
        files.sort(key=lambda one: (one.package, one.path))
        return Walk(tuple(files), tuple(sorted(self._skipped)), self._packages)

    def _folder(
        self, folder: Path, base: Path, info: PackageInfo, rules: list[tuple[Path, Any]]
    ) -> None:
        try:
            entries = sorted(os.scandir(folder), key=lambda one: one.name)
        except OSError as error:
            self._skipped.append((str(folder), f"not readable: {error.strerror}"))
            return
        own = read_package(folder, self._skipped)
        if own is not None:
            base = folder
            info = self._named(own, folder)
        rules = self._rules(rules, folder)
        for entry in entries:
            path = Path(entry.path)
            is_folder = entry.is_dir(follow_symlinks=False)
            if _is_ignored(path, is_folder, rules):
                continue
            if entry.is_symlink():
                if path.suffix.lower() in LANGUAGES or path.is_dir():
                    self._skipped.append((str(path), "symbolic link"))
            elif is_folder:
                if entry.name not in _ALWAYS_IGNORED and not entry.name.endswith(".egg-info"):
                    self._folder(path, base, info, rules)
            elif path.suffix.lower() in LANGUAGES:
                self._take(path, base, info)

    def _take(self, path: Path, base: Path, info: PackageInfo) -> None:
        if path.suffix.lower() not in LANGUAGES:
            self._skipped.append((str(path), "no language for this ending"))
            return
        real = os.path.realpath(path)
        if real in self._seen:
            self._skipped.append((str(path), "named twice"))
            return
        self._seen.add(real)
        self._found.append((path, base, info))

    def _named(self, info: PackageInfo, folder: Path) -> PackageInfo:
        """Return the package under a name no other folder has."""
        name, n = info.name, 1
        real = folder.resolve()
        while self._names.setdefault(name, real) != real:
            n += 1
            name = f"{info.name}~{n}"
        named = PackageInfo(name, info.version, info.licence, info.main)
        self._packages[name] = named
        return named

    def _rules(self, rules: list[tuple[Path, Any]], folder: Path) -> list[tuple[Path, Any]]:
        lines = list(self._settings.ignore) if not rules else []
        try:
            given = _spec(lines) if lines else None
        except ValueError as error:
            raise ConfigError("wrong pattern of files to leave out", got=error) from error
        try:
            lines.extend(_lines_of(folder / ".gitignore"))
            found = _spec(lines) if lines else None
        except OSError as error:
            reason = f"ignore file not readable: {error.strerror}"
            self._skipped.append((str(folder / ".gitignore"), reason))
            found = given
        except ValueError:
            # git passes over such lines too.
            self._skipped.append((str(folder / ".gitignore"), "ignore file has a wrong pattern"))
            found = _spec([one for one in lines if _is_pattern(one)])
        return rules if found is None else [*rules, (folder, found)]


def _lines_of(path: Path) -> list[str]:
    if not path.is_file():
        return []
    return path.read_text(encoding="utf-8", errors="replace").splitlines()


def _is_pattern(line: str) -> bool:
    try:
        _spec([line])
    except ValueError:
        return False
    return True


def _spec(lines: Sequence[str]) -> Any:
    try:
        import pathspec
    except ImportError as error:
        raise CapabilityError(
            "the package that reads .gitignore is not installed",
            got=error,
            fix="Run `pip install 'graphmert[code]'`.",
        ) from error
    return pathspec.GitIgnoreSpec.from_lines(lines)


def _is_ignored(path: Path, is_folder: bool, rules: list[tuple[Path, Any]]) -> bool:
    """The innermost .gitignore that says anything of a path decides."""
    for folder, spec in reversed(rules):
        text = path.relative_to(folder).as_posix() + ("/" if is_folder else "")
        decided = spec.check_file(text).include
        if decided is not None:
            return bool(decided)
    return False


def is_test_path(path: str) -> bool:
    """Return whether a path within a package lies among tests."""
    *folders, name = path.split("/")
    return any(one in _TEST_FOLDERS for one in folders) or bool(_TEST_FILE.match(name))


# --- package files ----------------------------------------------------------------------------


def read_package(folder: Path, skipped: list[tuple[str, str]]) -> PackageInfo | None:
    """Return what the package file of a folder says; None where there is none with a name.

    Args:
        folder: the folder.
        skipped: takes (location, reason) of package files that cannot be read or understood.
    """
    for name in _PACKAGE_FILES:
        path = folder / name
        try:
            if not path.is_file():
                continue
            info = _READERS[name](path.read_text(encoding="utf-8", errors="replace"))
        except OSError as error:
            skipped.append((str(path), f"package file not readable: {error.strerror}"))
            continue
        except (ValueError, RecursionError):
            # The errors of the parsers of TOML and JSON are ValueErrors.
            skipped.append((str(path), "package file not understood"))
            continue
        if info.name:
            return info
    return None


def _table(value: Any) -> dict[str, Any]:
    """Return a table of a package file, empty for none."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError("no table")
    return value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _read_pkg_info(text: str) -> PackageInfo:
    header = text.partition("\n\n")[0]
    values = dict(re.findall(r"^(Name|Version|License|License-Expression): (.+)$", header, re.M))
    licence = values.get("License-Expression") or values.get("License") or ""
    if not licence:
        found = re.search(r"^Classifier: License :: (?:OSI Approved :: )?(.+)$", header, re.M)
        licence = found.group(1) if found else ""
    return PackageInfo(values.get("Name", ""), values.get("Version", ""), licence)


def _read_pyproject(text: str) -> PackageInfo:
    tree = tomllib.loads(text)
    project = _table(tree.get("project")) or _table(_table(tree.get("tool")).get("poetry"))
    licence = project.get("license")
    if isinstance(licence, dict):
        licence = licence.get("text")
    return PackageInfo(_text(project.get("name")), _text(project.get("version")), _text(licence))


def _read_package_json(text: str) -> PackageInfo:
    tree = _table(json.loads(text))
    main = next((tree[k] for k in ("module", "main") if isinstance(tree.get(k), str)), "index")
    licence = tree.get("license")
    if isinstance(licence, dict):
        licence = licence.get("type")
    return PackageInfo(_text(tree.get("name")), _text(tree.get("version")), _text(licence), main)


def _read_pom(text: str) -> PackageInfo:
    # The parent's coordinates come before the project's own and are not meant.
    text = re.sub(r"<parent>.*?</parent>", "", text, flags=re.DOTALL)
    head = text.partition("<dependencies>")[0]
    name = re.search(r"<artifactId>\s*([^<\s]+)", head)
    version = re.search(r"<version>\s*([^<\s]+)", head)
    licence = re.search(r"<license>\s*<name>\s*([^<]+?)\s*</name>", text)
    return PackageInfo(
        name.group(1) if name else "",
        version.group(1) if version else "",
        licence.group(1) if licence else "",
    )


def _read_setup_cfg(text: str) -> PackageInfo:
    values = dict(re.findall(r"^(name|version|license)\s*=\s*(\S.*)$", text, re.M))
    return PackageInfo(values.get("name", ""), values.get("version", ""), values.get("license", ""))


def _read_setup_py(text: str) -> PackageInfo:
    name = re.search(r"\bname\s*=\s*[\"']([\w.\-]+)[\"']", text)
    return PackageInfo(name.group(1) if name else "")


_READERS = {
    "PKG-INFO": _read_pkg_info,
    "pyproject.toml": _read_pyproject,
    "package.json": _read_package_json,
    "pom.xml": _read_pom,
    "setup.cfg": _read_setup_cfg,
    "setup.py": _read_setup_py,
}
