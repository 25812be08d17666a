"""A recorded run: all that was said, and all that is needed to live from any moment of it again."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from agent import checkpoint
from agent.build import Assembly
from agent.guard import drive_hashes, require_same
from agent.keyframe import agent_bytes
from agent.learn import learned
from agent.run_folder import RunFolder
from agent.trace import TraceWriter
from modules.messages import Moment, WorldError


class Chronicle:
    """Keeps a run in its folder as it is lived; use it as a context manager.

    Its trace has keyframes where the world can be restored, and the folder the weights where
    some were given, a copy (`checkpoints/best`): the run can be played and forked when what it
    was played from is gone. Raises ConfigError, naming the drive, where at the end a drive is
    not what it was.
    """

    def __init__(self, folder: RunFolder, assembly: Assembly) -> None:
        self.world, self.agent = assembly.world, assembly.agent
        cost = self.agent.modules.cost
        self.drives = drive_hashes(self.agent)
        if assembly.trained is not None:
            weights = {
                f"{port}/{name}": tensor
                for port, module in learned(self.agent.modules).items()
                for name, tensor in module.state_dict().items()
            }
            facts = {"from": str(assembly.trained), "drives": self.drives}
            kept = checkpoint.Checkpoint(tensors={"weights": weights}, facts=facts)
            checkpoint.save(folder.checkpoints, "best", kept)
        self.trace = TraceWriter(
            folder.trace,
            self.world.spec,
            self.world.rows,
            cost.drives,
            cost.heads,
            assembly.config.tree(),
            drive_hashes=self.drives,
        )

    def add(self, moment: Moment) -> None:
        """Keeps a moment, before what it decided is done."""
        self.trace.write(moment)
        if self.trace.due(moment.step):
            try:
                snapshot = self.world.snapshot()
            except WorldError:
                # Some worlds cannot be restored; a fork then lives through the whole run again.
                self.trace.keyframe_every = 0
            else:
                self.trace.keyframe(moment.step, snapshot, agent_bytes(self.agent))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.trace.close()
        if kind is None or issubclass(kind, KeyboardInterrupt):
            require_same(self.drives, drive_hashes(self.agent), "end of the run")
