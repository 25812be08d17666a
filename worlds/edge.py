"""The edge to foreign code: one environment whose every call is guarded.

Any exception that a call of the environment raises, also `SystemExit`, becomes a WorldError of one
line that names the world, the row, the step and the call. What goes in and comes out is copied, and
what comes out is checked (`worlds.returned`). A call has random numbers of its own
(`worlds.generators`), and may take at most `step_seconds`.
"""

from __future__ import annotations

import copy
import copyreg
import inspect
import logging
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cache
from types import FrameType
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces

from modules.messages import ConfigError, WorldError
from modules.suggest import not_one_of
from worlds.generators import SharedGenerators, mixed, seed_own
from worlds.returned import (
    WrongValueError,
    declared_signals,
    element,
    flag,
    items,
    number,
    shown,
    signals_in,
)

_LOG = logging.getLogger("sextet")
_LOG.addHandler(logging.NullHandler())


@cache
def note(line: str) -> None:
    """Logs a line for the user, the same one once a process; the command prints it."""
    _LOG.warning(line)


_STEP = ("observation", "reward", "terminated", "truncated", "info")
_watching: Callable[[str | None], None] | None = None


def watch_calls(watch: Callable[[str | None], None]) -> None:
    """Calls `watch` with a name before every call of foreign code, and with None after it."""
    global _watching
    _watching = watch


class EnvStep(NamedTuple):
    """What one step returned: an element of the observation space, one finite number, two flags,
    and the signals that the environment declares, by name. After a reset all but observation and
    signals are 0.
    """

    observation: Any
    reward: float
    terminated: bool
    truncated: bool
    signals: Mapping[str, float]


_REPEAT_S = 1.0


class _Overdue(BaseException):
    """The time limit of a call; no Exception, so that foreign code does not catch it."""


class GuardedEnv:
    """One environment of a Gymnasium id, in row `row` of its world.

    `where` names it in errors. `step_seconds`: the longest that one call may take, None: no limit.
    A call that runs in C code ends late: only an environment in a process of its own
    (`worlds.isolated`) can be stopped in any case. The limit needs the main thread. `settings`:
    arguments of the environment's constructor, by name.

    `signals`: the names in the environment's `metadata["signals"]`; `info` has their values at each
    step, and may lack them at a reset, where they are 0 then.

    Raises WorldError, as all methods do, where the environment fails, and ConfigError for a name in
    `settings` that its constructor does not have.
    """

    def __init__(
        self,
        id: str,
        where: str,
        step_seconds: float | None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.id, self.where, self._step_seconds = id, where, step_seconds
        self._settings = dict(settings or {})
        self.steps, self._key = 0, 0
        self._shared = SharedGenerators()
        if self._settings:
            _require_known(id, self._call("construction", self._spec), self._settings)
        self.env = self._call("construction", self._construct)
        self._shared = SharedGenerators(self.env)
        self.observation_space = self._space("observation_space")
        self.action_space = self._space("action_space")
        try:
            self.signals = declared_signals(
                self._call("construction", lambda: getattr(self.env, "metadata", None))
            )
        except WrongValueError as error:
            raise self._error(str(error)) from None

    def _spec(self) -> Any:
        return gymnasium.spec(self.id.rpartition(":")[2])

    def _construct(self) -> Any:
        spec = self._spec()
        # A copy for each: a constructor may write into a list or dictionary among them.
        arguments = {"disable_env_checker": True, **copy.deepcopy(self._settings)}
        if _draws(spec):
            try:
                return gymnasium.make(spec, render_mode="rgb_array", **arguments)
            except Exception:
                # A function that passes the argument on to a class without it, for instance.
                return gymnasium.make(spec, **arguments)
        return gymnasium.make(spec, **arguments)

    def _space(self, name: str) -> Any:
        space = self._call("construction", lambda: getattr(self.env, name))
        if not isinstance(space, spaces.Space):
            raise self._error(f"{name}: expected a space of Gymnasium, got {shown(space)}")
        return space

    @property
    def time_limit(self) -> int | None:
        """The steps after which a wrapper of the environment truncates an episode."""
        layer = self.env
        while layer is not None:
            if isinstance(layer, gymnasium.wrappers.TimeLimit):
                return int(layer._max_episode_steps)
            layer = getattr(layer, "__dict__", {}).get("env")
        return None

    def reset(self, seed: int) -> EnvStep:
        """The first observation of an episode under `seed`, and the signals there."""
        self.steps, self._key = 0, seed
        returned = self._call("reset", self.env.reset, seed=seed % 2**31)
        try:
            observation, info = items(returned, "reset", ("observation", "info"))
            first = element(self.observation_space, observation, "observation")
            return EnvStep(first, 0.0, False, False, signals_in(info, self.signals, 0.0))
        except WrongValueError as error:
            raise self._error(str(error)) from None

    def step(self, action: Any) -> EnvStep:
        """One step with an element of the action space."""
        self.steps += 1
        returned = self._call("step", self.env.step, copy.deepcopy(action))
        try:
            observation, reward, terminated, truncated, info = items(returned, "step", _STEP)
            return EnvStep(
                element(self.observation_space, observation, "observation"),
                number(reward, "reward"),
                flag(terminated, "terminated"),
                flag(truncated, "truncated"),
                signals_in(info, self.signals),
            )
        except WrongValueError as error:
            raise self._error(str(error)) from None

    def render(self) -> Any:
        """What the environment draws, None where it draws nothing; a failure is a note."""
        try:
            mode = self._call("render", lambda: self.env.render_mode)
            return self._call("render", self.env.render) if mode == "rgb_array" else None
        except WorldError as error:
            note(f"{error}; the observation is drawn instead")
            return None

    def close(self) -> None:
        """Closes the environment; a failure is a note."""
        try:
            self._call("close", self.env.close)
        except WorldError as error:
            note(str(error))

    def copy(self, seed: int | None, where: str) -> GuardedEnv:
        """A copy that is stepped without any effect on the original.

        seed: of all its random numbers from now on; None: the copy draws what the original will.
        """
        _share_pygame_objects()
        copied, memo = copy.copy(self), dict[int, Any]()
        copied.where = where
        copied.env = self._call("copy", copy.deepcopy, self.env, memo)
        if seed is not None:
            copied._key = seed
            copied._call("copy", copied._seed_own, memo, seed)
        return copied

    def _seed_own(self, copies: dict[int, Any], seed: int) -> None:
        """Seeds the generators among the `copies` of an environment's objects."""
        seed_own(copies.values(), seed)
        self.env.unwrapped.np_random = np.random.default_rng(seed % 2**63)

    def _call(self, call: str, function: Callable[..., Any], *positional: Any, **named: Any) -> Any:
        if _watching is not None:
            _watching(f"{self._place}: {call}")
        try:
            with (
                warnings.catch_warnings(),
                self._shared.seeded(mixed(self._key, self.steps)),
                nullcontext() if self._step_seconds is None else _time_limit(self._step_seconds),
            ):
                # Warnings address authors of environments.
                warnings.simplefilter("ignore")
                return function(*positional, **named)
        except KeyboardInterrupt:
            raise
        except _Overdue:
            raise self._error(
                f"{call}: expected an answer within {self._step_seconds:g} s, got none; raise "
                "world.step_seconds"
            ) from None
        except BaseException as error:
            brief = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise self._error(f"{call} failed ({brief})") from error
        finally:
            if _watching is not None:
                _watching(None)

    @property
    def _place(self) -> str:
        return f"{self.where}, step {self.steps}" if self.steps else self.where

    def _error(self, what: str) -> WorldError:
        return WorldError(f"world {self.id}: {self._place}: {what}")


def _maker(spec: Any) -> Any:
    """The class or function that makes the environments of a `spec`."""
    entry = spec.entry_point
    return gymnasium.envs.registration.load_env_creator(entry) if isinstance(entry, str) else entry


def _require_known(id: str, spec: Any, settings: Mapping[str, Any]) -> None:
    """Raises ConfigError for a name in `settings` that the constructor of an environment does not
    have, or that Sextet sets itself.
    """
    try:
        parameters = inspect.signature(_maker(spec)).parameters.values()
    except (TypeError, ValueError):
        return
    own = {"self", *inspect.signature(gymnasium.make).parameters, "render_mode"}
    names = [p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    names = [name for name in names if name not in own]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for name in settings:
        if name in own or not (takes_any or name in names):
            raise ConfigError(f"config world.settings: {id}: {not_one_of(name, names)}")


def _draws(spec: Any) -> bool:
    """Whether a constructor takes `render_mode`, and may know `rgb_array`."""
    maker = _maker(spec)
    metadata = getattr(maker, "metadata", None)
    if isinstance(metadata, dict) and "rgb_array" not in metadata.get("render_modes", ()):
        return False
    try:
        parameters = inspect.signature(maker).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(p.name == "render_mode" or p.kind is p.VAR_KEYWORD for p in parameters)


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raises _Overdue within, after `seconds`; no limit in another thread than the main one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise _Overdue

    before = signal.signal(signal.SIGALRM, stop)
    # Again and again: what is raised in a destructor, or in a clause that catches all, is lost.
    signal.setitimer(signal.ITIMER_REAL, seconds, _REPEAT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _share_pygame_objects() -> None:
    """Makes copies of environments share pygame's surfaces, clocks and fonts.

    pygame cannot copy them. Sharing is safe: only the original renders, and redraws everything.
    """
    if (pygame := sys.modules.get("pygame")) is not None:
        for kind in (pygame.Surface, pygame.time.Clock, pygame.font.Font):
            copyreg.pickle(kind, lambda shared: (lambda: shared, ()))
