"""3,000 configurations with faults: each is accepted and plays 5 steps, or is refused in one line.

Each begins as the complete configuration of a preset in a world. Some are given by `--config`, some
lie in a run folder, some are printed by `sextet config` and must then be playable.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from tests.torture.command import inside, sextet
from tests.torture.harness import Outcome

CASES = 3000

WORLDS = ("CartPole-v1", "Pendulum-v1", "sextet/Orchard-v0", "FrozenLake-v1")
PRESETS = (None, "reactive", "deliberate", "model-free", "rollouts", "learn-actions", "learn-model",
           "learn-tasks", "atari-small", "distil", "fair", "clairvoyant")  # fmt: skip

ODD: tuple[str, ...] = (
    ".inf", "-.inf", ".nan", "1e400", "-1", "0", "1", "2", "0.5", "1e18", "9223372036854775808",
    "1" * 400, "1" * 5000, "-0.0", "1e-320", "1e-3", "true", "false", "null", "''", "x", "'1'",
    "'1e3'", "[]", "[1]", "[[]]", "{}", "{kind: x}", "{a: 1}", "2024-01-01", "2024-99-99", "1:2:3",
    "0x1F", "!!binary xyz", "!!python/object/apply:os.system [touch executed]", "!!set {a}",
    "&a [*a]", "&a {b: *a}", "*nowhere", "../../etc/passwd", "/dev/zero", "'\\0'", "'" + "y" * 999
    + "'", "\"\\U0001F600\"", "[" * 60 + "]" * 60, "{1: 2}", "{? [a] : b}", "- 1", "!!timestamp x",
)  # fmt: skip
"""Texts of values, none of which belongs where it is put, or which is an extreme one."""


@lru_cache
def _resolved(preset: str | None, world: str) -> str | None:
    """The complete configuration of a preset, None where it does not suit the world."""
    done = sextet("config", world, *(() if preset is None else ("--preset", preset)))
    return done.out if done.code == 0 else None


def _lines(text: str, chosen: random.Random) -> tuple[list[str], int]:
    lines = text.splitlines()
    return lines, chosen.randrange(len(lines))


def _odd_value(text: str, chosen: random.Random) -> str:
    lines, at = _lines(text, chosen)
    lines[at] = f"{lines[at].partition(':')[0]}: {chosen.choice(ODD)}"
    return "\n".join(lines)


def _odd_values(text: str, chosen: random.Random) -> str:
    for _ in range(chosen.randint(2, 6)):
        text = _odd_value(text, chosen)
    return text


def _scaled(text: str, chosen: random.Random) -> str:
    """A number multiplied by a power of ten, or negated."""
    lines = text.splitlines()
    numbers = [
        i
        for i, line in enumerate(lines)
        if isinstance(_scalar(line.partition(":")[2]), int | float)
    ]
    at = chosen.choice(numbers)
    name, _, value = lines[at].partition(":")
    factor = chosen.choice((-1, 0, 10.0**20, 10.0**-9, 10**3, 0.5, 1.5, 2, 2, 3))
    lines[at] = f"{name}: {_scalar(value) * factor!r}"
    return "\n".join(lines)


def _turned(text: str, chosen: random.Random) -> str:
    """A setting that is on turned off, and the reverse."""
    lines = text.splitlines()
    flags = [i for i, line in enumerate(lines) if line.endswith((": true", ": false"))]
    at = chosen.choice(flags)
    name, _, value = lines[at].rpartition(" ")
    lines[at] = f"{name} {'false' if value == 'true' else 'true'}"
    return "\n".join(lines)


def _scalar(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        return None


def _renamed(text: str, chosen: random.Random) -> str:
    lines, at = _lines(text, chosen)
    name, colon, value = lines[at].partition(":")
    spare = chosen.choice(("x", "_", "é", " ", "kind", name.strip()[::-1]))
    lines[at] = f"{name}{spare}{colon}{value}"
    return "\n".join(lines)


def _without(text: str, chosen: random.Random) -> str:
    lines, at = _lines(text, chosen)
    del lines[at : at + chosen.choice((1, 1, 1, 5))]
    return "\n".join(lines)


def _moved(text: str, chosen: random.Random) -> str:
    lines, at = _lines(text, chosen)
    line = lines.pop(at)
    lines.insert(chosen.randrange(len(lines)), " " * chosen.choice((0, 2, 4)) + line.strip())
    return "\n".join(lines)


def _swapped_types(text: str, chosen: random.Random) -> str:
    """Values of two places exchanged."""
    lines, at = _lines(text, chosen)
    other = chosen.randrange(len(lines))
    (a, _, x), (b, _, y) = lines[at].partition(":"), lines[other].partition(":")
    lines[at], lines[other] = f"{a}:{y}", f"{b}:{x}"
    return "\n".join(lines)


def _other_kind(text: str, chosen: random.Random) -> str:
    lines = text.splitlines()
    kinds = [i for i, line in enumerate(lines) if line.strip().startswith("kind:")]
    one, other = chosen.choice(kinds), chosen.choice(kinds)
    lines[one] = f"{lines[one].partition(':')[0]}:{lines[other].partition(':')[2]}"
    return "\n".join(lines)


def _flipped(text: str, chosen: random.Random) -> str:
    data = bytearray(text.encode())
    for _ in range(chosen.choice((1, 1, 3, 20))):
        data[chosen.randrange(len(data))] = chosen.randrange(256)
    return data.decode("latin-1")


def _cut(text: str, chosen: random.Random) -> str:
    return text[: chosen.randrange(len(text))]


def _joined(text: str, chosen: random.Random) -> str:
    """The beginning of one configuration and the end of the same one elsewhere."""
    return text[: chosen.randrange(len(text))] + text[chosen.randrange(len(text)) :]


MUTATIONS: tuple[Callable[[str, random.Random], str], ...] = (
    _odd_value, _odd_values, _scaled, _renamed, _without, _moved, _swapped_types, _other_kind,
    _flipped, _cut, _joined, _scaled, _turned,
)  # fmt: skip


def case(number: int, seed: int) -> Outcome:
    """One mutated configuration, played."""
    chosen = random.Random(f"configs {seed} {number}")
    mutate = MUTATIONS[number % len(MUTATIONS)]
    text = None
    while text is None:
        text = _resolved(chosen.choice(PRESETS), chosen.choice(WORLDS))
    # The limits of the command replace those of the file.
    mutated = mutate(text, chosen)
    kind = mutate.__name__.strip("_")
    with tempfile.TemporaryDirectory() as place, inside(Path(place)):
        folder = chosen.random() < 0.3
        file = Path("run/config.yaml" if folder else "mutated.yaml")
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(mutated.encode("latin-1" if mutate is _flipped else "utf-8"))
        named = ["run"] if folder else ["--config", "mutated.yaml"]
        if number % 10 == 0:
            done = sextet("play", *named, "--steps", "5", "--no-live", "--run", "played")
        elif number % 10 == 1:
            done = sextet("config", *named)
            if done.code == 0:
                Path("printed.yaml").write_text(done.out)
                done = sextet("eval", "--config", "printed.yaml", "--steps", "5")
                if done.code:
                    return Outcome(kind, "not playable", f"printed, then refused: {done.err}")
        else:
            done = sextet("eval", *named, "--episodes", "1", "--steps", "5")
        fault = done.fault(2)
        if not fault and done.code and Path("played").exists():
            fault = "refused, and a folder is left behind"
        if Path("executed").exists():
            fault = "what a file names was executed"
        verdict = "played" if done.code == 0 else "refused"
        return Outcome(kind, verdict, fault, {"seconds": round(done.seconds, 3)})
