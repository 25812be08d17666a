"""Counts that may only fall, so that a long change is green at each step.

`ratchets.json` holds for each count its number and, a line a kind, what it counts. A test fails
where a count rises, and where it has fallen and the number has not been lowered with it:

    python tests/ratchets.py             # prints the counts and the stored numbers
    python tests/ratchets.py --update    # lowers the stored numbers; never raises one
    python tests/ratchets.py --list "dead wires"
"""

import argparse
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

FILE = Path(__file__).with_name("ratchets.json")
LISTED = 60


class Offender(NamedTuple):
    """One thing that a ratchet counts: where it stands, and the kind it is listed under."""

    where: str
    kind: str

    def __str__(self) -> str:
        return f"{self.where} {self.kind}"


Count = Callable[[], list[Offender]]


def stored() -> dict[str, dict[str, int]]:
    """The stored numbers: of each ratchet, how many of each kind."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def changed_lines() -> set[str]:
    """`path:line` of every line that differs from the last commit; empty without git."""
    diff = subprocess.run(
        ["git", "diff", "--unified=0", "--no-ext-diff", "--src-prefix=a/", "--dst-prefix=b/",
         "HEAD", "--", "*.py"],
        cwd=FILE.parent.parent, check=False, capture_output=True, text=True,
    ).stdout  # fmt: skip
    lines, path = set(), ""
    for line in diff.splitlines():
        if line.startswith("+++ b/"):
            path = line[6:]
        elif line.startswith("@@"):
            start, _, length = line.split(" +")[1].split(" ")[0].partition(",")
            lines |= {f"{path}:{int(start) + i}" for i in range(int(length or 1))}
    return lines


def complaint(name: str, offenders: list[Offender], kinds: dict[str, int]) -> str | None:
    """What is wrong with a count, in lines to print; None where it equals the stored one.

    Offenders on lines that differ from the last commit stand first.
    """
    now, then = Counter(offender.kind for offender in offenders), sum(kinds.values())
    if len(offenders) < then:
        return (
            f"ratchet {name}: {len(offenders)} now, {then} stored. Lower the number to "
            f"{len(offenders)} in the same commit: python tests/ratchets.py --update"
        )
    if len(offenders) == then:
        return None
    changed = changed_lines()
    risen = [offender for offender in offenders if now[offender.kind] > kinds.get(offender.kind, 0)]
    risen.sort(key=lambda offender: offender.where not in changed)
    lines = [f"ratchet {name}: {len(offenders)} now, at most {then} allowed. Kinds that rose:"]
    lines += [f"  {kind}: {kinds.get(kind, 0)} -> {now[kind]}" for kind in sorted(now)
              if now[kind] > kinds.get(kind, 0)]  # fmt: skip
    lines += [f"  {offender}" for offender in risen[:LISTED]]
    if len(risen) > LISTED:
        lines.append(f"  and {len(risen) - LISTED} more")
    return "\n".join(lines)


def check(name: str, offenders: list[Offender]) -> None:
    """Fails where the count differs from the stored number."""
    wrong = complaint(name, offenders, stored()[name])
    assert wrong is None, wrong


def lowered(
    counts: dict[str, list[Offender]], numbers: dict[str, dict[str, int]]
) -> dict[str, dict[str, int]]:
    """The numbers with those replaced whose count has not risen; a new ratchet gets its count."""
    after = dict(numbers)
    for name, offenders in counts.items():
        if name not in numbers or len(offenders) <= sum(numbers[name].values()):
            after[name] = dict(sorted(Counter(offender.kind for offender in offenders).items()))
    return {name: after[name] for name in sorted(after) if name in counts}


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true", help="lower the stored numbers")
    parser.add_argument("--list", metavar="NAME", help="list all that one ratchet counts")
    options = parser.parse_args()
    sys.path.insert(0, str(FILE.parent.parent))
    from tests import test_defaults, test_language, test_size, test_wires

    counts = {
        name: count()
        for module in (test_language, test_wires, test_defaults)
        for name, count in module.COUNTS.items()
    }
    if options.list:
        print("\n".join(map(str, counts[options.list])))
        return
    before = stored()
    for name, offenders in counts.items():
        print(f"{name:28} {len(offenders):6} now {sum(before.get(name, {}).values()):6} stored")
    lines = sum(before[test_size.LINES].values())
    print(f"{test_size.LINES:28} {test_size.total_lines():6} now {lines:6} stored")
    if options.update:
        after = lowered(counts, before)
        after[test_size.LINES] = test_size.lowered_lines(before[test_size.LINES])
        text = json.dumps(after, indent=2, ensure_ascii=False)
        FILE.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    _main()
