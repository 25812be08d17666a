"""The trace of a run: a SQLite file with one row for each moment.

It is written in batches in WAL mode, so that another process can read it while it grows and a
killed run loses at most the last batch. Tables:

`meta`       one JSON value a key: format version, config, world, drives and what they do
             (probe hashes), heads, rows, and a CRC-32 of each of these
`layouts`    which tensors a moment's numbers hold, with dtype and shape; each layout stored once
`moments`    step, layout, `timeline` (small exact numbers), `dense` (latents and the like, zlib
             level 1), `plans` (actions and candidates, zlib level 1), `reasons` (JSON). Behind
             the numbers of `timeline` stands a CRC-32 of layout, step, numbers and reasons; zlib
             has its own
`frames`     step, the rows' frames: B uint32 lengths, then each row's pixels, zlib level 1
`keyframes`  step, a snapshot of the world and what acting needs of the agent's memory
             (`agent/recording/keyframe.py`), zlib level 1

Moments are for inspection: they are lossy where `Message.to_bytes` is not. Latents, recollections,
critic values of actions, tokens and candidates are float16; `hidden` of states is left out and
read as [B 0]; keys and values of a recollection larger than `RECOLLECTED` numbers a row are left
out and read with width 0. Keyframes, from which runs continue, are exact.

`SalvagedTrace` reads what is left of a damaged trace.
"""

from agent.recording.trace.digest import TraceDigest
from agent.recording.trace.layout import FORMAT_VERSION, RECOLLECTED, Record, record_of
from agent.recording.trace.reader import Keyframe, Trace
from agent.recording.trace.salvage import DamagedSpan, SalvagedTrace
from agent.recording.trace.writer import KEYFRAME_EVERY, TraceWriter

__all__ = [
    "FORMAT_VERSION",
    "KEYFRAME_EVERY",
    "RECOLLECTED",
    "DamagedSpan",
    "Keyframe",
    "Record",
    "SalvagedTrace",
    "Trace",
    "TraceDigest",
    "TraceWriter",
    "record_of",
]
