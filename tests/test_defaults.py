"""A default stands once, in the `Config`: constructors take what they are given.

Counted: arguments of `__init__` with a default of their own, in a class that has a `Config` (its
own or inherited), where the `Config` has a field of that name; the same in classes that take all
fields of a settings model by name; and arguments of any constructor that repeat name and default of
a setting in a `…Settings` model.
"""

import ast
import functools

from tests.attribute_types import Class, Reader, reader_of_packages
from tests.sources import Offender, parse, require_none


def defaulted(node: ast.FunctionDef) -> list[tuple[str, int, str]]:
    """Name, line and default of each argument of a function that has a default."""
    places = [*node.args.posonlyargs, *node.args.args]
    late = places[len(places) - len(node.args.defaults) :]
    pairs = [
        *zip(late, node.args.defaults, strict=True),
        *zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True),
    ]
    return [
        (argument.arg, argument.lineno, ast.unparse(default))
        for argument, default in pairs
        if default is not None
    ]


def config_of(one: Class) -> Class | None:
    """The nearest `Config` among a class and its bases."""
    for holder in one.lineage():
        if "Config" in holder.nested:
            return holder.nested["Config"]
    return None


def fields_of(config: Class) -> set[str]:
    """The fields of a model, those of its bases included."""
    return {name for one in config.lineage() for name in one.fields} - {"model_config"}


def defaults_of(config: Class) -> set[tuple[str, str]]:
    """Name and default of each field of a model, where that is neither None nor empty."""
    pairs = set()
    for statement in config.node.body:
        if isinstance(statement, ast.AnnAssign) and statement.value is not None:
            value = statement.value
            if isinstance(value, ast.Call) and ast.unparse(value.func) == "Field":
                named = [word.value for word in value.keywords if word.arg == "default"]
                value = [*value.args, *named, ast.Constant(None)][0]
            pairs.add((ast.unparse(statement.target), ast.unparse(value)))
    return {(name, default) for name, default in pairs if default not in ("None", "()")}


def doubled_defaults(reader: Reader) -> list[Offender]:
    """Arguments of constructors that give a setting a second default."""
    classes = reader.classes
    heirs = {
        one: {name for heir in classes if one in heir.lineage() if (config := config_of(heir))
              for name in fields_of(config)}
        for one in classes
        if "__init__" in one.methods
    }  # fmt: skip
    models = [fields_of(one) for one in classes if one.is_a("BaseModel") and one.outer is None]
    settings = [
        one for one in classes if one.is_a("BaseModel") and one.node.name[-8:] == "Settings"
    ]
    repeated = {pair for one in settings for pair in defaults_of(one)}
    offenders = []
    for one, fields in heirs.items():
        node = one.methods["__init__"]
        parameters = {argument.arg for argument in [*node.args.args, *node.args.kwonlyargs]}
        for model in models:
            if len(model) > 1 and model <= parameters:
                fields |= model
        offenders += [
            Offender(f"{one.source.path}:{line}", f"{one.node.name}({name})")
            for name, line, default in defaulted(node)
            if name in fields or (name, default) in repeated
        ]
    return offenders


@functools.cache
def _of_the_packages() -> list[Offender]:
    return doubled_defaults(reader_of_packages())


def test_no_default_stands_twice():
    require_none(_of_the_packages())


EXAMPLE = """
from pydantic import BaseModel
class Shared(BaseModel):
    a: int = 1
    b: int = 2
class Base:
    def __init__(self, *, depth: int = 1, free: int = 0) -> None: ...
class Owner(Base):
    class Config(Shared):
        width: int = 3
        depth: int = 1
    def __init__(self, width: int = 3, *, a: int = 1, world: int = 0, b: int) -> None: ...
class Heir(Owner):
    def __init__(self, depth: int = 2) -> None: ...
class Taker:
    def __init__(self, *, a: int, b: int = 2) -> None: ...
class Stranger:
    def __init__(self, *, width: int = 3) -> None: ...
class RunSettings(BaseModel):
    discount: float = Field(default=0.99, gt=0)
    seed: int = 0
    world: str
class Agent:
    def __init__(self, discount: float = 0.99, seed: int = 1) -> None: ...
"""


def test_a_second_default_is_noticed():
    reader = Reader((parse(EXAMPLE, "example.py"),))
    counted = {offender.kind for offender in doubled_defaults(reader)}
    assert counted == {
        "Base(depth)",
        "Owner(width)",
        "Owner(a)",
        "Heir(depth)",
        "Taker(b)",
        "Agent(discount)",
    }
