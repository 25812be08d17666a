"""Ray: a real cluster of three nodes on this machine, killed nodes, workers of two versions."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
import ray
import yaml

from agent.cli import run as command
from agent.engines import ledger
from agent.engines.choice import engine_for
from agent.engines.engine import Job, JobError
from agent.engines.processes import ProcessEngine
from agent.engines.ray_engine import MOST_RETRIES, RayEngine
from agent.engines.serial import SerialEngine
from agent.recording.atomic import writing
from agent.studies.conduct import study
from modules.messages import ConfigError

HOME = Path(__file__).parents[3]

TINY = {
    "name": "tiny",
    "question": "Does thinking pay?",
    "worlds": [{"id": "CartPole-v1", "steps": 10}],
    "base": {"directive": {"model_calls": 8, "horizon_steps": 3}, "memory.capacity": 100},
    "arms": {
        "acts": {"settings": {"configurator": {"kind": "fixed", "mode": 1}}},
        "thinks": {"settings": {"configurator": {"kind": "fixed", "mode": 2}}},
    },
    "seeds": [0, 1, 2],
    "measures": ["return", "model_calls", "cpu_s"],
}


@pytest.fixture(scope="module")
def cluster():
    """A head node without processors, and two nodes with one each."""
    from ray.cluster_utils import Cluster

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(2):
        made.add_node(num_cpus=1)
    yield made
    made.shutdown()


@pytest.fixture(scope="module")
def connected(cluster, tmp_path_factory):
    """One connection for all tests: with each one workers start anew, which takes seconds."""
    before = Path.cwd()
    # Workers look for modules in the folder where a driver connects, before all others: here they
    # are to find those of their own installation.
    os.chdir(tmp_path_factory.mktemp("driver"))
    with ExitStack() as stack:
        try:
            made = stack.enter_context(RayEngine(address=cluster.address))
            list(made.map([Job("first", first)]))
        finally:
            os.chdir(before)
        yield made


@pytest.fixture
def engine(connected):
    connected.shared = None
    return connected


def tiny(place: Path, **changes: object) -> Path:
    file = place / "tiny.yaml"
    file.write_text(yaml.safe_dump({**TINY, **changes}))
    return file


# -- jobs ---------------------------------------------------------------------------------------


def first(folder, report):
    return "reached"


def square(number, folder, report):
    report(("seen", number))
    return number * number


def grow(folder, report):
    """Adds a line to a file of the folder, and 9 MB once."""
    folder.mkdir(exist_ok=True)
    with open(folder / "lines", "a") as file:
        file.write("line\n")
    (folder / "deep").mkdir(exist_ok=True)
    (folder / "deep" / "large").write_bytes(bytes(range(256)) * 36_000)
    (folder / "deep" / "empty").touch()


def die_once(marker, folder, report):
    report("begun")
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def die(folder, report):
    os.kill(os.getpid(), signal.SIGKILL)


def fill_the_disk(folder, report):
    folder.mkdir()
    with writing(folder / "weights"), open("/dev/full", "wb", buffering=0) as file:
        file.write(b"x")


def test_results_reports_and_places(engine):
    jobs = [Job(f"square {n}", functools.partial(square, n)) for n in range(5)]
    reports = []
    results = list(engine.map(jobs, lambda job, value: reports.append((job.name, value))))
    assert {one.job.name: one.value for one in results} == {f"square {n}": n * n for n in range(5)}
    assert sorted(reports) == [(f"square {n}", ("seen", n)) for n in range(5)]
    assert all(one.retries == 0 and one.where.pid != os.getpid() for one in results)
    assert {one.where.host for one in results} == {socket.gethostname()}
    assert list(engine.map([])) == []


@pytest.mark.parametrize("shared", [None, False])
def test_a_folder_appears_whole_and_a_resumable_one_goes_on(engine, shared, tmp_path):
    """On a shared disk, and in pieces where the worker has a disk of its own."""
    engine.shared = shared
    once, again = tmp_path / "once", tmp_path / "again"
    for _ in range(2):
        list(engine.map([Job("again", grow, again, resumes=True)]))
    list(engine.map([Job("once", grow, once)]))
    assert (once / "lines").read_text() == "line\n"
    assert (again / "lines").read_text() == "line\nline\n"
    for folder in (once, again):
        assert (folder / "deep" / "large").read_bytes() == bytes(range(256)) * 36_000
        assert (folder / "deep" / "empty").read_bytes() == b""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "once"]


def test_the_death_of_a_worker_is_a_retry_that_is_counted(engine, tmp_path):
    job = Job("it", functools.partial(die_once, tmp_path / "marker"))
    [result] = engine.map([job])
    assert (result.value, result.retries) == ("done", 1)
    with pytest.raises(JobError, match=rf"^always: {MOST_RETRIES + 1} workers died"):
        list(engine.map([Job("always", die)]))


@pytest.mark.parametrize("shared", [None, False])
def test_a_full_disk_on_a_worker_is_one_line_and_nothing_is_done(engine, shared, tmp_path):
    engine.shared = shared
    with pytest.raises(JobError) as error:
        list(engine.map([Job("it", fill_the_disk, tmp_path / "it")]))
    assert str(error.value).startswith("it: ")
    assert str(error.value).endswith("No space left on device; free some space")
    assert not (tmp_path / "it").exists()


def test_what_a_job_reads_must_be_on_the_worker(engine, tmp_path):
    missing = tmp_path / "missing"
    with pytest.raises(JobError, match=f"^it: expected '{missing}' on .*, too, got nothing there"):
        list(engine.map([Job("it", functools.partial(square, 1), reads=(missing,))]))


# -- studies ------------------------------------------------------------------------------------


def test_a_study_has_the_same_results_on_every_engine(engine, tmp_path):
    file, tables = tiny(tmp_path), {}
    for name, chosen in (("serial", SerialEngine()), ("processes", ProcessEngine(2)),
                         ("ray", engine)):  # fmt: skip
        study(file, run=tmp_path / name, engine=chosen)
        tables[name] = (tmp_path / name / "results.csv").read_bytes()
    assert tables["serial"].count(b"\n") == 7
    assert tables["serial"] == tables["processes"] == tables["ray"]
    assert b"cpu_s" not in tables["ray"]
    lines = ledger.entries(tmp_path / "ray")
    assert len(lines) == 6
    assert {"name", "seconds", "host", "processor", "retries"} <= lines[0].keys()


def test_a_node_killed_in_the_middle_of_a_study(cluster, engine, tmp_path):
    """Finished, nothing lost, nothing twice, and the report says that jobs were repeated."""
    worlds = [{"id": "CartPole-v1", "steps": 1200}]
    base = {"directive": {"model_calls": 64, "horizon_steps": 8}, "memory.capacity": 100}
    arms, seeds = {"thinks": TINY["arms"]["thinks"]}, [0, 1, 2, 3]
    file = tiny(tmp_path, worlds=worlds, base=base, arms=arms, seeds=seeds)
    killed = []

    def kill(_: object) -> None:
        """Kills both nodes, at least one of which has a job under way, and adds another one."""
        if not killed:
            killed.extend(cluster.worker_nodes)
            for node in killed:
                cluster.remove_node(node, allow_graceful=False)
            cluster.add_node(num_cpus=1)

    study(file, run=tmp_path / "out", engine=engine, on_progress=kill)
    lines = ledger.entries(tmp_path / "out")
    assert sorted(line["name"] for line in lines) == [
        f"thinks · CartPole-v1 · seed {seed}" for seed in seeds
    ]
    assert sum(line["retries"] for line in lines) >= 1
    assert "Repeated: the worker of" in (tmp_path / "out" / "report.md").read_text()
    assert not list((tmp_path / "out" / "runs").glob(".part-*"))
    study(file, run=tmp_path / "serial", engine=SerialEngine())
    tables = [(tmp_path / name / "results.csv").read_bytes() for name in ("out", "serial")]
    assert tables[0] == tables[1]


def test_the_driver_killed_and_resumed(cluster, engine, tmp_path):
    file, out = tiny(tmp_path, seeds=[0, 1, 2, 3]), tmp_path / "out"
    child = subprocess.Popen(
        [sys.executable, "-m", "agent.cli", "study", str(file), "--run", str(out), "--engine",
         "ray", "--address", cluster.address],
        cwd=HOME, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    first = child.stdout.readline()
    child.kill()
    child.wait()
    child.stdout.close()
    assert first.startswith("1/8")
    done = {path: path.stat().st_mtime_ns for path in (out / "runs").glob("[!.]*/result.json")}
    assert done
    progress = []
    study(resume=out, engine=engine, on_progress=progress.append)
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert len(list((out / "runs").glob("[!.]*/result.json"))) == 8
    # What the killed driver had entered is not done again; at most the jobs under way are.
    assert len(progress) <= 8 - len(done)


# -- what is refused ----------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_a_local_cluster_outlives_the_thread_that_maps():
    """A training with workers maps each segment in a thread of its own."""
    program = (
        "import threading\n"
        "from agent.engines.engine import Job\n"
        "from agent.engines.ray_engine import RayEngine\n"
        "done = []\n"
        "with RayEngine(jobs=1) as engine:\n"
        "    for segment in range(2):\n"
        "        mapped = lambda: done.extend(engine.map([Job('one', lambda _, report: 1)]))\n"
        "        thread = threading.Thread(target=mapped)\n"
        "        thread.start()\n"
        "        thread.join(40)\n"
        "print(len(done))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=HOME, capture_output=True, text=True, timeout=100,
        check=False,
    )  # fmt: skip
    assert ended.stdout.strip() == "2", ended.stderr


def test_a_cluster_that_is_not_there_is_one_line(tmp_path, capsys):
    file, out = str(tiny(tmp_path)), tmp_path / "out"
    for address, line in (
        (f"127.0.0.1:{free_port()}", "got: Connection refused; start one with `ray start --head`"),
        ("nowhere", "expected HOST:PORT or auto, got 'nowhere'"),
        ("ray://head:10001", "expected HOST:PORT or auto, got 'ray://head:10001'"),
    ):
        began = time.monotonic()
        words = ["study", file, "--run", str(out), "--engine", "ray", "--address", address]
        assert command(words) == 2
        error = capsys.readouterr().err
        assert line in error
        assert error.count("\n") == 1
        assert time.monotonic() - began < 60
    assert not out.exists()


def test_what_does_not_fit_together_is_one_line():
    for wrong, line in (
        ({"name": "rya"}, "--engine: 'rya' is not one of serial, processes, ray"),
        ({"name": "processes", "address": "h:1"}, "got --engine processes; use ray"),
        ({"name": "serial", "jobs": 2}, "expected 1 with --engine serial, got 2"),
    ):
        with pytest.raises(ConfigError) as error:
            engine_for(**wrong)
        assert line in str(error.value)


def test_without_ray_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "agent.engines.ray_engine", raising=False)
    monkeypatch.delattr("agent.engines.ray_engine", raising=False)
    with pytest.raises(ConfigError, match=r"pip install -c constraints\.txt -e \.\[ray\]$"):
        engine_for("ray")


def test_the_package_does_not_import_ray():
    program = (
        "import sys, agent.cli, agent.commands.study, agent.commands.train, agent.commands.tune, "
        "agent.commands.evaluate; sys.exit('ray' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=HOME, check=False).returncode == 0


def test_a_worker_with_another_version_of_the_package(cluster, engine, tmp_path):
    for package in ("agent", "modules", "worlds"):
        large = shutil.ignore_patterns("*.safetensors", "__pycache__")
        shutil.copytree(HOME / package, tmp_path / "other" / package, ignore=large)
    changed = tmp_path / "other" / "modules" / "chance.py"
    changed.write_text(changed.read_text() + "\n# another version\n")
    others = list(cluster.worker_nodes)
    cluster.add_node(num_cpus=1, env_vars={"PYTHONPATH": str(tmp_path / "other")})
    for node in others:
        cluster.remove_node(node, allow_graceful=False)
    until = time.monotonic() + 120
    while ray.cluster_resources().get("CPU", 0) > 1 and time.monotonic() < until:
        time.sleep(0.2)
    with pytest.raises(JobError, match="has another version of Sextet or of its libraries"):
        list(engine.map([Job("it", first)]))
