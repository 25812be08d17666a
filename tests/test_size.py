"""Few files lie directly in `agent/`, and code is counted without docstrings and comments."""

from examples.count_code import lines_of_code
from tests.sources import HOME

AT_THE_TOP = 6
"""Python files that may lie directly in `agent/`."""


def test_few_files_lie_directly_in_the_agent_package():
    files = sorted(path.name for path in (HOME / "agent").glob("*.py"))
    assert len(files) <= AT_THE_TOP, f"{len(files)} files, at most {AT_THE_TOP} may be: {files}"


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
