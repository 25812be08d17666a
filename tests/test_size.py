"""Size and layout: lines of code, and the files directly in `agent/`, stay few."""

from examples.count_code import lines_of_code
from tests.ratchets import stored
from tests.sources import HOME, sources

AT_THE_TOP = 6
"""Python files that may lie directly in `agent/`."""

LINES = "lines of code"
FIRST, MORE = "version 0.1", "more, for now"
"""`python examples/count_code.py --rev 813c87c` counts those of version 0.1. The number is stored,
since a shallow clone has no old commits; a change under way may have some more, ever fewer.
"""


def test_few_files_lie_directly_in_the_agent_package():
    files = sorted(path.name for path in (HOME / "agent").glob("*.py"))
    assert len(files) <= AT_THE_TOP, f"{len(files)} files, at most {AT_THE_TOP} may be: {files}"


def total_lines() -> int:
    """Lines of code of all packages."""
    return sum(len(lines_of_code(source.text)) for source in sources())


def lowered_lines(numbers: dict[str, int]) -> dict[str, int]:
    """The stored numbers of lines, with no more room than is needed, and never with more room."""
    needed = max(0, total_lines() - numbers[FIRST])
    return {FIRST: numbers[FIRST], MORE: min(needed, numbers[MORE])}


def test_there_is_no_more_code_than_in_version_0_1():
    numbers, total = stored()[LINES], total_lines()
    assert total <= numbers[FIRST] + numbers[MORE], (
        f"{total} lines of code; version 0.1 had {numbers[FIRST]}, and {numbers[MORE]} more are "
        "allowed for now. By package: python examples/count_code.py"
    )


def test_docstrings_comments_and_blank_lines_are_no_code():
    text = '''"""A module.

Its second paragraph.
"""

# A comment.
names = [
    # Another.
    "a",  # counted: the line has code
]
"""Documents `names`."""

text = """kept

in full"""


def function():
    """Only a docstring."""
'''
    assert sorted(lines_of_code(text)) == [7, 9, 10, 13, 14, 15, 18]
