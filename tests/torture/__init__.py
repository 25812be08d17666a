"""Tortures: cases in numbers. A package, so that `tests/torture/worlds.py` is not `worlds`."""
