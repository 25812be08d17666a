"""Environments: Atari in two implementations, any other Gymnasium environment in one.

`worlds.make.make_world` builds them. This package itself imports no emulator.
"""
