"""Files that an attacker would make, by hand: each is refused in one line, and nothing is executed.

Every one of them is placed in a run folder, a checkpoint, a trace or a configuration, and opened by
the commands that read it. `payload` is a module in the current folder that leaves a mark when it is
imported, and so does everything else that would be executed.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sqlite3
import struct
import tempfile
import zlib
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from tests.torture.checkpoints import _base as trained
from tests.torture.checkpoints import _header, _put, sign
from tests.torture.command import inside, sextet
from tests.torture.harness import Outcome
from tests.torture.traces import _base as recorded

MARK = "executed"

PAYLOAD = f"""
import pathlib
import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv
pathlib.Path({MARK!r}).touch()
MODULES = {{}}
gymnasium.register("Payload-v0", CartPoleEnv, max_episode_steps=50)
"""

Make = Callable[[], object]
"""Puts a hostile file into the current folder, which holds a trained `run` and a recorded one."""

EVAL = ("eval", "run", "--episodes", "1", "--steps", "2")
PLAY = ("play", "run", "--steps", "2", "--no-live", "--run", "played")
RESUME = ("train", "--resume", "run", "--steps", "66", "--no-live")
FORK = ("fork", "recorded", "--at", "20", "--steps", "2")
VIEW = ("view", "recorded", "--export", "page.html")
CONFIG = ("config", "--config", "odd.yaml")


# -- configurations ---------------------------------------------------------------------------


def config(text: str, file: str = "odd.yaml") -> None:
    """A whole text as a configuration."""
    Path(file).write_text(text, encoding="utf-8")


def setting(path: str, value: Any, file: str = "run/config.yaml") -> None:
    """One setting of a run's configuration, in place of its own."""
    import yaml

    tree = yaml.safe_load(Path(file).read_text())
    *branches, name = path.split(".")
    holder = tree
    for branch in branches:
        holder = holder.setdefault(branch, {})
    holder[name] = value
    Path(file).write_text(yaml.safe_dump(tree))


def link(file: str, to: str) -> None:
    """A symbolic link in place of a file."""
    Path(file).unlink(missing_ok=True)
    Path(file).symlink_to(to)


def fifo(file: str) -> None:
    """A pipe without a writer: opening it waits for ever."""
    Path(file).unlink(missing_ok=True)
    os.mkfifo(file)


def folder(file: str) -> None:
    """A folder in place of a file."""
    Path(file).unlink(missing_ok=True)
    Path(file).mkdir()


def large(file: str, size: int = 3 << 30) -> None:
    """A file with a hole of gigabytes."""
    Path(file).unlink(missing_ok=True)
    with open(file, "wb") as out:
        out.truncate(size)


def bomb(levels: int = 9) -> str:
    """Anchors that stand for 10^levels values."""
    lines = ["a0: &a0 [x, x]"]
    lines += [
        f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, levels)
    ]
    return "\n".join(lines)


def merged_bomb(levels: int = 9) -> str:
    """The same by merge keys."""
    lines = ["a0: &a0 {x: 1}"]
    lines += [
        f"a{level}: &a{level} {{<<: [{', '.join([f'*a{level - 1}'] * 10)}]}}"
        for level in range(1, levels)
    ]
    return "\n".join(lines)


# -- checkpoints ------------------------------------------------------------------------------


def newest() -> Path:
    """The newest checkpoint of the trained run; the others and the best one are removed."""
    places = sorted(Path("run/checkpoints").iterdir(), key=lambda p: (p.name.isdigit(), p.name))
    for other in places[:-1]:
        shutil.rmtree(other)
    return places[-1]


def written(name: str, data: bytes) -> None:
    """A file of the checkpoint with other bytes, and the manifest signed anew."""
    place = newest()
    (place / name).unlink(missing_ok=True)
    (place / name).write_bytes(data)
    sign(place)


class _Executed:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {MARK}",)


def pickled(name: str) -> None:
    """A pickle that executes a command when it is loaded."""
    written(name, pickle.dumps(_Executed()))


def header(change: Callable[[dict[str, Any]], object], name: str = "weights.safetensors") -> None:
    """A header that is changed."""
    place = newest()
    entries, body = _header(place / name)
    change(entries)
    _put(place / name, entries, body)
    sign(place)


def huge(entries: dict[str, Any]) -> None:
    """Every tensor as large as memory."""
    for entry in entries.values():
        entry["shape"] = [1 << 20, 1 << 20]


def overlapping(entries: dict[str, Any]) -> None:
    """All tensors in one place."""
    for entry in entries.values():
        entry["data_offsets"] = [0, entry["data_offsets"][1] - entry["data_offsets"][0]]


def manifest(change: Callable[[dict[str, Any]], object]) -> None:
    """A manifest that is changed."""
    place = newest()
    values = json.loads((place / "manifest.json").read_text())
    change(values)
    (place / "manifest.json").write_text(json.dumps(values))


def facts(**values: Any) -> None:
    """Facts that are changed, and the manifest signed anew."""
    place = newest()
    stored = json.loads((place / "facts.json").read_text())
    text = json.dumps({**stored, **values}).encode()
    written("facts.json", text)


def outside() -> None:
    """A checkpoint that names a file outside of it, with the right checksum."""
    import hashlib

    Path("secret.bin").write_bytes(b"secret")
    digest = hashlib.sha256(b"secret").hexdigest()
    manifest(lambda values: values["sha256"].update({"../../../secret.bin": digest}))


def moments() -> None:
    """Moments of the optimiser in another shape: these once ended the process."""
    import torch
    from safetensors.torch import load_file, save

    named = load_file(newest() / "learner.safetensors")
    name = next(n for n in named if n.endswith("exp_avg"))
    written("learner.safetensors", save({**named, name: torch.zeros(1)}))


def hole() -> None:
    """Weights whose header is true and whose data is a hole of gigabytes."""
    place = newest()
    text = json.dumps(
        {"perception/x": {"dtype": "F32", "shape": [1 << 30], "data_offsets": [0, 1 << 32]}}
    ).encode()
    file = place / "weights.safetensors"
    file.unlink()
    with open(file, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        out.truncate(8 + len(text) + (1 << 32))


def all_damaged() -> None:
    """No weights that can be read: no agent is to play in their place."""
    for file in Path("run").rglob("weights.safetensors"):
        file.write_bytes(file.read_bytes()[:-1])


# -- traces -----------------------------------------------------------------------------------


def sql(*statements: str, values: tuple[Any, ...] = ()) -> None:
    """Statements that change the recorded trace."""
    with closing(sqlite3.connect("recorded/trace.sqlite", isolation_level=None)) as database:
        for statement in statements:
            database.execute(statement, values)


def trace_setting(key: str, value: Any) -> None:
    """One setting of the configuration in a trace."""
    with closing(sqlite3.connect("recorded/trace.sqlite", isolation_level=None)) as database:
        (text,) = database.execute("SELECT value FROM meta WHERE key = 'config'").fetchone()
        text = json.dumps({**json.loads(text), key: value})
        database.execute("UPDATE meta SET value = ? WHERE key = 'config'", (text,))


ZEROS = zlib.compress(bytes(1 << 28), 9)

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n) SELECT"

Case = tuple[str, Make, tuple[tuple[str, ...], ...], bool]
"""Name, what is made, the commands that open it, and whether each must refuse (else it may read the
rest, but must not execute or hang).
"""

HOSTILE: tuple[Case, ...] = (
    (
        "yaml: python object",
        partial(config, f"a: !!python/object/apply:os.system ['touch {MARK}']"),
        (CONFIG,),
        True,
    ),
    ("yaml: python module", partial(config, "a: !!python/module:payload"), (CONFIG,), True),
    ("yaml: python name", partial(config, "a: !!python/name:payload.MODULES"), (CONFIG,), True),
    ("yaml: bomb of anchors", lambda: config(bomb()), (CONFIG,), True),
    ("yaml: bomb of merge keys", lambda: config(merged_bomb()), (CONFIG,), True),
    ("yaml: anchor in itself", partial(config, "a: &a [*a]"), (CONFIG,), True),
    ("yaml: mapping in itself", partial(config, "world: &a {id: *a}"), (CONFIG,), True),
    ("yaml: impossible date", partial(config, "seed: 2024-99-99"), (CONFIG,), True),
    ("yaml: integer without end", partial(config, "seed: " + "9" * 9999), (CONFIG,), True),
    ("yaml: nested without end", partial(config, "a: " + "[" * 9999), (CONFIG,), True),
    ("yaml: nested mappings", partial(config, "{a: " * 5000), (CONFIG,), True),
    ("yaml: too long", partial(config, "a: x\n" * 400_000), (CONFIG,), True),
    ("yaml: several documents", partial(config, "seed: 1\n---\nseed: 2"), (CONFIG,), True),
    ("yaml: binary", partial(config, "world: {id: !!binary aGVsbG8=}"), (CONFIG,), True),
    ("yaml: no text", lambda: Path("odd.yaml").write_bytes(b"\xff\xfe\0\0"), (CONFIG,), True),
    ("config: fifo", partial(fifo, "odd.yaml"), (CONFIG,), True),
    ("config: device", partial(link, "odd.yaml", "/dev/zero"), (CONFIG,), True),
    ("config: hole of gigabytes", partial(large, "odd.yaml"), (CONFIG,), True),
    (
        "config: infinite updates",
        partial(setting, "learner.replay_ratio", float("inf")),
        (EVAL, RESUME),
        True,
    ),
    (
        "config: parameters without end",
        partial(setting, "perception.width", 10**9),
        (EVAL, RESUME),
        True,
    ),
    (
        "config: memory without end",
        partial(setting, "memory.capacity", 10**15),
        (EVAL, RESUME),
        True,
    ),
    ("config: plugin", partial(setting, "plugins", ["payload"]), (EVAL, PLAY, RESUME), True),
    (
        "config: plugin of the evaluation",
        partial(setting, "training.evaluation", {"plugins": ["payload"]}),
        (EVAL, RESUME),
        True,
    ),
    (
        "config: world of a package",
        partial(setting, "world.id", "payload:Payload-v0"),
        (EVAL, PLAY, RESUME),
        True,
    ),
    (
        "config: world of the evaluation",
        partial(setting, "training.evaluation", {"world": {"id": "payload:Payload-v0"}}),
        (EVAL, RESUME),
        True,
    ),
    (
        "config: kind as an import path",
        partial(setting, "perception.kind", "payload:Perception"),
        (EVAL, RESUME),
        True,
    ),
    (
        "config: weights of a device",
        partial(setting, "configurator", {"kind": "learned", "weights": "/dev/zero"}),
        (EVAL, RESUME),
        True,
    ),
    ("run: configuration is a fifo", partial(fifo, "run/config.yaml"), (EVAL, RESUME), True),
    (
        "run: configuration is a device",
        partial(link, "run/config.yaml", "/dev/zero"),
        (EVAL, RESUME),
        True,
    ),
    (
        "run: configuration is a link",
        partial(link, "run/config.yaml", "../recorded/config.yaml"),
        (EVAL, RESUME),
        True,
    ),
    ("run: configuration is a folder", partial(folder, "run/config.yaml"), (EVAL, RESUME), True),
    (
        "seeds: plugin of a training of several",
        lambda: seeds(["payload"]),
        (("train", "--resume", "several"),),
        True,
    ),
    (
        "study: plugin of a study's folder",
        lambda: study(),
        (("study", "--resume", "studied"),),
        True,
    ),
    (
        "checkpoint: pickle as weights",
        partial(pickled, "weights.safetensors"),
        (EVAL, RESUME),
        True,
    ),
    ("checkpoint: pickle as the world", partial(pickled, "world.bin"), (RESUME,), True),
    ("checkpoint: pickle as facts", partial(pickled, "facts.json"), (EVAL, RESUME), True),
    ("checkpoint: path outside", outside, (EVAL, RESUME), True),
    (
        "checkpoint: link as weights",
        lambda: link(str(newest() / "weights.safetensors"), "/etc/hostname"),
        (EVAL, RESUME),
        True,
    ),
    (
        "checkpoint: link as manifest",
        lambda: link(str(newest() / "manifest.json"), "/dev/zero"),
        (EVAL, RESUME),
        True,
    ),
    (
        "checkpoint: fifo as memory",
        lambda: fifo(str(newest() / "memory.safetensors")),
        (RESUME,),
        True,
    ),
    (
        "checkpoint: header of exabytes",
        lambda: written("weights.safetensors", struct.pack("<Q", 1 << 60) + b"{}"),
        (EVAL, RESUME),
        True,
    ),
    (
        "checkpoint: header of a gigabyte",
        lambda: large(str(newest() / "weights.safetensors"), 1 << 30),
        (EVAL, RESUME),
        True,
    ),
    (
        "checkpoint: header nested without end",
        lambda: written("weights.safetensors", struct.pack("<Q", 9999) + b"[" * 9999),
        (EVAL, RESUME),
        True,
    ),
    ("checkpoint: huge shapes", partial(header, huge), (EVAL, RESUME), True),
    (
        "checkpoint: huge shapes in memory",
        partial(header, huge, "memory.safetensors"),
        (RESUME,),
        True,
    ),
    ("checkpoint: tensors in one place", partial(header, overlapping), (EVAL, RESUME), True),
    ("checkpoint: data of gigabytes", hole, (EVAL, RESUME), True),
    ("checkpoint: moments in another shape", moments, (RESUME,), True),
    ("checkpoint: updates without end", partial(facts, owed=1e18), (RESUME,), True),
    ("checkpoint: steps without end", partial(facts, steps=10**300), (EVAL, RESUME), True),
    (
        "checkpoint: facts that are not finite",
        partial(facts, best=float("nan")),
        (EVAL, RESUME),
        True,
    ),
    (
        "checkpoint: pieces without end",
        partial(
            manifest,
            lambda values: values.update(
                pieces=[
                    {
                        "group": "memory",
                        "name": "x",
                        "rows": 1 << 60,
                        "files": ["memory.safetensors"],
                    }
                ]
            ),
        ),
        (EVAL, RESUME),
        True,
    ),
    (
        "checkpoint: manifest nested without end",
        lambda: (newest() / "manifest.json").write_text("[" * 10**6),
        (EVAL, RESUME),
        True,
    ),
    ("checkpoint: all weights damaged", all_damaged, (EVAL, PLAY, RESUME), True),
    ("trace: fifo", partial(fifo, "recorded/trace.sqlite"), (VIEW, FORK), True),
    ("trace: device", partial(link, "recorded/trace.sqlite", "/dev/zero"), (VIEW, FORK), True),
    ("trace: fifo beside it", partial(fifo, "recorded/trace.sqlite-wal"), (VIEW, FORK), True),
    ("trace: hole of gigabytes", partial(large, "recorded/trace.sqlite"), (VIEW, FORK), True),
    (
        "trace: pickle",
        lambda: Path("recorded/trace.sqlite").write_bytes(pickle.dumps(_Executed())),
        (VIEW, FORK),
        True,
    ),
    (
        "trace: plugin in its configuration",
        partial(trace_setting, "plugins", ["payload"]),
        (FORK,),
        True,
    ),
    (
        "trace: world of a package",
        partial(trace_setting, "world", {"id": "payload:Payload-v0"}),
        (FORK,),
        True,
    ),
    (
        "trace: view without end",
        lambda: sql(
            "DROP TABLE moments",
            f"CREATE VIEW moments(step, layout, timeline, reasons, plans, dense) AS {ENDLESS} "
            "i, 1, x'', '[]', x'', x'' FROM n",
        ),
        (VIEW, FORK),
        True,
    ),
    (
        "trace: description without end",
        lambda: sql("DROP TABLE meta", f"CREATE VIEW meta(key, value) AS {ENDLESS} i, i FROM n"),
        (VIEW, FORK),
        True,
    ),
    (
        "trace: computed gigabytes",
        lambda: sql(
            "ALTER TABLE meta RENAME COLUMN value TO x",
            "ALTER TABLE meta ADD COLUMN value AS (zeroblob(1000000000))",
        ),
        (VIEW, FORK),
        True,
    ),
    (
        "trace: trigger",
        lambda: sql("CREATE TRIGGER t AFTER INSERT ON moments BEGIN DELETE FROM moments; END"),
        (VIEW, FORK),
        False,
    ),
    (
        "trace: gigabytes in keyframes",
        lambda: sql("UPDATE keyframes SET snapshot = ?", values=(ZEROS,)),
        (VIEW, FORK),
        False,
    ),
    (
        "trace: gigabytes in latents",
        lambda: sql("UPDATE moments SET dense = ?", values=(ZEROS,)),
        (VIEW, FORK),
        False,
    ),
    (
        "trace: layout of exabytes",
        lambda: sql(
            "UPDATE layouts SET layout = ?",
            values=('[["state.latent", "dense", "float32", [4294967296, 4294967296]]]',),
        ),
        (VIEW, FORK),
        True,
    ),
    (
        "trace: steps without end",
        lambda: sql("UPDATE moments SET step = 4611686018427387904 WHERE step = 30"),
        (VIEW, FORK),
        False,
    ),
)


def seeds(plugins: list[str]) -> None:
    """The folder of a training with several seeds that names a plugin."""
    import yaml

    Path("several").mkdir()
    tree = yaml.safe_load(Path("run/config.yaml").read_text())
    order = {"seeds": [1, 2], "config": tree, "plugins": plugins, "traces": []}
    Path("several/seeds.json").write_text(json.dumps(order))


def study() -> None:
    """The folder of a study that names a plugin."""
    import yaml

    from agent.studies.study import read_study

    plan = read_study("modes").model_dump(mode="json")
    Path("studied").mkdir()
    Path("studied/study.yaml").write_text(yaml.safe_dump({**plan, "plugins": ["payload"]}))


CASES = len(HOSTILE)


def case(number: int, seed: int) -> Outcome:
    """One hostile file, opened by every command that reads it; `seed` changes nothing."""
    name, make, commands, refused = HOSTILE[number]
    kind = name.partition(":")[0]
    with tempfile.TemporaryDirectory() as room, inside(Path(room)):
        shutil.copytree(trained(0), "run")
        shutil.copytree(recorded(0), "recorded")
        Path("payload.py").write_text(PAYLOAD)
        make()
        before = {str(path) for path in Path().rglob("*")}
        for command in commands:
            ran = sextet(*command)
            fault = ran.fault(1, 2)
            if not fault and refused and ran.code == 0:
                fault = "expected a refusal, and it was accepted"
            if Path(MARK).exists():
                fault = "it was executed"
            new = {str(path) for path in Path().rglob("*")} - before
            new -= {"page.html"} if ran.code == 0 else set()
            new = {path for path in new if "__pycache__" not in path and ".damaged" not in path}
            if not fault and new and ran.code == 2:
                fault = f"written: {sorted(new)[:3]}"
            if fault:
                return Outcome(kind, "fault", f"{name}: {command[0]}: {fault}")
            if Path("page.html").exists():
                Path("page.html").unlink()
        return Outcome(kind, "refused" if refused else "read")
