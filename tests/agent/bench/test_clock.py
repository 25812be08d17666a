"""Ways are called in turn, in an order that rotates, and warm-up is not counted."""

from agent.bench.support.clock import in_turn


def test_ways_take_turns_and_warm_up_is_not_counted():
    calls: list[tuple[str, int]] = []
    ways = {name: lambda i, name=name: calls.append((name, i)) for name in ("a", "b")}
    spans = in_turn(ways, rounds=3, warmup=1)
    assert calls == [
        *(("a", 0), ("b", 0), ("b", 1), ("a", 1), ("a", 2), ("b", 2), ("b", 3), ("a", 3)),
    ]
    assert {name: span.shape for name, span in spans.items()} == {"a": (3, 2), "b": (3, 2)}
