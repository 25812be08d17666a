"""Weights by name, and the names of version 0.1."""

from agent.recording.renames import current_weights


def test_weights_of_0_1_are_read_by_their_present_names_in_the_same_order():
    old = {"now/world_model/felt.last.bias": 1, "world_model/misses.count": 2, "cost/felt.x": 3,
           "world_model/updates": 4, "cost/critic.updates": 5}  # fmt: skip
    assert list(current_weights(old).items()) == [
        ("now/world_model/signal_head.last.bias", 1),
        ("world_model/error_stats.count", 2),
        ("cost/felt.x", 3),
        ("cost/critic.updates", 5),
    ]
    assert current_weights(current_weights(old)) == current_weights(old)
