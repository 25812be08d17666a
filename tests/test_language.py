"""Names and prose use the terms of the field, as README and `docs/ARCHITECTURE.md` do.

Names are compared as whole names, leading underscores and case ignored.
"""

import ast
import re
from collections.abc import Iterator

from tests.sources import (
    PACKAGES,
    Offender,
    Source,
    comments,
    docstrings,
    parse,
    require_none,
    sources,
    strings,
)

READ = (*PACKAGES, "examples")
"""Folders whose files a user reads."""

NAMES = frozenset(
    ("said", "felt", "found", "made", "told", "heard", "wanted", "given", "kept", "lived", "asked")
)
"""Participles that say nothing of what the named thing is."""

PRONOUNS = re.compile(r"\b(whoever|whatever|somebody|nobody|anyone)\b", re.IGNORECASE)
"""Each of these hides the name of a class."""

PRIVATE = re.compile(r"\b(felt|told|heard|foretold|toll|lived|word for)\b", re.IGNORECASE)
"""Words of version 0.1 for which the field has terms."""


def names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of all that code names: variables, attributes, arguments, functions, …"""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                yield node.lineno, name
            case ast.Attribute(attr=name):
                yield node.end_lineno or node.lineno, name
            case ast.arg(arg=name) | ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield node.lineno, name
            case ast.AsyncFunctionDef(name=name):
                yield node.lineno, name
            case ast.keyword(arg=str(name)):
                yield node.lineno, name
            case ast.Global(names=several) | ast.Nonlocal(names=several):
                yield from ((node.lineno, name) for name in several)
            case ast.ExceptHandler(name=str(name)):
                yield node.lineno, name
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield node.lineno, name
            case ast.MatchMapping(rest=str(name)):
                yield node.lineno, name
            case ast.MatchClass(kwd_attrs=several):
                yield from ((node.lineno, name) for name in several)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                for alias in aliases:
                    if alias.asname is not None:
                        yield node.lineno, alias.asname


def words_in_names(files: tuple[Source, ...]) -> list[Offender]:
    """All names that are one of NAMES."""
    return [
        Offender(f"{source.path}:{line}", name.lower().strip("_"))
        for source in files
        for line, name in sorted(names(source.tree))
        if name.lower().strip("_") in NAMES
    ]


def _matches(pattern: re.Pattern[str], path: str, first: int, text: str) -> Iterator[Offender]:
    for match in pattern.finditer(text):
        line = first + text.count("\n", 0, match.start())
        yield Offender(f"{path}:{line}", match.group().lower())


def words_in_prose(
    files: tuple[Source, ...], pattern: re.Pattern[str], literals: bool
) -> list[Offender]:
    """All matches in docstrings and comments and, with `literals`, in other strings too."""
    offenders = []
    for source in files:
        texts = strings(source.tree) if literals else docstrings(source.tree)
        for constant in texts:
            offenders += _matches(pattern, source.path, constant.lineno, constant.value)
        for line, text in comments(source.text):
            offenders += _matches(pattern, source.path, line, text)
    return offenders


OLD_NAMES = "agent/recording/renames.py"
"""The table of the names of version 0.1."""


def test_names_say_what_the_named_thing_is():
    require_none(words_in_names(sources(READ)))


def test_no_pronoun_hides_the_name_of_a_class():
    require_none(words_in_prose(sources(READ), PRONOUNS, literals=False))


def test_prose_has_no_private_words():
    files = tuple(source for source in sources(READ) if source.path != OLD_NAMES)
    require_none(words_in_prose(files, PRIVATE, literals=True))


EXAMPLE = '''"""What somebody said."""
import json as told
from json import loads

given = 3
"""Nobody changes it."""


class Felt:
    """Whoever reads this."""

    _made: int = 0

    def heard(self, asked, *, Wanted=0, **kept):  # whatever
        """Anyone."""
        global found
        try:
            found = self._lived(said=1)
        except ValueError as _said:
            print(_said.__told__)
        match asked:
            case {"x": 1, **wanted}:
                return "what was felt"
            case [made, *lived]:
                return f"{given} was told"
'''


def test_every_sort_of_name_and_of_prose_is_read():
    example = (parse(EXAMPLE, "example.py"),)
    counted = sorted(offender.kind for offender in words_in_names(example))
    once = {"asked", "felt", "given", "heard", "kept"}
    assert counted == sorted([*once, *2 * ["found", "lived", "made", "said", "told", "wanted"]])
    prose = words_in_prose(example, PRONOUNS, literals=False)
    assert [str(offender) for offender in prose] == [
        "example.py:1 somebody",
        "example.py:6 nobody",
        "example.py:10 whoever",
        "example.py:15 anyone",
        "example.py:14 whatever",
    ]
    literals = words_in_prose(example, PRIVATE, literals=True)
    assert sorted(offender.kind for offender in literals) == ["felt", "told"]
