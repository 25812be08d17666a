"""Engines run many independent jobs, one after the other or in processes side by side.

An engine knows jobs and nothing of agents, worlds or what a job writes.
"""
