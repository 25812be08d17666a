"""The command `sextet`: verbs and flags. Each verb is a function of `agent/commands/`.

A function here declares the options of a verb, and the function of its name in `agent/commands/`
is called with those that were used. This file imports nothing heavy, so that `--help` and a
misspelt flag answer at once. Exit codes: 0 done; 2 wrong usage or configuration, one line, nothing
created; 1 the run failed, one line; 130 interrupted.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from agent.engines.allocator import keep_freed_memory
from modules.suggest import suggestion

app = typer.Typer(
    name="sextet",
    help="Agents of six modules: play, evaluate, take apart.",
    add_completion=False,
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

UNDOTTED = ("--discount", "--sum_critic_every_step", "--td_lambda", "--branch_steps", "--device")
"""Settings of no module, which may be overridden without a dot."""

SEVERAL = ("--from", "--expert")
"""The options that take several values."""

RENAMED = {"--worlds": "--num-envs", "tutor": "tune", "--from-traces": "--from"}
"""Flags and verbs of version 0.1, and their present names."""

Agent = Annotated[
    str | None,
    Argument(
        metavar="[AGENT|WORLD]",
        help="A bundled agent, a run folder, or a world; nothing: the showpiece.",
    ),
]
Folder = Annotated[Path | None, Option(help="Folder, new.", metavar="DIR")]
Json = Annotated[bool, Option("--json", help="Last line of output: one JSON object.")]
Compare = Annotated[
    str | None,
    Option(help="Published agents to compare with: SPR,BBF_RR2.", metavar="NAMES"),
]
Episodes = Annotated[int | None, Option(help="Stop after this many episodes.", min=1)]
Recordings = Annotated[
    list[Path] | None,
    Option(
        "--from",
        help="Recordings to learn from instead of acting: runs, Minari datasets, films, folders of "
        "pictures. Of tune: runs.",
        metavar="RECORDING…",
    ),
]
Plugins = Annotated[
    list[str] | None,
    Option("--plugin", help="A package whose modules may be used.", metavar="PKG"),
]

ENGINE: dict[str, Any] = {
    "jobs": Annotated[
        int | None,
        Option(
            help="Jobs at a time; nothing: a study one a core, train one seed, a cluster as many "
            "as it has processors.",
            min=1,
        ),
    ],
    "engine": Annotated[
        str | None, Option(help="Where jobs run: serial, processes, ray.", metavar="NAME")
    ],
    "address": Annotated[
        str | None,
        Option(help="With --engine ray: the head node; nothing: here.", metavar="HOST:PORT"),
    ],
}
"""The options of verbs that run many independent jobs."""

AGENT: dict[str, Any] = {
    "seed": Annotated[int | None, Option(help="Decides every random number of the run.")],
    "steps": Annotated[int | None, Option(help="Steps, summed over the environments.")],
    "num_envs": Annotated[int | None, Option(help="Environments side by side.")],
    "protocol": Annotated[str | None, Option(help="Dynamics of an Atari world: v5 or 100k.")],
    "isolate": Annotated[
        bool | None, Option("--isolate", help="The world in a process of its own; not for Atari.")
    ],
    "preset": Annotated[str | None, Option(help="Settings by name; see `sextet list presets`.")],
    "config": Annotated[Path | None, Option(help="A YAML file of settings.", metavar="FILE")],
    "plugins": Plugins,
    "interventions": Annotated[
        list[str] | None,
        Option(
            "--intervene",
            help="Change the configurator's directive: clamp:mode=1, ablate:u.score, "
            "delay:mode=5, shuffle:mode, swap:200=surprise; may be repeated.",
            metavar="KIND:WHERE",
        ),
    ],
    "overrides": Annotated[list[str] | None, Option("--set", hidden=True)],
}
"""The options by which verbs name agent and world, as keywords of the API."""

SHARED = AGENT | ENGINE


def _verb(name: str | None = None, shared: Iterable[str] = ()) -> Callable[..., Any]:
    """Adds a verb with the options of a function and those of SHARED that `shared` names.

    `name`: the verb, if it is not the function's name. Options that are not used keep the default
    of the command.
    """

    def decorate(declared: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(declared)
        def carry_out(**options: Any) -> None:
            command = importlib.import_module(f"agent.commands.{declared.__name__}")
            used = {name: value for name, value in options.items() if value is not None}
            getattr(command, declared.__name__)(**used)

        parameters = [*inspect.signature(declared, eval_str=True).parameters.values()]
        parameters += [
            inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=SHARED[n])
            for n in shared
        ]
        carry_out.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        carry_out.__annotations__ = {p.name: p.annotation for p in parameters}
        return app.command(name)(carry_out)

    return decorate


@app.callback()
def sextet() -> None:
    """Agents of six modules (LeCun 2022). Any setting: --world_model.kind=fair and the like."""


@_verb(shared=AGENT)
def play(
    agent: Agent = None,
    episodes: Episodes = None,
    run: Folder = None,
    as_json: Json = False,
    live: Annotated[bool, Option("--live/--no-live", help="The dashboard.")] = True,
    video: Annotated[bool, Option("--video", help="Also film the run (mp4).")] = False,
) -> None:
    """Play a world with all messages between the modules in view. Nothing learns."""


@_verb(shared=SHARED)
def train(
    world: Annotated[
        str | None,
        Argument(
            metavar="WORLD", help="A world, or a trained agent: then it begins with its weights."
        ),
    ] = None,
    resume: Annotated[
        Path | None, Option(help="Continue a run from its newest checkpoint.")
    ] = None,
    from_step: Annotated[
        int | None, Option(help="With --resume: continue from the checkpoint at this step.", min=0)
    ] = None,
    seeds: Annotated[
        str | None, Option(help="Several, as 0,1,2: a run for each, and a summary.")
    ] = None,
    recordings: Recordings = None,
    experts: Annotated[
        list[Path] | None,
        Option("--expert", help="As --from, of an expert to imitate.", metavar="RECORDING…"),
    ] = None,
    run: Folder = None,
    as_json: Json = False,
    live: Annotated[bool, Option("--live/--no-live", help="Progress as a page.")] = True,
    tensorboard: Annotated[
        bool, Option("--tensorboard", help="Also write scalars for TensorBoard.")
    ] = False,
) -> None:
    """Learn in a world: progress, evaluations, checkpoints. Ctrl-C keeps a checkpoint."""


@_verb(shared=("seed", "protocol", "preset", "config", "plugins", "overrides", *ENGINE))
def tune(
    world: Annotated[str, Argument(metavar="WORLD", help="A world, or an agent in one.")],
    price: Annotated[float, Option(help="Return subtracted for one model call.")] = 0.001,
    generations: Annotated[int, Option(help="Generations of evolution.")] = 10,
    population: Annotated[int, Option(help="Candidates of each, an even number.")] = 8,
    episodes: Annotated[int, Option(help="Episodes that each candidate plays.")] = 4,
    steps: Annotated[int, Option(help="Steps after which an episode is cut.")] = 300,
    recordings: Recordings = None,
    run: Annotated[
        Path | None, Option(help="Folder, new or left unfinished.", metavar="DIR")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train the learned configurator when to think: return minus a price for each model call."""


@_verb("eval", shared=SHARED)
def evaluate(
    agent: Agent = None,
    episodes: Annotated[int | None, Option(help="Whole episodes to play.", min=1)] = None,
    compare: Compare = None,
    as_json: Json = False,
) -> None:
    """Play whole episodes under a protocol and print their returns. Writes no run folder."""


@_verb()
def report(
    runs: Annotated[
        list[Path], Argument(metavar="RUN…", help="Run folders, or folders of run folders.")
    ],
    out: Folder = None,
    compare: Compare = None,
    as_json: Json = False,
) -> None:
    """Learning curves and a score table of trained runs, as PNG and Markdown."""


@_verb("list")
def listing(
    what: Annotated[str, Argument(metavar="games|worlds|modules|agents|studies|presets")],
    plugins: Plugins = None,
) -> None:
    """All games, worlds, modules and so on, one a line with its name first."""


@_verb("config", shared=AGENT)
def show(agent: Agent = None, episodes: Episodes = None) -> None:
    """The complete configuration a command would run with, as YAML."""


@_verb(shared=ENGINE)
def study(
    name: Annotated[
        str | None, Argument(metavar="[NAME|FILE]", help="See `sextet list studies`.")
    ] = None,
    seeds: Annotated[str | None, Option(help="Other seeds: 0,1,2 or 0-11.")] = None,
    worlds: Annotated[str | None, Option(help="Other worlds, ids with commas.")] = None,
    quick: Annotated[bool, Option("--quick", help="As small as it still works.")] = False,
    run: Folder = None,
    resume: Annotated[Path | None, Option(help="Continue the folder of a study.")] = None,
    plugins: Plugins = None,
    as_json: Json = False,
) -> None:
    """Paired-seed experiments: worlds × arms × seeds, and a report with intervals and figures."""


@_verb()
def view(
    runs: Annotated[
        list[Path], Argument(metavar="RUN [RUN2]", help="A run folder, or two side by side.")
    ],
    port: Annotated[int | None, Option(help="Where to serve; else the next free.")] = None,
    browse: Annotated[bool, Option("--open/--no-open", help="Open the browser.")] = True,
    export: Annotated[
        Path | None, Option(help="Write the page into one file instead.", metavar="FILE.html")
    ] = None,
    row: Annotated[int, Option(help="Which of the environments side by side.")] = 0,
    plugins: Plugins = None,
) -> None:
    """Look into a recorded run on a page of this machine: every message, future and fork."""


@_verb()
def bench(
    what: Annotated[str, Argument(metavar="learn|loop|memory|ports|trace|world")],
    as_json: Json = False,
) -> None:
    """Measure the cost of a part of the program on this machine."""


@_verb()
def fork(
    run: Annotated[Path, Argument(metavar="RUN", help="A recorded run.")],
    at: Annotated[int, Option(help="The step to go back to.", metavar="STEP")],
    changes: Annotated[
        list[str] | None,
        Option(
            "--set",
            metavar="MESSAGE.FIELD=VALUE",
            help="The change: directive.mode=2, directive.u.score=0, plan.action=3; "
            "nothing: the control.",
        ),
    ] = None,
    steps: Annotated[int | None, Option(help="Turns of the loop after the change (60).")] = None,
    hold: Annotated[int | None, Option(help="Steps the change holds (1); 0: all of them.")] = None,
    row: Annotated[int | None, Option(help="Change one environment alone.")] = None,
    plugins: Plugins = None,
    as_json: Json = False,
) -> None:
    """Go back to a recorded step, change a message between the modules, compare the futures."""


@_verb()
def export(
    recording: Annotated[
        Path, Argument(metavar="RECORDING", help="A recorded run, or a Minari dataset.")
    ],
    to: Annotated[Path, Option(help="The Minari dataset, a new folder.", metavar="DIR")],
    as_json: Json = False,
) -> None:
    """Write a recording as a Minari dataset, the public format of offline episodes."""


@_verb("check-module")
def check(
    kind: Annotated[str, Argument(metavar="KIND")],
    plugins: Plugins = None,
    as_json: Json = False,
) -> None:
    """Check a module against the contract of its port; one line a promise."""


# -- the edge ---------------------------------------------------------------------------------


def gather_overrides(arguments: Sequence[str]) -> list[str]:
    """`--a.b=c` and `--a.b c` as `--set a.b=c`, the rest as it is; nothing behind `--` changes."""
    gathered: list[str] = []
    waiting = list(arguments)
    while waiting:
        word = waiting.pop(0)
        if word == "--":
            return [*gathered, word, *waiting]
        name, equals, value = word.partition("=")
        if word in SEVERAL:
            # Every recording that follows; a word that is no file or folder is the world.
            gathered += [word, *waiting[:1]]
            waiting = waiting[1:]
            while waiting and not waiting[0].startswith("-") and _is_recording(waiting[0]):
                gathered += [word, waiting.pop(0)]
            continue
        if not name.startswith("--") or not ("." in name or name in UNDOTTED):
            gathered.append(word)
            continue
        if not equals:
            if not waiting or waiting[0].startswith("--"):
                raise typer.BadParameter(f"{name}: expected a value, as in {name}=VALUE")
            value = waiting.pop(0)
        gathered += ["--set", f"{name.removeprefix('--')}={value}"]
    return gathered


def _is_recording(word: str) -> bool:
    return word.startswith("minari:") or Path(word).exists()


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command and exits with its code. SIGTERM and SIGHUP do what Ctrl-C does."""
    keep_freed_memory()
    for number in (signal.SIGTERM, signal.SIGHUP):
        # One that is ignored, as by nohup, stays so.
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Runs the command and returns its exit code; an error is one line on stderr."""
    # One thread a process: the tensors here are small, and on two shared cores a second thread
    # is slower, sometimes tenfold. Set before torch is first imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    command = typer.main.get_command(app)
    log, notes = logging.getLogger("sextet"), _Notes()
    log.addHandler(notes)
    try:
        # Not by its `main`, which handles Ctrl-C and a closed pipe in its own way.
        with command.make_context("sextet", gather_overrides(arguments)) as context:
            command.invoke(context)
    except typer.Exit as done:
        return int(done.exit_code)
    except KeyboardInterrupt:
        return _complain("stopped", 130)
    except BrokenPipeError:
        # The reader of the output has closed it (`sextet list games | head`).
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        return 0
    except Exception as error:
        return _explain(error)
    finally:
        log.removeHandler(notes)
    return 0


class _Notes(logging.Handler):
    """Prints what the program logs for the user, a line each, on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        print(f"note      {' '.join(record.getMessage().split())}", file=sys.stderr)


def _explain(error: Exception) -> int:
    """Prints an error in one line; returns its exit code."""
    if os.environ.get("SEXTET_TRACEBACK"):
        import traceback

        traceback.print_exception(error)
    if hasattr(error, "format_message"):  # an error of typer
        return _complain(_usage(error), 2)
    if hasattr(error, "exit_code"):  # a SextetError
        return _complain(str(error), error.exit_code)
    return _complain(f"{type(error).__name__}: {error}", 1)


def _usage(error: Any) -> str:
    """A usage error, with the present name of a renamed verb or flag, or a similar verb."""
    text = str(error.format_message())
    if (context := getattr(error, "ctx", None)) is not None:
        word = getattr(error, "option_name", None) or "".join(text.split("'")[1:2])
        verbs = list(getattr(context.command, "commands", {}))
        if word in RENAMED:
            return f"{word} is now {RENAMED[word]}"
        if "Did you mean" not in text:
            text = text.removesuffix(".") + (suggestion(word, verbs) or ".")
    return text


def _complain(text: str, code: int) -> int:
    print(f"sextet: {' '.join(text.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
