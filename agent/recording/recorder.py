"""Records a run: its trace, with the keyframes and weights that forks start from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from agent.agent import Agent
from agent.recording import checkpoint
from agent.recording.drive_guard import drive_hashes, require_same
from agent.recording.keyframe import agent_bytes
from agent.recording.run_folder import RunFolder
from agent.recording.trace import TraceWriter
from agent.recording.weights import named_weights, parametric_modules
from modules.messages import Moment, WorldError
from modules.ports import World


class RunRecorder:
    """Writes every moment of a run into its folder; use it as a context manager.

    The trace gets keyframes where the world can be restored. `trained` is the checkpoint that the
    agent was loaded from, None for an untrained one; its weights are copied into the folder
    (`checkpoints/best`), so the run can be played and forked without the original. Raises
    ConfigError, naming the drive, if at the end a drive differs from what it was at the start.
    """

    def __init__(
        self,
        folder: RunFolder,
        agent: Agent,
        world: World,
        config: Mapping[str, Any],
        trained: Path | None = None,
    ) -> None:
        self.world, self.agent = world, agent
        cost = agent.modules.cost
        self.drives = drive_hashes(agent)
        if trained is not None:
            weights = named_weights(parametric_modules(agent.modules))
            facts = {"from": str(trained), "drives": self.drives}
            copy = checkpoint.Checkpoint({"weights": weights}, facts=facts)
            checkpoint.save(folder.checkpoints, "best", copy)
        self.trace = TraceWriter(
            folder.trace,
            world.spec,
            world.num_envs,
            cost.drives,
            cost.heads,
            config,
            drive_hashes=self.drives,
        )

    def add(self, moment: Moment) -> None:
        """Writes a moment; call it before the world takes the moment's action."""
        self.trace.write(moment)
        if self.trace.due(moment.step):
            try:
                snapshot = self.world.snapshot()
            except WorldError:
                # Some worlds cannot be restored; a fork then replays the whole run.
                self.trace.keyframe_every = 0
            else:
                self.trace.keyframe(moment.step, snapshot, agent_bytes(self.agent))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.trace.close()
        if kind is None or issubclass(kind, KeyboardInterrupt):
            require_same(self.drives, drive_hashes(self.agent), "end of the run")
