"""Settings checked by a pydantic model; what is wrong with them in one line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from modules.messages import ConfigError
from modules.suggest import suggestion

Model = TypeVar("Model", bound=BaseModel)

LARGEST = 2.0**53
"""The largest number of a setting: up to it every integer is also a float."""


def validated(
    model: type[Model],
    values: Mapping[str, Any],
    where: str,
    *,
    others: Sequence[str] = (),
    renamed: Mapping[str, str] | None = None,
) -> Model:
    """`values` as a `model`.

    Raises ConfigError, one line, for the first value that is wrong: `where` and its dotted path,
    what is allowed, what it is. `others` are names allowed beside the fields of `model`. `renamed`
    maps dotted paths in `model` of an older version to full present ones, `*.NAME` a field of any
    part of it.
    """
    try:
        checked = model.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    else:
        dot = "" if not where or where[-1] in " ." else "."
        require_plain_numbers(checked, values, f"{where}{dot}")
        return checked
    location = [str(part) for part in first["loc"]]
    space = "" if not where or where[-1] in " ." or not location else "."
    path = f"{where}{space}{'.'.join(location)}"
    holder = _holder(model, location[:-1])
    if first["type"] == "extra_forbidden":
        paths = (".".join(location), f"*.{location[-1]}")
        if new := next((now for old in paths if (now := (renamed or {}).get(old))), None):
            raise ConfigError(f"{path}: is called {new} now; write that")
        allowed = (*holder.model_fields, *(others if holder is model else ()))
        raise ConfigError(
            f"{path}: no such setting; it is none of {', '.join(allowed)}"
            f"{suggestion(location[-1], allowed)}"
        )
    if first["type"] == "missing":
        raise ConfigError(f"{path}: is missing; give it a value")
    expected = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    field = holder.model_fields.get(location[-1]) if location else None
    limits = "" if field is None else _limits(field.metadata)
    guess = ""
    if first["type"] in ("literal_error", "enum"):
        choices = str(first.get("ctx", {}).get("expected", "")).replace(" or ", ",").split(",")
        guess = suggestion(first["input"], [choice.strip("' ") for choice in choices])
    expected = " ".join(expected.split())
    # The line of a model's own validator says what it got.
    if first["type"] == "value_error" and (not location or isinstance(first["input"], Mapping)):
        raise ConfigError(f"{path.rstrip(': ')}: {expected}")
    raise ConfigError(f"{path}: {first['input']!r:.80} is not {expected}{limits}{guess}")


def require_plain_numbers(checked: object, raw: object, path: str) -> None:
    """Raises ConfigError for the first number of `checked` that was given as something else, such
    as text or a truth value, is not finite or is beyond LARGEST.

    `raw`: what `checked` was made from. `path`: of the place, ending in a dot where it is inside.
    """
    if isinstance(checked, bool):
        return
    if isinstance(checked, int | float):
        here = path.rstrip(".")
        if isinstance(raw, bool) or not isinstance(raw, int | float):
            raise ConfigError(f"{here}: {raw!r:.80} is not a number; write it without quotes")
        if not abs(checked) <= LARGEST:
            raise ConfigError(
                f"{here}: {raw!r:.80} is not a finite number (allowed: up to {LARGEST:.0f})"
            )
    elif isinstance(checked, BaseModel) and isinstance(raw, Mapping):
        for name in checked.model_fields_set & raw.keys():
            require_plain_numbers(getattr(checked, name), raw[name], f"{path}{name}.")
    elif isinstance(checked, Mapping) and isinstance(raw, Mapping):
        for name in checked.keys() & raw.keys():
            require_plain_numbers(checked[name], raw[name], f"{path}{name}.")
    elif isinstance(checked, list | tuple) and isinstance(raw, list | tuple):
        for number, (one, text) in enumerate(zip(checked, raw, strict=False)):
            require_plain_numbers(one, text, f"{path}{number}.")


def _holder(model: type[BaseModel], path: Sequence[str]) -> type[BaseModel]:
    """The model in `model` that has the field at a path, as far as it can be followed."""
    for name in path:
        if (field := model.model_fields.get(name)) is not None:
            model = next(_models(field.annotation), model)
    return model


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models in a type, as `M`, `M | None`, `tuple[M, ...]` or `dict[str, M]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _limits(constraints: Sequence[Any]) -> str:
    """The range of a field in brackets, from its annotated constraints."""
    signs = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    parts = [
        f"{words} {getattr(constraint, sign)}"
        for constraint in constraints
        for sign, words in signs.items()
        if getattr(constraint, sign, None) is not None
    ]
    return f" (allowed: {', '.join(parts)})" if parts else ""
