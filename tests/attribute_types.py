"""Which class an attribute is read of, by the annotations that mypy demands everywhere.

`Reader` walks all files once and keeps a `Read` for every attribute that is loaded, with the
classes its receiver may have. It follows annotations of arguments, fields and results, assignments,
loops, comprehensions and unpacking. It knows no flow of control: a name has the union of all that
is assigned to it in a function. What it cannot follow (`Any`, libraries, type variables) has an
unknown receiver, unless the receiver's own name is that of one field or class, as in
`anything.recollection.weights`.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.sources import Source, sources


@dataclass(eq=False)
class Class:
    """A class of ours: `name` is dotted from its module on."""

    name: str
    source: Source
    node: ast.ClassDef
    outer: Class | None
    bases: list[Class] = field(default_factory=list)
    outside: set[str] = field(default_factory=set)
    """Names of bases that are not ours: BaseModel, Protocol, NamedTuple."""
    fields: dict[str, ast.expr] = field(default_factory=dict)
    methods: dict[str, ast.FunctionDef] = field(default_factory=dict)
    nested: dict[str, Class] = field(default_factory=dict)
    assigned: dict[str, Type] = field(default_factory=dict)

    def lineage(self) -> list[Class]:
        """Itself and all bases, the nearest first."""
        line = [self]
        for base in self.bases:
            line += [one for one in base.lineage() if one not in line]
        return line

    def is_a(self, outside: str) -> bool:
        """Whether it, or a base, derives directly from a class of a library by that name."""
        return any(outside in one.outside for one in self.lineage())


@dataclass(frozen=True)
class Instance:
    """A value of a class of ours."""

    of: Class


@dataclass(frozen=True)
class Kind:
    """A class of ours itself."""

    of: Class


@dataclass(frozen=True)
class Method:
    """A function of ours, bound to the classes it was looked up in."""

    node: ast.FunctionDef
    source: Source
    owner: Class | None
    receiver: Class | None


@dataclass(frozen=True)
class Many:
    """A container: what iterating it gives, and what its values are where it is a mapping."""

    item: Type
    value: Type = frozenset()


@dataclass(frozen=True)
class Fixed:
    """A tuple of known length."""

    items: tuple[Type, ...]


@dataclass(frozen=True)
class Foreign:
    """Something that is certainly of no class of ours: a number, text, a tensor."""


Type = frozenset[Instance | Kind | Method | Many | Fixed | Foreign]
"""All that a value may be; empty: unknown."""
UNKNOWN: Type = frozenset()
FOREIGN: Type = frozenset({Foreign()})
Scope = dict[str, Type]

UNTYPED = {"Any", "object", "Self", "Callable"}
CONTAINERS = {"list", "Sequence", "Iterator", "Iterable", "set", "frozenset", "deque", "Collection"}
MAPPINGS = {"dict", "Mapping", "defaultdict", "OrderedDict", "MutableMapping"}
PASSING = {"list", "tuple", "reversed", "sorted", "set", "iter", "frozenset", "deepcopy", "copy",
           "replace", "deque"}  # fmt: skip
"""Functions whose result is of the kind of their first argument, as far as attributes go."""
GROWING = {"append", "appendleft", "add", "extend"}
"""Methods that put what they are given into a container."""
MAKERS = {"model_copy", "model_validate", "model_construct", "_replace"}
"""Methods of libraries' classes that give another instance of the class they are called on."""


@dataclass(frozen=True)
class Read:
    """One load of an attribute: its name, its receiver and where it stands.

    `within` is the class around it, `method` the function of that class; `called` tells whether
    the attribute is called at once, and `arguments` how.
    """

    name: str
    receiver: Type
    source: Source
    line: int
    within: Class | None
    method: str
    arguments: ast.Call | None


class Reader:
    """All classes of some files, and all reads of attributes in them."""

    def __init__(self, files: Iterable[Source]) -> None:
        self.files = tuple(files)
        self.classes: list[Class] = []
        self.reads: list[Read] = []
        self._modules: dict[str, Scope] = {}
        self._imports: dict[str, dict[str, tuple[str, str]]] = {}
        self._around: tuple[Class | None, ast.FunctionDef | None] = (None, None)
        self._recording = False
        for source in self.files:
            self._declare(source)
        for one in self.classes:
            self._derive(one)
        self._by_field = self._hints()
        # Twice, since what methods assign to `self` may rest on what others assign.
        for self._recording in (False, False, True):
            for source in self.files:
                self._module(source)

    # -- declarations -----------------------------------------------------------------------

    def _declare(self, source: Source) -> None:
        scope: Scope = {}
        imports: dict[str, tuple[str, str]] = {}
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    imports[alias.asname or alias.name] = (node.module or "", alias.name)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    imports[alias.asname or alias.name] = (alias.name, "")
        for node in source.tree.body:
            if isinstance(node, ast.ClassDef):
                scope[node.name] = frozenset({Kind(self._class(node, source, None))})
            elif isinstance(node, ast.FunctionDef):
                scope[node.name] = frozenset({Method(node, source, None, None)})
            for target in getattr(node, "targets", [getattr(node, "target", None)]):
                if isinstance(target, ast.Name):
                    scope[target.id] = UNKNOWN
        self._modules[source.module], self._imports[source.module] = scope, imports

    def _class(self, node: ast.ClassDef, source: Source, outer: Class | None) -> Class:
        above = outer.name if outer else source.module
        one = Class(f"{above}.{node.name}", source, node, outer)
        self.classes.append(one)
        for statement in node.body:
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                one.fields[statement.target.id] = statement.annotation
            elif isinstance(statement, ast.FunctionDef):
                one.methods[statement.name] = statement
            elif isinstance(statement, ast.ClassDef):
                one.nested[statement.name] = self._class(statement, source, one)
        return one

    def _derive(self, one: Class) -> None:
        for base in one.node.bases:
            base = base.value if isinstance(base, ast.Subscript) else base
            kinds = [kind.of for kind in self._named(base, one.source, one.outer) if
                     isinstance(kind, Kind)]  # fmt: skip
            one.bases += kinds
            if not kinds:
                one.outside.add(ast.unparse(base).split(".")[-1])

    def _lookup(self, name: str, source: Source, within: Class | None) -> Type:
        """What a name means in a file, inside a class."""
        while within is not None:
            for one in within.lineage():
                if name in one.nested:
                    return frozenset({Kind(one.nested[name])})
            if within.node.name == name:
                return frozenset({Kind(within)})
            within = within.outer
        return self._exported(source.module, name)

    def _exported(self, module: str, name: str, seen: frozenset[str] = frozenset()) -> Type:
        scope = self._modules.get(module)
        if scope is None or module in seen:
            return UNKNOWN
        if name in scope:
            return scope[name]
        if name in self._imports[module]:
            there, what = self._imports[module][name]
            return self._exported(there, what, seen | {module})
        return UNKNOWN

    def _named(self, node: ast.expr, source: Source, within: Class | None) -> Type:
        """What a dotted name means, without an instance in it."""
        if isinstance(node, ast.Name):
            return self._lookup(node.id, source, within)
        if isinstance(node, ast.Attribute):
            if isinstance(node.value, ast.Name):
                module, what = self._imports[source.module].get(node.value.id, ("", ""))
                dotted = f"{module}.{what}".strip(".")
                if dotted in self._modules:
                    return self._exported(dotted, node.attr)
            holder = self._named(node.value, source, within)
            return frozenset(
                Kind(one.nested[node.attr])
                for kind in holder
                if isinstance(kind, Kind)
                for one in kind.of.lineage()
                if node.attr in one.nested
            )
        return UNKNOWN

    def _hints(self) -> dict[str, Type]:
        """Types by the name of a field, where all fields of a name have one class of ours."""
        types: dict[str, set[Type]] = {}
        for one in self.classes:
            for name, annotation in one.fields.items():
                meant = self.annotated(annotation, one.source, one)
                ours = frozenset(kind for kind in meant if isinstance(kind, Instance))
                types.setdefault(name, set()).add(ours)
        return {name: next(iter(several)) for name, several in types.items() if len(several) == 1}

    # -- annotations ------------------------------------------------------------------------

    def annotated(self, node: ast.expr | None, source: Source, within: Class | None) -> Type:
        """What values an annotation stands for."""
        if node is None:
            return UNKNOWN
        if isinstance(node, ast.Constant):
            if isinstance(node.value, str):
                try:
                    return self.annotated(ast.parse(node.value, mode="eval").body, source, within)
                except SyntaxError:
                    return UNKNOWN
            return FOREIGN
        if isinstance(node, ast.BinOp):
            sides = [self.annotated(side, source, within) for side in (node.left, node.right)]
            return UNKNOWN if UNKNOWN in sides else sides[0] | sides[1]
        if isinstance(node, ast.Subscript):
            return self._generic(node, source, within)
        name = ast.unparse(node).split(".")[-1]
        if name == "Self" and within is not None:
            return frozenset({Instance(within)})
        if name in UNTYPED:
            return UNKNOWN
        meant = self._named(node, source, within)
        ours = frozenset(Instance(kind.of) for kind in meant if isinstance(kind, Kind))
        if ours or not isinstance(node, ast.Name):
            return ours or FOREIGN
        if name in self._modules[source.module]:
            return UNKNOWN  # an alias or a type variable
        module = self._imports[source.module].get(name, ("", ""))[0]
        return UNKNOWN if module in self._modules else FOREIGN

    def _generic(self, node: ast.Subscript, source: Source, within: Class | None) -> Type:
        name = ast.unparse(node.value).split(".")[-1]
        inner = node.slice
        parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
        if name in ("Annotated", "Optional", "ClassVar", "Final"):
            return self.annotated(parts[0], source, within)
        if name == "type":
            meant = self.annotated(parts[0], source, within)
            return frozenset(Kind(kind.of) for kind in meant if isinstance(kind, Instance))
        if name == "tuple" and not (len(parts) == 2 and ast.unparse(parts[1]) == "..."):
            return frozenset({Fixed(tuple(self.annotated(p, source, within) for p in parts))})
        if name in CONTAINERS | {"tuple", "Generator"}:
            return frozenset({Many(self.annotated(parts[0], source, within))})
        if name in MAPPINGS:
            return frozenset(
                {Many(self.annotated(parts[0], source, within),
                      self.annotated(parts[-1], source, within))}
            )  # fmt: skip
        if name in UNTYPED | {"Union"}:
            return UNKNOWN
        meant = self.annotated(node.value, source, within)
        return meant

    # -- members ----------------------------------------------------------------------------

    def member(self, kind: Instance | Kind, name: str) -> Type:
        """What an attribute of a class of ours, or of its values, is."""
        for one in kind.of.lineage():
            if name in one.nested:
                return frozenset({Kind(one.nested[name])})
            if name in one.methods:
                node = one.methods[name]
                marks = {ast.unparse(mark).split(".")[-1] for mark in node.decorator_list}
                if marks & {"property", "cached_property"}:
                    return self._result(Method(node, one.source, one, kind.of))
                return frozenset({Method(node, one.source, one, kind.of)})
            if name in one.fields:
                return self.annotated(one.fields[name], one.source, one)
            if name in one.assigned:
                return one.assigned[name]
        if name in MAKERS:
            return frozenset({Kind(kind.of)})  # calling it gives an instance
        return UNKNOWN

    def _result(self, method: Method) -> Type:
        returns = method.node.returns
        if returns is not None and ast.unparse(returns).strip("'\"") == "Self":
            return frozenset({Instance(method.receiver)}) if method.receiver else UNKNOWN
        return self.annotated(returns, method.source, method.owner)

    # -- the walk ---------------------------------------------------------------------------

    def _module(self, source: Source) -> None:
        scope = self._modules[source.module]
        self._around, self._source = (None, None), source
        for statement in source.tree.body:
            self._statement(statement, scope)

    def _function(self, node: ast.FunctionDef, scope: Scope) -> None:
        within, _ = outer = self._around
        in_class = within is not None and node in within.node.body
        own: Scope = {} if in_class else {n: t for n, t in scope.items()}
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        for argument in arguments:
            own[argument.arg] = self.annotated(argument.annotation, self._source, within)
        for argument in (node.args.vararg, node.args.kwarg):
            if argument is not None:
                meant = self.annotated(argument.annotation, self._source, within)
                own[argument.arg] = frozenset({Many(UNKNOWN if argument is node.args.kwarg
                                                    else meant, meant)})  # fmt: skip
        if in_class and arguments:
            marks = {ast.unparse(mark) for mark in node.decorator_list}
            if "classmethod" in marks:
                own[arguments[0].arg] = frozenset({Kind(within)})
            elif "staticmethod" not in marks:
                own[arguments[0].arg] = frozenset({Instance(within)})
        for default in [*node.args.defaults, *node.args.kw_defaults]:
            if default is not None:
                self._value(default, scope)
        if in_class:
            self._around = (within, node)
        for statement in node.body:
            self._statement(statement, own)
        self._around = outer

    def _statement(self, node: ast.stmt, scope: Scope) -> None:
        match node:
            case ast.ClassDef():
                for expression in [*node.bases, *node.decorator_list]:
                    self._value(expression, scope)
                outer = self._around
                known = [one for one in self.classes if one.node is node]
                self._around = (known[0] if known else outer[0], None)
                inner = dict[str, Type]()
                for statement in node.body:
                    self._statement(statement, inner)
                self._around = outer
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                for mark in node.decorator_list:
                    self._value(mark, scope)
                self._function(node, scope)
            case ast.Assign(targets=targets, value=value):
                meant = self._value(value, scope)
                for target in targets:
                    self._bind(target, meant, scope)
            case ast.AnnAssign(target=target, annotation=annotation, value=value):
                if value is not None:
                    self._value(value, scope)
                self._bind(target, self.annotated(annotation, self._source, self._around[0]), scope)
            case ast.AugAssign(target=target, value=value):
                self._value(value, scope)
                if isinstance(target, ast.Attribute | ast.Subscript):
                    self._value(target.value, scope)
            case ast.For(target=target, iter=iterated):
                self._bind(target, self._item(self._value(iterated, scope)), scope)
                for statement in [*node.body, *node.orelse]:
                    self._statement(statement, scope)
            case ast.With(items=items):
                for item in items:
                    meant = self._value(item.context_expr, scope)
                    if item.optional_vars is not None:
                        self._bind(item.optional_vars, self._entered(meant), scope)
                for statement in node.body:
                    self._statement(statement, scope)
            case _:
                for child in ast.iter_child_nodes(node):
                    self._any(child, scope)

    def _any(self, node: ast.AST, scope: Scope) -> None:
        if isinstance(node, ast.stmt):
            self._statement(node, scope)
        elif isinstance(node, ast.expr):
            self._value(node, scope)
        else:
            for child in ast.iter_child_nodes(node):
                self._any(child, scope)

    def _entered(self, meant: Type) -> Type:
        entered: Type = UNKNOWN
        for kind in meant:
            if isinstance(kind, Instance):
                for method in self.member(kind, "__enter__"):
                    if isinstance(method, Method):
                        entered |= self._result(method)
        return entered

    def _bind(self, target: ast.expr, meant: Type, scope: Scope) -> None:
        """Gives the names of a target what is assigned; unpacking a NamedTuple reads its fields."""
        match target:
            case ast.Name(id=name):
                scope[name] = scope.get(name, UNKNOWN) | meant
            case ast.Starred(value=value):
                self._bind(value, frozenset({Many(self._item(meant))}), scope)
            case ast.Tuple(elts=parts) | ast.List(elts=parts):
                for at, part in enumerate(parts):
                    self._bind(part, self._part(meant, at, part), scope)
            case ast.Attribute(value=ast.Name(id="self"), attr=name) if self._around[0]:
                held = self._around[0].assigned
                if name not in self._around[0].fields:
                    held[name] = held.get(name, UNKNOWN) | meant
            case ast.Attribute(value=value) | ast.Subscript(value=value):
                self._value(value, scope)
                if isinstance(target, ast.Subscript):
                    self._value(target.slice, scope)

    def _part(self, meant: Type, at: int, target: ast.expr) -> Type:
        parts: Type = UNKNOWN
        for kind in meant:
            if isinstance(kind, Fixed) and at < len(kind.items):
                parts |= kind.items[at]
            elif isinstance(kind, Many):
                parts |= kind.item
            elif isinstance(kind, Instance) and kind.of.is_a("NamedTuple"):
                names = list(kind.of.fields)
                if at < len(names):
                    dropped = isinstance(target, ast.Name) and target.id.startswith("_")
                    if not dropped:
                        self._record(names[at], frozenset({kind}), target.lineno, None)
                    parts |= self.member(kind, names[at])
        return parts

    def _item(self, meant: Type) -> Type:
        items: Type = UNKNOWN
        for kind in meant:
            if isinstance(kind, Many):
                items |= kind.item
            elif isinstance(kind, Fixed):
                items = items.union(*kind.items)
            elif isinstance(kind, Instance):
                for method in self.member(kind, "__iter__"):
                    if isinstance(method, Method):
                        items |= self._item(self._result(method))
        return items

    def _record(self, name: str, receiver: Type, line: int, call: ast.Call | None) -> None:
        if self._recording:
            within, method = self._around
            self.reads.append(
                Read(name, receiver, self._source, line, within,
                     method.name if method else "", call)
            )  # fmt: skip

    def _value(self, node: ast.expr, scope: Scope, call: ast.Call | None = None) -> Type:
        """What an expression may be; every attribute in it is recorded once."""
        match node:
            case ast.Name(id=name):
                if name in scope:
                    return scope[name]
                return self._lookup(name, self._source, self._around[0])
            case ast.Attribute(value=value, attr=name):
                named = self._named(node, self._source, self._around[0])
                receiver = self._value(value, scope) or self._hinted(value)
                if isinstance(node.ctx, ast.Load):
                    self._record(name, receiver, node.end_lineno or node.lineno, call)
                meant: Type = UNKNOWN
                for kind in receiver:
                    if isinstance(kind, Instance | Kind):
                        meant |= self.member(kind, name)
                    elif isinstance(kind, Many) and name in ("values", "items", "get", "pop",
                                                             "popleft", "keys"):  # fmt: skip
                        meant |= frozenset({kind})
                return meant or named or (FOREIGN if receiver == FOREIGN else UNKNOWN)
            case ast.Call():
                return self._call(node, scope)
            case ast.Subscript(value=value, slice=index):
                meant = self._value(value, scope)
                self._value(index, scope)
                return self._subscript(meant, index)
            case ast.NamedExpr(target=target, value=value):
                meant = self._value(value, scope)
                self._bind(target, meant, scope)
                return meant
            case ast.IfExp(test=test, body=body, orelse=orelse):
                self._value(test, scope)
                return self._value(body, scope) | self._value(orelse, scope)
            case ast.BoolOp(values=values):
                return UNKNOWN.union(*[self._value(value, scope) for value in values])
            case ast.Tuple(elts=parts) if not any(isinstance(p, ast.Starred) for p in parts):
                return frozenset({Fixed(tuple(self._value(part, scope) for part in parts))})
            case ast.List(elts=parts) | ast.Set(elts=parts) | ast.Tuple(elts=parts):
                items = [
                    self._item(self._value(part.value, scope))
                    if isinstance(part, ast.Starred)
                    else self._value(part, scope)
                    for part in parts
                ]
                return frozenset({Many(UNKNOWN.union(*items))})
            case ast.Dict(keys=keys, values=values):
                names = [self._value(key, scope) for key in keys if key is not None]
                held = [self._value(value, scope) for value in values]
                return frozenset({Many(UNKNOWN.union(*names), UNKNOWN.union(*held))})
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp():
                inner = self._generators(node.generators, scope)
                return frozenset({Many(self._value(node.elt, inner))})
            case ast.DictComp(key=key, value=value):
                inner = self._generators(node.generators, scope)
                return frozenset({Many(self._value(key, inner), self._value(value, inner))})
            case ast.Lambda(args=arguments, body=body):
                inner = dict(scope)
                for argument in [*arguments.args, *arguments.kwonlyargs]:
                    inner[argument.arg] = UNKNOWN
                self._value(body, inner)
                return UNKNOWN
            case ast.Await(value=value) | ast.Starred(value=value) | ast.YieldFrom(value=value):
                return self._value(value, scope)
            case ast.Constant() | ast.Compare() | ast.UnaryOp() | ast.JoinedStr():
                for child in ast.iter_child_nodes(node):
                    self._any(child, scope)
                return FOREIGN
            case ast.BinOp(left=left, right=right):
                sides = self._value(left, scope) | self._value(right, scope)
                return frozenset(kind for kind in sides if not isinstance(kind, Foreign))
            case _:
                for child in ast.iter_child_nodes(node):
                    self._any(child, scope)
                return UNKNOWN

    def _generators(self, generators: list[ast.comprehension], scope: Scope) -> Scope:
        inner = dict(scope)
        for one in generators:
            meant = self._item(self._value(one.iter, inner))
            for name in ast.walk(one.target):
                if isinstance(name, ast.Name):
                    inner.pop(name.id, None)
            self._bind(one.target, meant, inner)
            for test in one.ifs:
                self._value(test, inner)
        return inner

    def _hinted(self, node: ast.expr) -> Type:
        """What a receiver of unknown type is by its own name: `recollection`, `self._directive`."""
        name = node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")
        return self._by_field.get(name.strip("_"), UNKNOWN)

    def _subscript(self, meant: Type, index: ast.expr) -> Type:
        parts: Type = UNKNOWN
        for kind in meant:
            if isinstance(kind, Many):
                if isinstance(index, ast.Slice):
                    parts |= frozenset({kind})
                else:
                    parts |= kind.value or kind.item
            elif isinstance(kind, Fixed):
                at = index.value if isinstance(index, ast.Constant) else None
                if isinstance(index, ast.Slice):
                    parts |= frozenset({Many(UNKNOWN.union(*kind.items))})
                elif isinstance(at, int) and at < len(kind.items):
                    parts |= kind.items[at]
                else:
                    parts = parts.union(*kind.items)
            elif isinstance(kind, Instance):
                for method in self.member(kind, "__getitem__"):
                    if isinstance(method, Method):
                        parts |= self._result(method)
        return parts or (FOREIGN if meant == FOREIGN else UNKNOWN)

    def _call(self, node: ast.Call, scope: Scope) -> Type:
        function = node.func
        called = (
            self._value(function, scope, node)
            if isinstance(function, ast.Attribute)
            else self._value(function, scope)
        )
        arguments = [self._value(argument, scope) for argument in node.args]
        for keyword in node.keywords:
            self._value(keyword.value, scope)
        name = function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")
        if name in ("getattr", "hasattr") and len(node.args) > 1:
            return self._by_name(node, arguments[0])
        if name in GROWING and isinstance(function, ast.Attribute) and arguments:
            item = self._item(arguments[0]) if name == "extend" else arguments[-1]
            self._bind(function.value, frozenset({Many(item)}), scope)
            return FOREIGN
        meant: Type = UNKNOWN
        for kind in called:
            if isinstance(kind, Kind):
                meant |= frozenset({Instance(kind.of)})
            elif isinstance(kind, Method):
                meant |= self._result(kind) or _echo(kind, node, arguments)
            elif isinstance(kind, Instance):
                for method in self.member(kind, "__call__"):
                    if isinstance(method, Method):
                        meant |= self._result(method)
            elif isinstance(kind, Many):
                meant |= {
                    "items": frozenset({Many(frozenset({Fixed((kind.item, kind.value))}))}),
                    "values": frozenset({Many(kind.value)}),
                    "keys": frozenset({Many(kind.item)}),
                }.get(name, kind.value or kind.item)
        return meant or self._built_in(name, node, arguments, scope)

    def _built_in(self, name: str, node: ast.Call, arguments: list[Type], scope: Scope) -> Type:
        within = self._around[0]
        if name == "cast" and len(node.args) == 2:
            return self.annotated(node.args[0], self._source, within)
        if name == "super" and within is not None:
            return frozenset(map(Instance, within.bases))
        if name == "zip":
            return frozenset({Many(frozenset({Fixed(tuple(map(self._item, arguments)))}))})
        if name == "enumerate" and arguments:
            return frozenset({Many(frozenset({Fixed((FOREIGN, self._item(arguments[0])))}))})
        if name in ("next", "min", "max") and len(arguments) == 1:
            return self._item(arguments[0])
        if name in PASSING and arguments:
            return arguments[0]
        if name == "isinstance" and len(node.args) == 2 and isinstance(node.args[0], ast.Name):
            checked, kinds = node.args[0].id, arguments[1]
            tested = frozenset(Instance(kind.of) for kind in kinds if isinstance(kind, Kind))
            if tested:
                scope[checked] = (scope.get(checked, UNKNOWN) - FOREIGN) | tested
        return UNKNOWN

    def _by_name(self, node: ast.Call, receiver: Type) -> Type:
        meant: Type = UNKNOWN
        if isinstance(node.args[1], ast.Constant) and isinstance(node.args[1].value, str):
            name = node.args[1].value
            # Where a default may stand in, the receiver is often annotated by a library's class.
            self._record(name, receiver - FOREIGN, node.lineno, None)
            for kind in receiver:
                if isinstance(kind, Instance | Kind):
                    meant |= self.member(kind, name)
        return meant


def _echo(method: Method, call: ast.Call, arguments: list[Type]) -> Type:
    """The argument whose annotation is that of the result: what a type variable stands for."""
    returns = ast.unparse(method.node.returns) if method.node.returns else ""
    places = [*method.node.args.args, *method.node.args.kwonlyargs]
    own = places[1:] if method.owner is not None else places
    for at, place in enumerate(own):
        same = place.annotation is not None and ast.unparse(place.annotation) == returns
        if same and at < len(arguments):
            return arguments[at]
    return UNKNOWN


@functools.cache
def reader_of_packages() -> Reader:
    """All classes and reads of the packages."""
    return Reader(sources())
