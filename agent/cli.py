"""The command `sextet`: verbs and flags. What a verb does is in `agent/commands/`.

This file imports nothing heavy, so that `--help` and a misspelt flag answer at once. Exit codes:
0 done; 2 wrong usage or configuration, one line, nothing created; 1 the run failed, one line.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

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

Agent = Annotated[
    str | None,
    typer.Argument(
        metavar="[AGENT|WORLD]",
        help="A bundled agent, a run folder, or a world; nothing: the showpiece.",
    ),
]
Seed = Annotated[int | None, typer.Option(help="Decides every random number of the run.")]
Worlds = Annotated[int | None, typer.Option(help="Worlds lived in side by side.")]
Protocol = Annotated[str | None, typer.Option(help="Dynamics of an Atari world: v5 or 100k.")]
Preset = Annotated[str | None, typer.Option(help="Settings by name; see `sextet list presets`.")]
Config = Annotated[Path | None, typer.Option(help="A YAML file of settings.", metavar="FILE")]
Plugin = Annotated[
    list[str] | None, typer.Option(help="A package whose modules may be used.", metavar="PKG")
]
Intervene = Annotated[
    list[str] | None,
    typer.Option(
        help="Change what the configurator says: clamp:mode=1, ablate:u.score, delay:mode=5, "
        "shuffle:mode, swap:200=surprise; may be repeated.",
        metavar="KIND:WHERE",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Last line of output: one JSON object.")]
Compare = Annotated[
    str | None,
    typer.Option(help="Published agents to stand beside: SPR,BBF_RR2.", metavar="NAMES"),
]
Override = Annotated[list[str] | None, typer.Option("--set", hidden=True)]


@app.callback()
def sextet() -> None:
    """Agents of six modules (LeCun 2022). Any setting: --world_model.kind=fair and the like."""


def _request(
    agent: str | None,
    preset: str | None,
    config: Path | None,
    plugins: list[str] | None,
    overrides: list[str] | None,
    intervene: list[str] | None = None,
    **flags: Any,
) -> Any:
    from agent.assembly.load import RunRequest

    return RunRequest(
        agent=agent,
        preset=preset,
        config=config,
        plugins=tuple(plugins or ()),
        overrides=tuple(overrides or ()),
        interventions=tuple(intervene or ()),
        flags={name: value for name, value in flags.items() if value is not None},
    )


@app.command()
def play(
    agent: Agent = None,
    seed: Seed = None,
    steps: Annotated[int | None, typer.Option(help="Steps, summed over the worlds.")] = None,
    episodes: Annotated[int | None, typer.Option(help="Stop after so many episodes.")] = None,
    worlds: Worlds = None,
    protocol: Protocol = None,
    preset: Preset = None,
    config: Config = None,
    plugin: Plugin = None,
    run: Annotated[Path | None, typer.Option(help="Folder of the run, new.", metavar="DIR")] = None,
    json: Json = False,
    live: Annotated[bool, typer.Option("--live/--no-live", help="The dashboard.")] = True,
    video: Annotated[bool, typer.Option("--video", help="Also film the run (mp4).")] = False,
    intervene: Intervene = None,
    override: Override = None,
) -> None:
    """Play a world with everything said between the modules in view. Nothing learns."""
    from agent.commands.play import play as go

    request = _request(
        agent,
        preset,
        config,
        plugin,
        override,
        intervene,
        seed=seed,
        steps=steps,
        episodes=episodes,
        worlds=worlds,
        protocol=protocol,
    )
    go(request, run=run, as_json=json, live_view=live, video=video)


@app.command()
def train(
    world: Annotated[
        str | None,
        typer.Argument(
            metavar="WORLD", help="A world, or a trained agent: then it begins with its weights."
        ),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with a run, from its newest checkpoint.")
    ] = None,
    seed: Seed = None,
    seeds: Annotated[
        str | None, typer.Option(help="Several, as 0,1,2: a run for each, and a summary.")
    ] = None,
    jobs: Annotated[int, typer.Option(help="How many seeds at a time.", min=1)] = 1,
    steps: Annotated[int | None, typer.Option(help="Steps, summed over the worlds.")] = None,
    worlds: Worlds = None,
    protocol: Protocol = None,
    preset: Preset = None,
    config: Config = None,
    plugin: Plugin = None,
    from_traces: Annotated[
        list[Path] | None,
        typer.Option(help="Learn from recorded runs instead of living.", metavar="RUN…"),
    ] = None,
    run: Annotated[Path | None, typer.Option(help="Folder of the run, new.", metavar="DIR")] = None,
    json: Json = False,
    live: Annotated[bool, typer.Option("--live/--no-live", help="Progress as a page.")] = True,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write scalars for TensorBoard.")
    ] = False,
    only: Annotated[int | None, typer.Option(hidden=True)] = None,
    parent: Annotated[int, typer.Option(hidden=True)] = 0,
    intervene: Intervene = None,
    override: Override = None,
) -> None:
    """Learn in a world: progress, evaluations, checkpoints. Ctrl-C keeps what was learned."""
    from agent.commands.train import train as go

    if resume is not None and (world is not None or from_traces):
        raise typer.BadParameter("expected a WORLD, or --resume RUN, one of the two")
    if resume is None and world is None and not from_traces:
        raise typer.BadParameter("expected a WORLD, or --resume RUN, or --from-traces RUN")
    if seeds is not None and (seed is not None or resume is not None):
        raise typer.BadParameter("--seeds goes with neither --seed nor --resume")
    request = _request(
        world,
        preset,
        config,
        plugin,
        override,
        intervene,
        seed=seed,
        steps=steps,
        worlds=worlds,
        protocol=protocol,
    )
    go(
        request,
        run=run,
        resume=resume,
        as_json=json,
        seeds=_whole_numbers("--seeds", seeds),
        jobs=jobs,
        only=only,
        parent=parent,
        traces=tuple(from_traces or ()),
        tensorboard=tensorboard,
        live=live,
    )


def _whole_numbers(option: str, text: str | None) -> tuple[int, ...]:
    """`0,1,2` as numbers."""
    if text is None:
        return ()
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{option}: expected numbers as 0,1,2, got {text!r}") from None


@app.command()
def tutor(
    world: Annotated[str, typer.Argument(metavar="WORLD", help="A world, or an agent in one.")],
    price: Annotated[float, typer.Option(help="Return given up for one model call.")] = 0.001,
    generations: Annotated[int, typer.Option(help="Generations of evolution.")] = 10,
    population: Annotated[int, typer.Option(help="Candidates of each, an even number.")] = 8,
    episodes: Annotated[int, typer.Option(help="Episodes each candidate lives.")] = 4,
    steps: Annotated[int, typer.Option(help="Steps after which an episode is cut.")] = 300,
    from_traces: Annotated[
        list[Path] | None,
        typer.Option(help="Learn from recorded runs first.", metavar="RUN…"),
    ] = None,
    seed: Seed = None,
    protocol: Protocol = None,
    preset: Preset = None,
    config: Config = None,
    plugin: Plugin = None,
    run: Annotated[
        Path | None, typer.Option(help="Folder, new or left unfinished.", metavar="DIR")
    ] = None,
    json: Json = False,
    override: Override = None,
) -> None:
    """Teach the learned configurator when to think: return minus a price for each model call."""
    from agent.commands.tutor import tutor as go

    request = _request(world, preset, config, plugin, override, seed=seed, protocol=protocol)
    go(
        request,
        run,
        price=price,
        generations=generations,
        population=population,
        episodes=episodes,
        steps=steps,
        traces=tuple(from_traces or ()),
        as_json=json,
    )


@app.command("eval")
def evaluate(
    agent: Agent = None,
    episodes: Annotated[int, typer.Option(help="Whole episodes to play.", min=1)] = 10,
    seed: Seed = None,
    steps: Annotated[int | None, typer.Option(help="Give up after so many steps.")] = None,
    worlds: Worlds = None,
    protocol: Protocol = None,
    preset: Preset = None,
    config: Config = None,
    plugin: Plugin = None,
    compare: Compare = None,
    json: Json = False,
    intervene: Intervene = None,
    override: Override = None,
) -> None:
    """Play whole episodes under a protocol and say what they came to. Writes no run folder."""
    from agent.commands.evaluate import evaluate as go

    request = _request(
        agent,
        preset,
        config,
        plugin,
        override,
        intervene,
        seed=seed,
        steps=steps,
        episodes=episodes,
        worlds=worlds,
        protocol=protocol,
    )
    go(request, as_json=json, compare=compare)


@app.command()
def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN…", help="Run folders, or folders of some.")
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
    """What there is to choose from, one id first on each line."""
    from agent.commands.listing import listing as go

    go(what, tuple(plugin or ()))


@app.command()
def config(
    agent: Agent = None,
    seed: Seed = None,
    steps: Annotated[int | None, typer.Option(help="Steps, summed over the worlds.")] = None,
    episodes: Annotated[int | None, typer.Option(help="Stop after so many episodes.")] = None,
    worlds: Worlds = None,
    protocol: Protocol = None,
    preset: Preset = None,
    config: Config = None,
    plugin: Plugin = None,
    intervene: Intervene = None,
    override: Override = None,
) -> None:
    """The complete configuration a command would run with, as YAML."""
    from agent.commands.show import show as go

    go(
        _request(
            agent,
            preset,
            config,
            plugin,
            override,
            intervene,
            seed=seed,
            steps=steps,
            episodes=episodes,
            worlds=worlds,
            protocol=protocol,
        )
    )


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
    resume: Annotated[Path | None, typer.Option(help="Go on with a study's folder.")] = None,
    json: Json = False,
) -> None:
    """Paired-seed experiments: worlds × arms × seeds, and a report with intervals and figures."""
    from agent.commands.study import study as go

    if (name is None) == (resume is None):
        raise typer.BadParameter("expected a NAME or FILE, or --resume RUN, one of the two")
    if resume is not None and (seeds or worlds or quick or run):
        raise typer.BadParameter("--resume goes on with a study as it was begun")
    go(name, jobs, seeds, worlds, quick, run, resume, as_json=json)


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
    row: Annotated[int, typer.Option(help="Which of the worlds lived in side by side.")] = 0,
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
    """Measure a part of the house on this machine."""
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
            help="What is to be else: directive.mode=2, directive.u.score=0, plan.action=3; "
            "nothing: the control.",
        ),
    ] = None,
    steps: Annotated[int, typer.Option(help="Turns to live on for.")] = 60,
    hold: Annotated[int, typer.Option(help="Steps the change holds; 0: all of them.")] = 1,
    row: Annotated[int | None, typer.Option(help="Change one world's row alone.")] = None,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """Go back to a recorded moment, change a word between the modules, compare what follows."""
    from agent.commands.fork import fork as go

    go(run, at, tuple(change or ()), steps, hold, row, tuple(plugin or ()), as_json=json)


@app.command("check-module")
def check_module(
    kind: Annotated[str, typer.Argument(metavar="KIND")],
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """Hold a module against the contract of its port; one line a property."""
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
            # As many recorded runs as are named; what does not exist is the world.
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
                raise ValueError(f"option {name}: expected a value, as in {name}=VALUE")
            value = waiting.pop(0)
        gathered += ["--set", f"{name.removeprefix('--')}={value}"]
    return gathered


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command and leaves with its exit code."""
    _keep_freed_memory()
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def _keep_freed_memory() -> None:
    """Asks the C library to keep what tensors free for the next ones.

    By itself glibc gives tensors of more than 128 KiB back to the system and asks for them anew,
    each page of them a fault: a seventh of the time of an update (docs/LOG.md, 2026-11-27).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, which has its own ways
        return
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # as <malloc.h> numbers them
    mallopt(mmap_threshold, 1 << 30)
    mallopt(trim_threshold, 1 << 30)
    mallopt(top_pad, 1 << 26)


def run(arguments: Sequence[str]) -> int:
    """Runs the command; its exit code. Whatever goes wrong is one line on stderr."""
    # One thread a process: the tensors here are small, and on two shared cores a second thread
    # is slower, sometimes tenfold. Set before torch is first imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    command = typer.main.get_command(app)
    try:
        # Not by its `main`, which has answers of its own to Ctrl-C and to a reader that left.
        with command.make_context("sextet", gather_overrides(arguments)) as context:
            command.invoke(context)
    except typer.Exit as done:
        return int(done.exit_code)
    except KeyboardInterrupt:
        return _complain("stopped", 130)
    except BrokenPipeError:
        # Whoever read our output has seen enough (`sextet list games | head`).
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        return 0
    except Exception as error:
        return _explain(error)
    return 0


def _explain(error: Exception) -> int:
    """One line for what went wrong, and the exit code it means."""
    if os.environ.get("SEXTET_TRACEBACK"):
        import traceback

        traceback.print_exception(error)
    if hasattr(error, "format_message"):
        return _complain(_usage(error), 2)
    if isinstance(error, ValueError) and str(error).startswith("option "):
        return _complain(str(error), 2)
    from modules.messages import SextetError

    if isinstance(error, SextetError):
        return _complain(str(error), getattr(error, "exit_code", 2))
    return _complain(f"{type(error).__name__}: {error}", 1)


def _usage(error: Any) -> str:
    """A usage error with a suggestion where a verb or flag is merely misspelt."""
    import difflib

    text = str(error.format_message())
    if "Did you mean" not in text and (context := getattr(error, "ctx", None)) is not None:
        given = getattr(error, "option_name", None) or text.split("'")[1::2][:1]
        given = given[0] if isinstance(given, list) and given else given
        names = list(getattr(context.command, "commands", {}))
        if close := difflib.get_close_matches(str(given), names, n=1):
            text = f"{text} Did you mean '{close[0]}'?"
    return text


def _complain(text: str, code: int) -> int:
    print(f"sextet: {' '.join(text.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
