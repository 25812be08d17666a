"""Parses every Python file of the packages once, for the tests that read the code itself."""

import ast
import functools
import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

HOME = Path(__file__).parent.parent
PACKAGES = ("agent", "modules", "worlds")

Docstrings = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """One parsed file; `path` is relative to the repository, `module` its dotted name."""

    path: str
    module: str
    text: str
    tree: ast.Module


@functools.cache
def sources(folders: tuple[str, ...] = PACKAGES) -> tuple[Source, ...]:
    """All files of `folders`, wherever they lie in them."""
    return tuple(
        parse(path.read_text(encoding="utf-8"), path.relative_to(HOME).as_posix())
        for folder in folders
        for path in sorted((HOME / folder).rglob("*.py"))
    )


def parse(text: str, path: str) -> Source:
    """The text of a file, parsed."""
    parts = Path(path).with_suffix("").parts
    module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return Source(path, module, text, ast.parse(text, path))


def docstrings(tree: ast.Module) -> Iterator[ast.Constant]:
    """Strings that document: those that stand first in a body, and those after an assignment."""
    for node in ast.walk(tree):
        for statement in getattr(node, "body", []) if isinstance(node, Docstrings) else []:
            if (
                isinstance(statement, ast.Expr)
                and isinstance(statement.value, ast.Constant)
                and isinstance(statement.value.value, str)
            ):
                yield statement.value


def strings(tree: ast.Module) -> Iterator[ast.Constant]:
    """All string literals, docstrings and the fixed parts of f-strings included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node


def comments(text: str) -> Iterator[tuple[int, str]]:
    """Line and text of each comment."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


class Offender(NamedTuple):
    """A place where code breaks a rule of the house, `path:line`, and what stands there."""

    where: str
    kind: str

    def __str__(self) -> str:
        return f"{self.where} {self.kind}"


def require_none(offenders: list[Offender]) -> None:
    """Fails with a line for each offender."""
    assert not offenders, "\n".join(map(str, offenders))
