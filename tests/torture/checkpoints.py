"""3,000 checkpoints with faults, half of them with the manifest signed anew.

Each is refused in one line, within a second and 200 MB, or is a valid agent, which plays 2 steps;
a whole one also resumes its training for some steps. Nothing outside the run's folder changes.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import struct
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from tests.torture.command import inside, sextet
from tests.torture.harness import Outcome

CASES = 3000

STEPS, ENDING = 60, "68"

SMALL = (
    "--learner.warmup_steps=20", "--learner.batch=4", "--learner.replay_ratio=0.2",
    "--training.evaluate_episodes=1", "--training.checkpoint_every=30",
    "--perception.width=8", "--world_model.width=16", "--training.report_every=20",
    "--memory.recall.slots=8", "--configurator.kind=fixed", "--configurator.mode=1",
)  # fmt: skip

BASES = (
    ("CartPole-v1", "--learner.ema_rate=1", "--memory.priority_exponent=0"),
    ("CartPole-v1", "--learner.ema_rate=0.1", "--learner.reset_every=4",
     "--memory.priority_exponent=0.5", "--num-envs", "2"),
    ("Pendulum-v1", "--learner.ema_rate=1"),
)  # fmt: skip

NUMBERS: tuple[Any, ...] = (
    -1, 0, 1, 2, 3, 7, 60, 2**31, 2**53, 2**63, 10**18, -1.5, 0.5, 1e18, 1e300, True, False, None,
    "", "x", "60", [], [1], [[1.0, 2.0]], {}, {"a": 1}, [None], float("nan"), float("inf"),
)  # fmt: skip

_Change = Callable[[Path, random.Random], None]


@lru_cache
def _base(number: int) -> Path:
    """A small trained run, made once in each process."""
    place = Path(tempfile.mkdtemp(prefix="checkpoints-"))
    world, *settings = BASES[number]
    with inside(place):
        done = sextet("train", world, "--steps", str(STEPS), "--run", "run", "--no-live",
                      "--seed", "3", *SMALL, *settings)  # fmt: skip
        assert done.code == 0, done.err
    return place / "run"


# -- changes ----------------------------------------------------------------------------------


def _tensors(place: Path, chosen: random.Random) -> Path:
    return chosen.choice(sorted(place.glob("*.safetensors")))


def _header(file: Path) -> tuple[dict[str, Any], bytes]:
    data = file.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def _put(file: Path, header: dict[str, Any] | bytes, body: bytes) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.unlink()
    file.write_bytes(struct.pack("<Q", len(text)) + text + body)


def _header_entry(place: Path, chosen: random.Random) -> None:
    """Name, dtype, shape or place of a tensor."""
    file = _tensors(place, chosen)
    header, body = _header(file)
    name = chosen.choice([n for n in header if n != "__metadata__"] or [""])
    if name:
        entry = header[name]
        match chosen.randrange(7):
            case 0:
                header[chosen.choice((name[::-1], name + "x", "", "../" + name))] = header.pop(name)
            case 1:
                entry["dtype"] = chosen.choice(("F16", "F64", "I64", "U8", "F8_E4M3", "X", 3))
            case 2:
                entry["shape"] = chosen.choice(
                    ([], [1], entry["shape"][::-1], [2**40, 2**40], [-1], [2**62], 4, [None])
                )
            case 3:
                entry["data_offsets"] = chosen.choice(([0, 0], [0, 2**60], [-8, 8], [8, 0], "x"))
            case 4:
                del header[name]
            case 5:
                header[name + "2"] = dict(entry)
            case 6:
                entry["more"] = chosen.choice((1, {}, "x" * 10_000))
    _put(file, header, body)


def _reshaped(place: Path, chosen: random.Random) -> None:
    """A tensor of the same name in another form, with data that fit its header."""
    from safetensors.torch import load_file, save_file

    file = _tensors(place, chosen)
    named = load_file(file)
    name = chosen.choice(sorted(named) or [""])
    if not name:
        return
    tensor = named[name]
    import torch

    named[name] = chosen.choice((
        lambda: tensor.reshape(-1)[: tensor.numel() // 2].clone(),
        lambda: tensor.unsqueeze(0).clone(),
        lambda: tensor.double(),
        lambda: tensor.half(),
        lambda: tensor.long(),
        lambda: torch.cat([tensor.reshape(-1)] * 3),
        lambda: tensor.reshape(-1)[:0].clone(),
        lambda: torch.zeros(1 << 20),
    ))()  # fmt: skip
    file.unlink()
    save_file(named, file)


def _exchanged(place: Path, chosen: random.Random) -> None:
    """Tensors whose names are exchanged, left out, or added."""
    from safetensors.torch import load_file, save_file

    file = _tensors(place, chosen)
    named = load_file(file)
    if len(named) < 2:
        return
    one, other = chosen.sample(sorted(named), 2)
    match chosen.randrange(3):
        case 0:
            named[one], named[other] = named[other], named[one]
        case 1:
            del named[one]
        case 2:
            named[f"{one}0"] = named[other].clone()
    file.unlink()
    save_file(named, file)


def _numbers(place: Path, chosen: random.Random) -> None:
    """Values of a tensor: huge, negative, not finite."""
    from safetensors.torch import load_file, save_file

    file = _tensors(place, chosen)
    named = load_file(file)
    name = chosen.choice(sorted(n for n, t in named.items() if t.numel()) or [""])
    if not name:
        return
    flat = named[name].reshape(-1)
    floating = flat.is_floating_point()
    value = chosen.choice(
        (0, -1, 10**9, float("nan"), float("inf"), 1e30) if floating else (0, 1, -1, 100, 2**40)
    )
    if flat.dtype.itemsize == 1:
        value = int(value) & 1
    elif not floating and flat.dtype.itemsize == 2:
        value = int(value) & 0x7FFF
    flat[chosen.randrange(len(flat)) if chosen.random() < 0.5 else slice(None)] = value
    file.unlink()
    save_file(named, file)


def _facts(place: Path, chosen: random.Random) -> None:
    file = place / "facts.json"
    facts = json.loads(file.read_text())
    holder: Any = facts
    name: Any = chosen.choice(sorted(facts))
    while isinstance(holder[name], dict | list) and holder[name] and chosen.random() < 0.7:
        holder = holder[name]
        name = chosen.choice(sorted(holder)) if isinstance(holder, dict) else 0
    if chosen.random() < 0.2 and isinstance(holder, dict):
        del holder[name]
    else:
        holder[name] = chosen.choice(NUMBERS)
    text = json.dumps(facts)
    if chosen.random() < 0.1:
        text = chosen.choice(("[" * 100_000, "null", "[]", '{"steps": 1', "", "1" * 5000, "\0"))
    file.unlink()
    file.write_text(text)


def _manifest(place: Path, chosen: random.Random) -> None:
    file = place / "manifest.json"
    manifest = json.loads(file.read_text())
    some = chosen.choice(sorted(manifest["sha256"]))
    match chosen.randrange(8):
        case 0:
            manifest["format"] = chosen.choice((0, 1, 3, 99, "2", None, -1, 1.5, True))
        case 1:
            manifest["sha256"][chosen.choice(("../x.bin", "/etc/passwd", "a/b.json", "x", ""))] = (
                "0" * 64
            )
        case 2:
            manifest["sha256"][some] = chosen.choice(("", "0" * 64, 5, None, "z" * 64, []))
        case 3:
            del manifest["sha256"][some]
        case 4:
            piece = {"group": "memory", "name": "signals", "rows": 9, "files": [some]}
            piece[chosen.choice(sorted(piece))] = chosen.choice((-1, 2**60, [], "..", None, [some]))
            manifest["pieces"] = [piece]
        case 5:
            manifest["pieces"] = chosen.choice((None, 3, "x", {}, [1], [{}]))
        case 6:
            manifest["sha256"] = chosen.choice((None, [], "x", {}, {"a": {}}))
        case 7:
            manifest = chosen.choice(([], None, 7, {}, {"format": 2}))
    file.unlink()
    file.write_text(json.dumps(manifest))


def _some_file(place: Path, chosen: random.Random) -> Path:
    return chosen.choice(sorted(place.iterdir()))


def _cut(place: Path, chosen: random.Random) -> None:
    file = _some_file(place, chosen)
    data = file.read_bytes()
    file.unlink()
    file.write_bytes(data[: chosen.randrange(len(data))])


def _flipped(place: Path, chosen: random.Random) -> None:
    file = _some_file(place, chosen)
    data = bytearray(file.read_bytes())
    for _ in range(chosen.choice((1, 1, 8, 64))):
        data[chosen.randrange(len(data))] ^= 1 << chosen.randrange(8)
    file.unlink()
    file.write_bytes(data)


def _longer(place: Path, chosen: random.Random) -> None:
    file = _some_file(place, chosen)
    data = file.read_bytes()
    file.unlink()
    file.write_bytes(data + chosen.randbytes(chosen.choice((1, 8, 5000))))


def _misplaced(place: Path, chosen: random.Random) -> None:
    """Two files exchanged, or one that is not there."""
    one, other = chosen.sample(sorted(place.iterdir()), 2)
    data = one.read_bytes()
    one.unlink()
    if chosen.random() < 0.7:
        one.write_bytes(other.read_bytes())
        other.unlink()
        other.write_bytes(data)


def _world(place: Path, chosen: random.Random) -> None:
    """The snapshot of the world, with its own checksum made anew."""
    file = place / "world.bin"
    body = bytearray(file.read_bytes()[32:])
    magic, version, length = struct.unpack_from("<4sHI", body)
    header, old = json.loads(body[10 : 10 + length]), length
    match chosen.randrange(6):
        case 0:
            header["sizes"] = chosen.choice(([], [-1], [2**60], "x", header["sizes"][::-1]))
        case 1:
            header["facts"][chosen.choice(sorted(header["facts"]))] = chosen.choice(NUMBERS[:20])
        case 2:
            header["identity"] = chosen.choice(({}, [], {"id": "other"}))
        case 3:
            length = chosen.choice((0, 2**31, len(body)))
        case 4:
            del header[chosen.choice(sorted(header))]
        case 5:
            body[10 + length + chosen.randrange(len(body) - 10 - length)] ^= 255
    text = json.dumps(header).encode()
    start = struct.pack("<4sHI", magic, version, len(text) if length == old else length)
    whole = start + text + bytes(body[10 + old :])
    file.unlink()
    file.write_bytes(hashlib.sha256(whole).digest() + whole)


CHANGES: tuple[_Change, ...] = (
    _header_entry, _reshaped, _exchanged, _numbers, _facts, _manifest, _cut, _flipped, _longer,
    _misplaced, _world, _reshaped, _facts, _numbers,
)  # fmt: skip


def sign(place: Path) -> None:
    """Writes the checksums of the present files into the manifest, as an attacker would."""
    file = place / "manifest.json"
    try:
        manifest = json.loads(file.read_text())
        for name in manifest["sha256"]:
            if (place / name).is_file():
                manifest["sha256"][name] = hashlib.sha256((place / name).read_bytes()).hexdigest()
    except (ValueError, KeyError, TypeError, OSError):
        return
    file.unlink()
    file.write_text(json.dumps(manifest))


def case(number: int, seed: int) -> Outcome:
    """One changed checkpoint, played, and resumed where it is a whole one."""
    chosen = random.Random(f"checkpoints {seed} {number}")
    change = CHANGES[number // 2 % len(CHANGES)]
    signed = number % 2 == 0
    base = _base(chosen.randrange(len(BASES)))
    kind = f"{change.__name__.strip('_')}{' signed' if signed else ''}"
    with tempfile.TemporaryDirectory() as room, inside(Path(room)):
        shutil.copytree(base, "run")
        whole = change is _world or chosen.random() < 0.6
        checkpoints = Path("run/checkpoints")
        newest = max(
            (p for p in checkpoints.iterdir() if p.name.isdigit()), key=lambda p: int(p.name)
        )
        if whole:
            # The one that is changed is the only one.
            for other in [p for p in checkpoints.iterdir() if p != newest]:
                shutil.rmtree(other)
        place = newest if whole else checkpoints / "best"
        change(place, chosen)
        if signed:
            sign(place)
        played = sextet("eval", str(place), "--episodes", "1", "--steps", "2")
        fault = played.fault(2)
        figures = {"seconds": round(played.seconds, 3), "played": float(played.code == 0)}
        verdict = "played" if played.code == 0 else "refused"
        if whole:
            resumed = sextet("train", "--resume", "run", "--steps", ENDING, "--no-live")
            fault = fault or resumed.fault(1, 2)
            verdict += ", resumed" if resumed.code == 0 else ", not resumed"
            figures["resumed"] = float(resumed.code == 0)
        left = sorted(path.name for path in Path().iterdir())
        if left != ["run"]:
            fault = f"written outside of the run: {left}"
        return Outcome(kind, verdict, fault, figures)
