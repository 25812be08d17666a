"""Where agents live: Atari in two forms, any other Gymnasium environment in one.

`worlds.make.make_world` is the door. Nothing heavy is imported here.
"""
