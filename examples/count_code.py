"""Counts lines of code: docstrings, comments and blank lines do not count.

python examples/count_code.py                  # the working tree, a line a package
python examples/count_code.py --rev 813c87c    # the same at a git revision
"""

import argparse
import ast
import io
import subprocess
import tarfile
import tokenize
from collections import Counter
from pathlib import Path

HOME = Path(__file__).parent.parent
PACKAGES = ("agent", "modules", "worlds")
NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def lines_of_code(text: str) -> set[int]:
    """The numbers of the lines on which a token stands that is neither comment nor docstring.

    A string that is a statement of its own documents what stands before it. A line inside a
    string that is code counts, blank or not.
    """
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        constant = node.value if isinstance(node, ast.Expr) else None
        if isinstance(constant, ast.Constant) and isinstance(constant.value, str):
            lines.difference_update(range(node.lineno, node.end_lineno + 1))
    return lines


def texts_of_tree() -> dict[str, str]:
    """Path and text of each Python file of the packages in the working tree."""
    return {
        path.relative_to(HOME).as_posix(): path.read_text(encoding="utf-8")
        for package in PACKAGES
        for path in sorted((HOME / package).rglob("*.py"))
    }


def texts_of_revision(revision: str) -> dict[str, str]:
    """Path and text of each Python file of the packages at a git revision."""
    packed = subprocess.run(
        ["git", "archive", "--format=tar", revision, *PACKAGES],
        cwd=HOME, check=True, capture_output=True,
    ).stdout  # fmt: skip
    texts = {}
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        for member in archive.getmembers():
            file = archive.extractfile(member) if member.name.endswith(".py") else None
            if file is not None:
                texts[member.name] = file.read().decode("utf-8")
    return texts


def by_package(texts: dict[str, str]) -> dict[str, int]:
    """Lines of code of each package; files directly in `agent/` count as `agent`."""
    counts: Counter[str] = Counter()
    for path, text in texts.items():
        counts["/".join(path.split("/")[:-1][:2])] += len(lines_of_code(text))
    return dict(sorted(counts.items()))


def main() -> None:
    """Prints the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rev", help="a git revision; the working tree if none is named")
    revision = parser.parse_args().rev
    counts = by_package(texts_of_revision(revision) if revision else texts_of_tree())
    for package, lines in counts.items():
        print(f"{package:24} {lines:6}")
    print(f"{'total':24} {sum(counts.values()):6}")


if __name__ == "__main__":
    main()
