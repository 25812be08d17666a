"""The contract of every port: promises as plain functions, to be run under pytest.

    import pytest
    from agent.assembly.build import known_kinds
    from agent.contracts import memory
    from agent.contracts.subject import running

    @pytest.mark.parametrize("promise", memory.PROMISES)
    def test_my_memory(promise):
        with running("memory", "mine", kinds=known_kinds(("my_package",))) as subject:
            promise(subject)

`running` runs an agent with the module for some steps; a promise raises ContractError where it is
broken. `check` runs all promises of a kind, as `sextet check-module` does.
"""
