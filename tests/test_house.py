"""The house itself: what may import what, what is nowhere, what an installed package can do."""

import ast
import os
import re
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

HOME = Path(__file__).parent.parent
PACKAGES = ("modules", "worlds", "agent")
SOURCES = sorted(path for package in PACKAGES for path in (HOME / package).rglob("*.py"))

RANKS: dict[str, int] = {
    "modules.messages": 0,
    "modules.ports": 1,
    "modules.chance": 1,
    "modules.field_path": 1,
    "modules.plain_yaml": 0,
    "modules.strange_files": 1,
    "modules.suggest": 0,
    "modules.tensor_file": 2,
    "modules.validation": 1,
    "modules.weights": 1,
    "modules.nets": 1,
    "modules.objectives": 2,
    "modules.measures": 2,
    "modules.perception": 3,
    "modules.world_model": 3,
    "modules.cost": 3,
    "modules.memory": 3,
    "modules.actor": 3,
    "modules.configurator": 3,
    "worlds": 3,
    "agent": 4,
    "agent.engines": 5,
    "agent.recording": 5,
    "agent.learning": 6,
    "agent.assembly": 7,
    "agent.api": 8,
    "agent.contracts": 8,
    "agent.counterfactual": 8,
    "agent.tuning": 8,
    "agent.reporting": 8,
    "agent.studies": 9,
    "agent.view": 9,
    "agent.bench": 9,
    "agent.commands": 10,
    "agent.cli": 11,
}
"""The rank of each part of the house; the longest name that fits counts. A part imports parts of
lower rank only: neither upward nor sideways.
"""

WAITING: set[str] = set()
"""Imports that still go up. This set may only shrink."""


def name_of(path: Path) -> str:
    parts = path.relative_to(HOME).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part_of(name: str) -> str:
    fits = [part for part in RANKS if name == part or name.startswith(part + ".")]
    return max(fits, key=len, default="modules")


def imports(path: Path) -> Iterator[str]:
    """What a file of ours imports of ours, lazily or not, as dotted names."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] in PACKAGES)


def test_imports_go_down_and_never_sideways():
    wrong = {
        f"{name_of(path)} imports {target}"
        for path in SOURCES
        # `from agent import load`: the package's front door imports what it offers on demand.
        if (here := part_of(name_of(path))) and name_of(path) != "agent"
        for target in imports(path)
        if (there := part_of(target)) != here and RANKS.get(there, 0) >= RANKS[here]
    }
    assert not wrong - WAITING, "\n".join(sorted(wrong - WAITING))
    assert not WAITING - wrong, f"mended, take out of WAITING: {sorted(WAITING - wrong)}"


def test_few_files_lie_directly_in_the_package():
    assert len(list((HOME / "agent").glob("*.py"))) <= 6


def test_only_assembly_names_concrete_modules():
    may = ("agent.assembly", "agent.bench")
    wrong = [
        f"{name_of(path)} imports {target}"
        for path in SOURCES
        if name_of(path).startswith("agent") and not name_of(path).startswith(may)
        for target in imports(path)
        if target.startswith("modules.")
        and RANKS[part_of(target)] == 3
        # Checking that drives are what they were chooses none of them, nor does reading the
        # settings that all configurators share.
        and not target.startswith(("modules.cost.drives", "modules.configurator.base_directive"))
    ]
    assert not wrong, "\n".join(wrong)


def test_engines_are_the_only_pools():
    """What runs several jobs at a time is an engine; Ray is imported by its engine alone."""
    parts = r"multiprocessing(?!\.connection| import Pipe$)"
    pools = re.compile(rf"^\s*(from|import) (concurrent\.futures|{parts}|ray)\b", re.M)
    may = {"agent/engines/processes.py", "agent/engines/ray_engine.py"}
    found = {
        path.relative_to(HOME).as_posix()
        for folder in (*PACKAGES, "examples", "tests")
        for path in (HOME / folder).rglob("*.py")
        if pools.search(path.read_text(encoding="utf-8"))
    }
    found = {name for name in found if not name.startswith("tests/agent/engines/")}
    assert found == may


def test_the_loop_stays_short():
    assert len((HOME / "agent/agent.py").read_text().splitlines()) < 150


def test_nothing_unpickles():
    wrong = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                names = [f"{node.value.id}.{node.attr}"]
            elif isinstance(node, ast.Name):
                names = [node.id]
            banned = {"pickle", "dill", "joblib", "marshal", "shelve", "torch.load", "torch.save",
                      "yaml.load", "yaml.unsafe_load", "eval", "exec"}  # fmt: skip
            wrong += [f"{name_of(path)}:{node.lineno} {name}" for name in names if name in banned]
    assert not wrong, "\n".join(wrong)


def test_public_classes_have_one_name_each():
    """Two public classes of one name are two ideas that will be confused."""
    names = Counter(
        node.name
        for path in SOURCES
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    # A port and what implements it may share the noun of the paper, and each world of rows has
    # its own handle.
    shared = {"Imagination", "Actor", "Cost", "Handle"}
    assert [name for name, times in names.items() if times > 1 and name not in shared] == []


def test_no_file_is_named_for_what_it_is_not_about():
    vague = re.compile(r"(util|helper|manager|misc|common|base)s?$")
    assert [name_of(p) for p in SOURCES if vague.search(name_of(p).split(".")[-1])] == []


def test_nothing_is_left_for_later():
    # Put together here so that this file does not find itself.
    marks = re.compile("|".join(("TO" + "DO", "FIX" + "ME", "X" * 3, "Not" + "Implemented")))
    wrong = [
        f"{path.relative_to(HOME)}:{number}"
        for path in [*SOURCES, *sorted((HOME / "tests").rglob("*.py"))]
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if marks.search(line)
    ]
    assert not wrong, wrong


def test_importing_the_command_does_not_import_torch():
    """`--help` and a misspelt flag answer at once."""
    done = subprocess.run(
        [sys.executable, "-c", "import agent.cli, sys; sys.exit('torch' in sys.modules)"],
        cwd=HOME, check=False,
    )  # fmt: skip
    assert done.returncode == 0


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place where the built wheel is unpacked, as pip would."""
    place = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "--wheel-dir", str(place), str(HOME)],
        check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = place.glob("*.whl")
    site = place / "site"
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(site)
    return site


def command(installed: Path, at: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # -P keeps the current folder out; the wheel comes before any checkout.
    return subprocess.run(
        [sys.executable, "-P", "-m", "agent.cli", *arguments],
        cwd=at, env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_an_installed_wheel_works_outside_the_repository(installed: Path, tmp_path: Path):
    shown = command(installed, tmp_path, "config", "CartPole-v1", "--preset", "reactive")
    assert shown.returncode == 0, shown.stderr
    assert "kind: fixed" in shown.stdout
    played = command(installed, tmp_path, "play", "CartPole-v1", "--steps", "20", "--no-live")
    assert played.returncode == 0, played.stderr
    assert (tmp_path / "runs" / "play-cartpole-v1-1" / "summary.png").is_file()


def test_a_wheel_holds_what_is_not_python_too(installed: Path):
    kept = {path.relative_to(installed).as_posix() for path in installed.rglob("*")}
    for pattern in (
        "agent/assembly/bundled/**/*.yaml",
        "agent/assembly/presets/*.yaml",
        "agent/studies/*.j2",
        "agent/studies/catalog/*.yaml",
        "worlds/data/*",
    ):
        for path in HOME.glob(pattern):
            assert path.relative_to(HOME).as_posix() in kept
