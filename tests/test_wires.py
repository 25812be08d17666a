"""Every wire carries something: what is declared for others to read is read by something.

Wires are the fields of messages and of what ports hand over, the members of ports, and settings.
A field that only trace, page, printing, benchmarks or contract checks read changes no behaviour
and counts as dead. What this test cannot see: a value that is read and then multiplied by 0; a
method called only by dead code; a field whose receiver has no known class (`Any`) counts as read of
every class that declares the name. `tests/attribute_types.py` says how classes are known.
"""

import ast
import functools
import re
import tomllib

from tests.attribute_types import (
    Class,
    Foreign,
    Instance,
    Kind,
    Read,
    Reader,
    reader_of_packages,
)
from tests.sources import HOME, PACKAGES, Offender, parse, require_none

REPORTING = re.compile(
    r"(^|/)(trace|recording|view|report\w*|commands|cli|bench|dashboard|words|contracts|"
    r"check_module|alteration|field_edit)(\.py|/|$)|(^|/)(study|studies)/\w*(report|figures)"
)
"""Files that show, keep, change or check values, and so are no readers that change behaviour."""

PRINTING = re.compile(
    r"(^|/)(view|report\w*|bench|dashboard|words|contracts|check_module)(\.py|/|$)|"
    r"(^|/)(study|studies)/\w*(report|figures)"
)
"""Files that are no readers of settings: commands and recordings do what settings say."""

CHECKING = re.compile(r"(^|/)(bench|contracts|check_module)(\.py|/|$)")
"""Files that call methods only to measure or check them."""

EXEMPT = {
    "ActionSpec.names": "for people: page, words and field edits print them",
    "Energy.disagreement": "the issue on uncertainty trains more than one critic",
    "Recollection.keys": "the issue on memory gives the recollection readers",
    "Recollection.values": "see Recollection.keys",
    "Recollection.weights": "see Recollection.keys",
    "Recollection.ages": "see Recollection.keys",
    "Recollection.value": "see Recollection.keys",
    "Recollection.readout": "see Recollection.keys",
}
"""Wires that may be dead until their issues are done, and why."""


class Wires:
    """The wires of some files, and which of them nothing reads."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.reads: dict[str, list[Read]] = {}
        for read in self.reader.reads:
            self.reads.setdefault(read.name, []).append(read)
        self.settings = [one for one in self.reader.classes if _is_settings(one)]
        self.messages = [one for one in self.reader.classes if _is_message(one)]
        self.ports = [one for one in self.reader.classes if _is_port(one)]
        self.dumped = {
            kind.of
            for read in self.reads.get("model_dump", [])
            # What is dumped elsewhere becomes config.yaml.
            if not read.source.path.startswith("agent/")
            for kind in read.receiver
            if isinstance(kind, Instance)
        }
        """Settings that a module reads as a dictionary."""

    def dead(self) -> list[Offender]:
        """All wires that nothing reads, those of EXEMPT left out."""
        wires = [
            *self._dead_fields(self.messages),
            *self._dead_members(),
            *self._dead_arguments(),
            *self._dead_settings(),
        ]
        unique = {offender.kind: offender for offender in wires}
        return [unique[kind] for kind in sorted(unique) if kind not in EXEMPT]

    # -- fields -----------------------------------------------------------------------------

    def _dead_fields(self, classes: list[Class]) -> list[Offender]:
        return [
            _offender(one, name, annotation.lineno)
            for one in classes
            for name, annotation in one.fields.items()
            if not name.startswith("_") and name != "model_config"
            if not self._is_read(one, name)
        ]

    def _is_read(self, one: Class, name: str, seen: frozenset[str] = frozenset()) -> bool:
        """Whether code that is no report reads a field, itself or by a method that is read."""
        for read in self.reads.get(name, []):
            idle = PRINTING if one in self.settings else REPORTING
            # What a benchmark declares is for itself to read.
            is_idle = idle.search(read.source.path) and not CHECKING.search(one.source.path)
            if is_idle or not self._may_be(read, one, field=True):
                continue
            if not _within(read, one):
                return True
            method = read.method
            if method.startswith("__") or (
                method not in seen and self._is_called(one, method, seen | {method})
            ):
                return True
        return False

    def _is_called(self, one: Class, name: str, seen: frozenset[str]) -> bool:
        """Whether a method is read outside of its class or by another method that is."""
        for read in self.reads.get(name, []):
            if CHECKING.search(read.source.path) or not self._may_be(read, one, field=False):
                continue
            if not _within(read, one) or read.method.startswith("__"):
                return True
            if read.method not in seen and self._is_called(one, read.method, seen | {read.method}):
                return True
        return False

    def _may_be(self, read: Read, one: Class, field: bool) -> bool:
        """Whether what is read may be of a class: it is, derives from it, or is unknown."""
        kinds = [kind.of for kind in read.receiver if isinstance(kind, Instance | Kind)]
        if not kinds:
            # Of what is unknown, `.keys()` is the method of a dictionary and no field.
            called = field and read.arguments is not None
            return not called and not any(isinstance(kind, Foreign) for kind in read.receiver)
        return any(
            one in kind.lineage() or kind in one.lineage() or self._fulfils(kind, one)
            for kind in kinds
        )

    @staticmethod
    def _fulfils(kind: Class, port: Class) -> bool:
        """Whether a class has all methods of a protocol without deriving from it."""
        methods = set(port.methods)
        return (
            port.is_a("Protocol")
            and bool(methods)
            and methods <= {name for one in kind.lineage() for name in one.methods}
        )

    # -- ports ------------------------------------------------------------------------------

    def _dead_members(self) -> list[Offender]:
        dead = self._dead_fields(self.ports)
        for port in self.ports:
            for name, node in port.methods.items():
                if name.startswith("__"):
                    continue
                if not any(
                    not CHECKING.search(read.source.path) and self._may_be(read, port, field=False)
                    and not (read.within and self._fulfils(read.within, port)
                             and read.method == name)
                    for read in self.reads.get(name, [])
                ):  # fmt: skip
                    dead.append(_offender(port, name, node.lineno))
        return dead

    def _dead_arguments(self) -> list[Offender]:
        """Arguments with a default, of methods of ports, that no call gives."""
        dead = []
        for port in self.ports:
            for name, node in port.methods.items():
                places = [argument.arg for argument in node.args.args]
                optional = places[len(places) - len(node.args.defaults) :]
                dead += [
                    _offender(port, f"{name}({argument})", node.lineno)
                    for argument in optional
                    if not any(
                        self._may_be(read, port, field=False)
                        and read.arguments is not None
                        and _gives(read, argument, places.index(argument) - 1)
                        for read in self.reads.get(name, [])
                        if not CHECKING.search(read.source.path)
                    )
                ]
        return dead

    # -- settings ---------------------------------------------------------------------------

    def _dead_settings(self) -> list[Offender]:
        return [
            _offender(one, name, annotation.lineno)
            for one in self.settings
            for name, annotation in one.fields.items()
            if name not in ("kind", "model_config")  # the kind chooses the class
            if not self._is_read(one, name)
            if one not in self.dumped
            if not any(self._uses(owner, name) for owner in self._takers(one))
        ]

    def _takers(self, settings: Class) -> list[Class]:
        """The classes constructed from settings: those they are nested in, or that take all of
        them by name.
        """
        derived = [one for one in self.settings if settings in one.lineage()]
        owners = [one.outer for one in derived if one.outer is not None]
        heirs = [one for one in self.reader.classes if any(o in one.lineage() for o in owners)]
        if settings.outer is None:
            names = {name for name in settings.fields if name != "model_config"}
            heirs += [
                one
                for one in self.reader.classes
                if "__init__" in one.methods and names <= set(_parameters(one.methods["__init__"]))
            ]
        return heirs

    def _uses(self, one: Class, name: str) -> bool:
        """Whether the constructor of a class takes a setting and something comes of it."""
        for at, holder in enumerate(line := one.lineage()):
            if (node := holder.methods.get("__init__")) is None:
                continue
            if name not in _parameters(node):
                return False
            return self._reaches(node, name, line[at:])
        return False

    def _reaches(self, node: ast.FunctionDef, name: str, line: list[Class]) -> bool:
        stores, passed = set[str](), set[int]()
        for part in ast.walk(node):
            for target, value in _pairs(part):
                if (
                    isinstance(target, ast.Attribute)
                    and isinstance(value, ast.Name)
                    and value.id == name
                ):
                    stores.add(target.attr)
                    passed.add(id(value))
            if isinstance(part, ast.Call) and ast.unparse(part.func) == "super().__init__":
                for keyword in part.keywords:
                    if isinstance(keyword.value, ast.Name) and keyword.value.id == name:
                        passed.add(id(keyword.value))
                        for at, base in enumerate(line[1:], 1):
                            if above := base.methods.get("__init__"):
                                if self._reaches(above, keyword.arg or "", line[at:]):
                                    return True
                                break
        if any(self._is_kept_and_read(line[0], attribute) for attribute in stores):
            return True
        return any(
            isinstance(part, ast.Name)
            and isinstance(part.ctx, ast.Load)
            and part.id == name
            and id(part) not in passed
            for part in ast.walk(node)
        )

    def _is_kept_and_read(self, one: Class, attribute: str) -> bool:
        return any(
            not REPORTING.search(read.source.path) and self._may_be(read, one, field=True)
            for read in self.reads.get(attribute, [])
        )


def _parameters(node: ast.FunctionDef) -> list[str]:
    return [argument.arg for argument in [*node.args.args, *node.args.kwonlyargs]]


def _pairs(node: ast.AST) -> list[tuple[ast.expr, ast.expr]]:
    """Targets and values of an assignment, those of tuples side by side."""
    if not isinstance(node, ast.Assign):
        return []
    pairs = []
    for target in node.targets:
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            pairs += list(zip(target.elts, node.value.elts, strict=False))
        else:
            pairs.append((target, node.value))
    return pairs


def _gives(read: Read, argument: str, place: int) -> bool:
    """Whether a call gives an argument of its own and does not only hand on its default."""
    call = read.arguments
    assert call is not None
    values = [keyword.value for keyword in call.keywords if keyword.arg in (argument, None)]
    if any(isinstance(value, ast.Starred) for value in call.args):
        return True
    if place < len(call.args):
        values.append(call.args[place])
    own = read.within.methods.get(read.method) if read.within else None
    defaulted = _parameters(own)[-len(own.args.defaults) :] if own and own.args.defaults else []
    return any(
        not (isinstance(value, ast.Name) and value.id == argument and argument in defaulted)
        for value in values
    )


def _within(read: Read, one: Class) -> bool:
    return read.within is not None and (read.within is one or read.within.outer is one)


def _offender(one: Class, name: str, line: int) -> Offender:
    owner = f"{one.outer.node.name}." if one.outer is not None else ""
    return Offender(f"{one.source.path}:{line}", f"{owner}{one.node.name}.{name}")


def _is_model(one: Class) -> bool:
    return one.is_a("BaseModel")


def _is_settings(one: Class) -> bool:
    """Each `Config`, all models by the name of settings, and the models that modules nest."""
    named = one.node.name == "Config" or one.node.name.endswith("Settings")
    inside = one.source.module.startswith("modules.") and not _speaks(one)
    return _is_model(one) and (named or inside)


def _is_message(one: Class) -> bool:
    """Each subclass of Message, and the models that stand in the same file or package."""
    return _is_model(one) and _speaks(one) and one.node.name != "Message"


def _speaks(one: Class) -> bool:
    derived = any(base.node.name == "Message" for base in one.lineage())
    return derived or ".messages" in f".{one.source.module}"


def _is_port(one: Class) -> bool:
    """The protocols of `modules.ports`, and the named tuples that they hand over."""
    inside = "ports" in one.source.module.split(".")
    return inside and (one.is_a("Protocol") or one.is_a("NamedTuple"))


@functools.cache
def _wires() -> Wires:
    return Wires(reader_of_packages())


def dead_markers() -> list[Offender]:
    """Markers of pytest that no test carries."""
    declared = tomllib.loads((HOME / "pyproject.toml").read_text(encoding="utf-8"))
    markers = declared["tool"]["pytest"]["ini_options"].get("markers", [])
    tests = [path.read_text(encoding="utf-8") for path in sorted((HOME / "tests").rglob("*.py"))]
    names = [marker.split(":")[0].strip() for marker in markers]
    return [
        Offender("pyproject.toml", f"marker {name}")
        for name in names
        if not any(re.search(rf"\bmark\.{name}\b", text) for text in tests)
    ]


def test_every_wire_is_read():
    require_none([*_wires().dead(), *dead_markers()])


def test_messages_ports_and_settings_are_recognised_wherever_they_lie():
    wires = _wires()
    assert {"Situation", "Directive", "WorldSpec"} <= {one.node.name for one in wires.messages}
    assert {"World", "Actor", "Futures"} <= {one.node.name for one in wires.ports}
    assert len(wires.settings) > 30
    assert {one.source.path.split("/")[0] for one in wires.settings} <= set(PACKAGES)


EXAMPLE = {
    "modules/messages.py": """
from pydantic import BaseModel
class Message(BaseModel): ...
class Hope(Message):
    bright: int
    dim: int
    shown: int
    inner: int
    weights: int
    lonely: int
    def glow(self) -> int:
        return self.inner
    def unused(self) -> int:
        return self.lonely
class Other(Message):
    weights: int
    hope: Hope
""",
    "modules/ports.py": """
from typing import NamedTuple, Protocol
from modules.messages import Hope, Other
class Pair(NamedTuple):
    left: int
    right: int
class Port(Protocol):
    def hoped(self, other: Other, z: int | None = None) -> Hope: ...
    def idle(self) -> Pair: ...
    def pair(self) -> list[Pair]: ...
""",
    "modules/thing.py": """
from pydantic import BaseModel
from modules.ports import Port
class Thing:
    class Config(BaseModel):
        used: int = 1
        stored: int = 2
        ignored: int = 3
        handed: int = 4
    def __init__(self, *, used: int, stored: int, ignored: int) -> None:
        self.used, self.stored = used + 1, stored
class Taker:
    class Config(BaseModel):
        read: int = 1
        unread: int = 2
    def __init__(self, config: Config) -> None:
        self.config = config
    def live(self, port: Port, other) -> int:
        hope = port.hoped(other, None)
        for left, _ in port.pair():
            print(left)
        return hope.bright + hope.glow() + self.config.read + port.hoped(other).bright + (
            other.hope.weights
        )
""",
    "agent/view/page.py": """
from modules.messages import Hope
def show(hope: Hope) -> int:
    return hope.shown
""",
}


def _dead_in(files: dict[str, str]) -> set[str]:
    parsed = tuple(parse(text, path) for path, text in files.items())
    return {offender.kind for offender in Wires(Reader(parsed)).dead()}


DEAD = {
    "Hope.dim", "Hope.shown", "Hope.lonely", "Other.weights", "Pair.right", "Port.idle",
    "Thing.Config.stored", "Thing.Config.ignored", "Thing.Config.handed", "Taker.Config.unread",
}  # fmt: skip


def test_a_dead_wire_is_noticed():
    assert _dead_in(EXAMPLE) == DEAD


def test_an_argument_that_no_call_gives_is_noticed():
    thing = EXAMPLE["modules/thing.py"].replace("(other, None)", "(other)")
    assert _dead_in({**EXAMPLE, "modules/thing.py": thing}) == {*DEAD, "Port.hoped(z)"}


def test_a_reader_revives_a_wire():
    reader = "from modules.messages import Hope\ndef f(hope: Hope) -> int:\n    return hope.shown\n"
    assert _dead_in({**EXAMPLE, "modules/reader.py": reader}) == DEAD - {"Hope.shown"}
