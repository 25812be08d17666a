"""The process of an isolated world: `python -m worlds.isolated_process CONNECTION CALL`.

It answers the requests of `worlds.isolated` and ends with the process that started it. Both
arguments are file descriptors: of the connection, and of the memory for the present call.
"""

from __future__ import annotations

import json
import logging
import mmap
import os
import sys
import threading
import time
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

import torch

from modules.messages import SextetError
from worlds import edge
from worlds.gymnasium_rows import GymnasiumRows
from worlds.isolated import CALL
from worlds.make import make_world
from worlds.protocols import Sensor

Request = tuple[dict[str, Any], bytes]


class _Notes(logging.Handler):
    """Keeps the lines that the process which started this one will print."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def _requests(connection: Connection) -> SimpleQueue[Request]:
    """The requests, read by a thread, which ends this process where there will be no more."""
    waiting: SimpleQueue[Request] = SimpleQueue()

    def read() -> None:
        try:
            while True:
                header = json.loads(connection.recv_bytes())
                waiting.put((header, connection.recv_bytes()))
        except (EOFError, OSError):
            os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return waiting


def _make(arguments: dict[str, Any]) -> GymnasiumRows:
    sensor = arguments.pop("sensor")
    signals = tuple(arguments.pop("observation_signals"))
    world = make_world(
        sensor=None if sensor is None else Sensor.model_validate(sensor),
        observation_signals=signals,
        **arguments,
    )
    assert isinstance(world, GymnasiumRows)
    return world


def _answer(
    world: GymnasiumRows, call: str, arguments: dict[str, Any], data: bytes
) -> tuple[Any, bytes]:
    """The value and the bytes of a reply."""
    match call:
        case "reset":
            return None, world.reset(**arguments).to_bytes()
        case "step":
            action = torch.frombuffer(bytearray(data), dtype=torch.float64)
            return None, world.step(action.view(world.num_envs, -1)).to_bytes()
        case "render":
            pictures = world.render()
            return list(pictures.shape), pictures.numpy().tobytes()
        case "snapshot":
            return None, world.snapshot()
        case "restore":
            observation = world.restore(data).to_bytes()
            return world._require_seed(), observation
        case "rehearse":
            return world.rehearse(), b""
    world.close()
    return None, b""


def main(connection_fd: int, call_fd: int) -> None:
    """Answers requests until there are no more."""
    connection, shared = Connection(connection_fd), mmap.mmap(call_fd, CALL.size)
    notes = _Notes()
    logging.getLogger("sextet").addHandler(notes)

    def watch(call: str | None) -> None:
        CALL.pack_into(shared, 0, time.monotonic() if call else 0.0, (call or "").encode()[:200])

    edge.watch_calls(watch)
    requests, world = _requests(connection), None
    while True:
        header, data = requests.get()
        call, received = header.pop("call"), b""
        reply: dict[str, Any] = {"error": None, "value": None}
        try:
            if world is None:
                world = _make(header)
                reply["value"] = world.spec.model_dump()
            else:
                reply["value"], received = _answer(world, call, header, data)
        except SextetError as error:
            reply |= {"error": str(error), "exit": type(error).__name__ == "ConfigError"}
        except Exception as error:
            reply |= {"error": f"{type(error).__name__}: {error}", "exit": False}
        reply["notes"], notes.lines = notes.lines, []
        connection.send_bytes(json.dumps(reply).encode())
        connection.send_bytes(received)
        if call == "close":
            return


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
