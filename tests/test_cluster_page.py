"""`docs/cluster.md`: scripts have the right form, options exist, what was not run says so."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from agent.cli import gather_overrides
from agent.studies.study import shipped

PAGE = (Path(__file__).parent.parent / "docs" / "cluster.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def of(kind: str) -> list[str]:
    return [text for language, text in BLOCKS if language == kind]


def commands() -> list[list[str]]:
    """Every `sextet` and `ray` command of the page."""
    lines = [line for kind in ("", "bash") for text in of(kind) for line in text.splitlines()]
    lines += [document["spec"]["entrypoint"] for document in map(yaml.safe_load, of("yaml"))]
    return [shlex.split(line, comments=True) for line in lines if line.startswith("sextet ")]


def test_the_slurm_script_is_bash_and_asks_slurm_for_what_it_uses():
    [script] = of("bash")
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert script.startswith("#!/bin/bash\n")
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)$", script, re.MULTILINE))
    assert options["ntasks-per-node"] == "1"
    assert {"nodes", "cpus-per-task", "time"} <= options.keys()


def test_the_manifest_is_a_ray_job_with_a_head_and_workers_of_one_image():
    [document] = map(yaml.safe_load, of("yaml"))
    assert (document["apiVersion"], document["kind"]) == ("ray.io/v1", "RayJob")
    cluster = document["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    containers = [one for group in groups for one in group["template"]["spec"]["containers"]]
    assert len({one["image"] for one in containers}) == 1
    assert all(one["volumeMounts"] == containers[0]["volumeMounts"] for one in containers)
    pins = (Path(__file__).parent.parent / "constraints.txt").read_text().splitlines()
    assert f"ray=={cluster['rayVersion']}" in pins


@pytest.mark.parametrize("words", commands(), ids=lambda words: " ".join(words[:3]))
def test_commands_have_options_that_exist(words):
    import typer

    from agent.cli import app

    group = typer.main.get_command(app)
    name, *rest = gather_overrides(words[1:])
    command = group.commands[name]  # type: ignore[attr-defined]
    with command.make_context(name, list(rest)) as context:
        if name == "study" and context.params.get("name"):
            assert context.params["name"] in shipped()


def test_what_was_not_run_says_so():
    assert PAGE.count("was **not run**") == 2
