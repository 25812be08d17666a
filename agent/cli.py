"""The command `sextet`: verbs and flags. Each verb is a function of `agent/commands/`.

This file imports nothing heavy, so that `--help` and a misspelt flag answer at once. Exit codes:
0 done; 2 wrong usage or configuration, one line, nothing created; 1 the run failed, one line;
130 interrupted.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from agent.engines.allocator import keep_freed_memory

app = typer.Typer(
    name="sextet",
    help="Agents of six modules: play, evaluate, take apart.",
    add_completion=False,
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

UNDOTTED = ("--discount", "--sum_critic_every_step", "--td_lambda", "--device")
"""Settings of no module, which may be overridden without a dot."""

TRACES = "--from-traces"
"""The option that takes several values."""

RENAMED = {"--worlds": "--num-envs", "tutor": "tune"}
"""Flags and verbs of version 0.1, and their present names."""

Agent = Annotated[
    str | None,
    typer.Argument(
        metavar="[AGENT|WORLD]",
        help="A bundled agent, a run folder, or a world; nothing: the showpiece.",
    ),
]
Folder = Annotated[Path | None, typer.Option(help="Folder of the run, new.", metavar="DIR")]
Json = Annotated[bool, typer.Option("--json", help="Last line of output: one JSON object.")]
Plugin = Annotated[
    list[str] | None, typer.Option(help="A package whose modules may be used.", metavar="PKG")
]
Compare = Annotated[
    str | None,
    typer.Option(help="Published agents to compare with: SPR,BBF_RR2.", metavar="NAMES"),
]
Traces = Annotated[
    list[Path] | None,
    typer.Option(help="Learn from recorded runs, before or instead of acting.", metavar="RUN…"),
]

SHARED: dict[str, Any] = {
    "seed": Annotated[int | None, typer.Option(help="Decides every random number of the run.")],
    "steps": Annotated[int | None, typer.Option(help="Steps, summed over the environments.")],
    "num_envs": Annotated[int | None, typer.Option(help="Environments side by side.")],
    "protocol": Annotated[str | None, typer.Option(help="Dynamics of an Atari world: v5 or 100k.")],
    "preset": Annotated[
        str | None, typer.Option(help="Settings by name; see `sextet list presets`.")
    ],
    "config": Annotated[Path | None, typer.Option(help="A YAML file of settings.", metavar="FILE")],
    "plugins": Annotated[
        list[str] | None,
        typer.Option("--plugin", help="A package whose modules may be used.", metavar="PKG"),
    ],
    "interventions": Annotated[
        list[str] | None,
        typer.Option(
            "--intervene",
            help="Change the configurator's directive: clamp:mode=1, ablate:u.score, "
            "delay:mode=5, shuffle:mode, swap:200=surprise; may be repeated.",
            metavar="KIND:WHERE",
        ),
    ],
    "overrides": Annotated[list[str] | None, typer.Option("--set", hidden=True)],
}
"""The options by which verbs name agent and world, as keywords of the API; see `_shares`."""

AGENT = tuple(SHARED)
"""The verbs that make an agent have all of them."""


def _shares(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a verb the options `names` of SHARED: as `settings`, and as positional `overrides`.

    The verb is called with `settings`, a dictionary of the options that were used, and
    `overrides`, a list of "a.b=c".
    """

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(verb)
        def with_options(**values: Any) -> None:
            used = {name: values.pop(name) for name in names}
            overrides = used.pop("overrides") or ()
            settings = {name: value for name, value in used.items() if value is not None}
            verb(**values, settings=settings, overrides=overrides)

        own = inspect.signature(verb, eval_str=True).parameters.values()
        parameters = [p for p in own if p.name not in ("settings", "overrides")]
        parameters += [
            inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=SHARED[n])
            for n in names
        ]
        with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        with_options.__annotations__ = {p.name: p.annotation for p in parameters}
        return with_options

    return decorate


def _used(**options: Any) -> dict[str, Any]:
    """The options that were used: those left out keep the default of the API."""
    return {name: value for name, value in options.items() if value is not None}


@app.callback()
def sextet() -> None:
    """Agents of six modules (LeCun 2022). Any setting: --world_model.kind=fair and the like."""


@app.command()
@_shares(*AGENT)
def play(
    settings: dict[str, Any],
    overrides: list[str],
    agent: Agent = None,
    episodes: Annotated[int | None, typer.Option(help="Stop after this many episodes.")] = None,
    run: Folder = None,
    json: Json = False,
    live: Annotated[bool, typer.Option("--live/--no-live", help="The dashboard.")] = True,
    video: Annotated[bool, typer.Option("--video", help="Also film the run (mp4).")] = False,
) -> None:
    """Play a world with all messages between the modules in view. Nothing learns."""
    from agent.commands.play import play as go

    go(agent, *overrides, episodes=episodes, run=run, as_json=json, live_view=live, video=video,
       **settings)  # fmt: skip


@app.command()
@_shares(*AGENT)
def train(
    settings: dict[str, Any],
    overrides: list[str],
    world: Annotated[
        str | None,
        typer.Argument(
            metavar="WORLD", help="A world, or a trained agent: then it begins with its weights."
        ),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Continue a run from its newest checkpoint.")
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="Several, as 0,1,2: a run for each, and a summary.")
    ] = None,
    jobs: Annotated[int, typer.Option(help="Seeds at a time.", min=1)] = 1,
    from_traces: Traces = None,
    run: Folder = None,
    json: Json = False,
    live: Annotated[bool, typer.Option("--live/--no-live", help="Progress as a page.")] = True,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write scalars for TensorBoard.")
    ] = False,
) -> None:
    """Learn in a world: progress, evaluations, checkpoints. Ctrl-C keeps a checkpoint."""
    from agent.commands.train import train as go

    if resume is not None and (world is not None or from_traces):
        raise typer.BadParameter("expected a WORLD, or --resume RUN, one of the two")
    if resume is None and world is None and not from_traces:
        raise typer.BadParameter("expected a WORLD, or --resume RUN, or --from-traces RUN")
    if seeds is not None and ("seed" in settings or resume is not None):
        raise typer.BadParameter("--seeds goes with neither --seed nor --resume")
    go(world, *overrides, run=run, resume=resume, seeds=_whole_numbers("--seeds", seeds) or (),
       jobs=jobs, traces=from_traces or (), tensorboard=tensorboard, as_json=json, live=live,
       **settings)  # fmt: skip


def _whole_numbers(option: str, text: str | None) -> tuple[int, ...] | None:
    """`0,1,2` or `0-11` as numbers, None for None."""
    if text is None:
        return None
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise typer.BadParameter(f"{option}: expected numbers like 0,1,2 or 0-11, got {text!r}")
        numbers += range(int(first), int(last if dash else first) + 1)
    return tuple(numbers)


@app.command()
@_shares("seed", "protocol", "preset", "config", "plugins", "overrides")
def tune(
    settings: dict[str, Any],
    overrides: list[str],
    world: Annotated[str, typer.Argument(metavar="WORLD", help="A world, or an agent in one.")],
    price: Annotated[float, typer.Option(help="Return subtracted for one model call.")] = 0.001,
    generations: Annotated[int, typer.Option(help="Generations of evolution.")] = 10,
    population: Annotated[int, typer.Option(help="Candidates of each, an even number.")] = 8,
    episodes: Annotated[int, typer.Option(help="Episodes that each candidate plays.")] = 4,
    steps: Annotated[int, typer.Option(help="Steps after which an episode is cut.")] = 300,
    from_traces: Traces = None,
    run: Annotated[
        Path | None, typer.Option(help="Folder, new or left unfinished.", metavar="DIR")
    ] = None,
    json: Json = False,
) -> None:
    """Train the learned configurator when to think: return minus a price for each model call."""
    from agent.commands.tune import tune as go

    tuning = {"price": price, "generations": generations, "population": population,
              "episodes": episodes, "steps": steps}  # fmt: skip
    go(world, *overrides, run=run, tuning=tuning, traces=from_traces or (), as_json=json,
       **settings)  # fmt: skip


@app.command("eval")
@_shares(*AGENT)
def evaluate(
    settings: dict[str, Any],
    overrides: list[str],
    agent: Agent = None,
    episodes: Annotated[int | None, typer.Option(help="Whole episodes to play.", min=1)] = None,
    compare: Compare = None,
    json: Json = False,
) -> None:
    """Play whole episodes under a protocol and print their returns. Writes no run folder."""
    from agent.commands.evaluate import evaluate as go

    go(agent, *overrides, as_json=json, compare=compare, **_used(episodes=episodes), **settings)


@app.command()
def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN…", help="Run folders, or folders of run folders.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the report, new.", metavar="DIR")
    ] = None,
    compare: Compare = None,
    json: Json = False,
) -> None:
    """Learning curves and a score table of trained runs, as PNG and Markdown."""
    from agent.commands.report import report as go

    go(runs, out, compare, as_json=json)


@app.command("list")
def listing(
    what: Annotated[str, typer.Argument(metavar="games|worlds|modules|agents|studies|presets")],
    plugin: Plugin = None,
) -> None:
    """All games, worlds, modules and so on, one a line with its name first."""
    from agent.commands.listing import listing as go

    go(what, tuple(plugin or ()))


@app.command()
@_shares(*AGENT)
def config(
    settings: dict[str, Any],
    overrides: list[str],
    agent: Agent = None,
    episodes: Annotated[int | None, typer.Option(help="Stop after this many episodes.")] = None,
) -> None:
    """The complete configuration a command would run with, as YAML."""
    from agent.commands.show import show as go

    go(agent, *overrides, episodes=episodes, **settings)


@app.command()
def study(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME|FILE]", help="See `sextet list studies`.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(help="Runs at a time; nothing: all cores.", min=1)
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Other seeds: 0,1,2 or 0-11.")] = None,
    worlds: Annotated[str | None, typer.Option(help="Other worlds, ids with commas.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="As small as it still works.")] = False,
    run: Annotated[Path | None, typer.Option(help="Folder, new.", metavar="DIR")] = None,
    resume: Annotated[Path | None, typer.Option(help="Continue the folder of a study.")] = None,
    json: Json = False,
) -> None:
    """Paired-seed experiments: worlds × arms × seeds, and a report with intervals and figures."""
    from agent.commands.study import study as go

    if (name is None) == (resume is None):
        raise typer.BadParameter("expected a NAME or FILE, or --resume RUN, one of the two")
    if resume is not None and (seeds or worlds or quick or run):
        raise typer.BadParameter("--resume continues a study as it was begun")
    go(json, name=name, jobs=jobs, seeds=_whole_numbers("--seeds", seeds), quick=quick, run=run,
       worlds=None if worlds is None else worlds.split(","), resume=resume)  # fmt: skip


@app.command()
def view(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN [RUN2]", help="A run folder, or two side by side.")
    ],
    port: Annotated[int | None, typer.Option(help="Where to serve; else the next free.")] = None,
    open_: Annotated[bool, typer.Option("--open/--no-open", help="Open the browser.")] = True,
    export: Annotated[
        Path | None, typer.Option(help="Write the page into one file instead.", metavar="FILE.html")
    ] = None,
    row: Annotated[int, typer.Option(help="Which of the environments side by side.")] = 0,
    plugin: Plugin = None,
) -> None:
    """Look into a recorded run on a page of this machine: every message, future and fork."""
    from agent.commands.view import view as go

    if len(runs) > 2:
        raise typer.BadParameter(f"expected one RUN or two, got {len(runs)}")
    go(tuple(runs), port, open_, export, row, tuple(plugin or ()))


@app.command()
def bench(
    what: Annotated[str, typer.Argument(metavar="loop|world|memory|trace|learn")],
    json: Json = False,
) -> None:
    """Measure the cost of a part of the program on this machine."""
    from agent.commands.bench import bench as go

    go(what, as_json=json)


@app.command()
def fork(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A recorded run.")],
    at: Annotated[int, typer.Option(help="The step to go back to.", metavar="STEP")],
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="MESSAGE.FIELD=VALUE",
            help="The change: directive.mode=2, directive.u.score=0, plan.action=3; "
            "nothing: the control.",
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Turns of the loop after the change (60).")
    ] = None,
    hold: Annotated[
        int | None, typer.Option(help="Steps the change holds (1); 0: all of them.")
    ] = None,
    row: Annotated[int | None, typer.Option(help="Change one environment alone.")] = None,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """Go back to a recorded step, change a message between the modules, compare the futures."""
    from agent.commands.fork import fork as go

    go(run, at, as_json=json, changes=change or (), row=row, plugins=plugin or (),
       **_used(steps=steps, hold=hold))  # fmt: skip


@app.command("check-module")
def check_module(
    kind: Annotated[str, typer.Argument(metavar="KIND")],
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """Check a module against the contract of its port; one line a promise."""
    from agent.commands.check import check as go

    go(kind, tuple(plugin or ()), as_json=json)


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
        if word == TRACES:
            # Every recorded run that follows; a word that is no folder is the world.
            gathered += [word, *waiting[:1]]
            waiting = waiting[1:]
            while waiting and not waiting[0].startswith("-") and Path(waiting[0]).exists():
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command and exits with its code."""
    keep_freed_memory()
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Runs the command and returns its exit code; an error is one line on stderr."""
    # One thread a process: the tensors here are small, and on two shared cores a second thread
    # is slower, sometimes tenfold. Set before torch is first imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    command = typer.main.get_command(app)
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
    return 0


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
        if "Did you mean" not in text and (close := difflib.get_close_matches(word, verbs, n=1)):
            text = f"{text} Did you mean '{close[0]}'?"
    return text


def _complain(text: str, code: int) -> int:
    print(f"sextet: {' '.join(text.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
