"""YAML of unknown origin: one loader for all YAML of this house.

Values are those of YAML's safe schema, and `1e-3` is a number as in JSON and YAML 1.2. Text that is
too long, nested too deeply, whose anchors lead back to themselves or stand for too many values, and
values that Python cannot hold (impossible dates, integers without end) raise ValueError.
"""

from __future__ import annotations

import re
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

MOST_CHARACTERS = 1 << 18
MOST_VALUES = 50_000
MOST_LEVELS = 48


class _Loader(yaml.SafeLoader):
    """SafeLoader with bounds."""

    levels = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        """A node of the tree; refused where it is nested too deeply."""
        self.levels += 1
        if self.levels > MOST_LEVELS:
            raise ValueError(f"nested more than {MOST_LEVELS} levels deep")
        node: Node | None = super().compose_node(parent, index)
        self.levels -= 1
        return node


# A dot before the exponent is needed in YAML 1.1 alone.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def plain_yaml(text: str) -> Any:
    """The values of a YAML text, None of an empty one. Raises ValueError, one line."""
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"expected at most {MOST_CHARACTERS:,} characters, got {len(text):,}")
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _require_few(node)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f"line {mark.line + 1}: "
        what = getattr(error, "problem", None) or str(error)
        raise ValueError(f"{where}{' '.join(str(what).split()):.200}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except (ValueError, OverflowError, ArithmeticError) as error:
        raise ValueError(f"{' '.join(str(error).split()):.200}") from None
    except (TypeError, AttributeError, LookupError) as error:
        # Of tags on values of another form, such as `!!timestamp x`.
        raise ValueError(f"a value does not fit its tag ({error})"[:200]) from None


def _require_few(root: Node) -> None:
    """Raises ValueError where anchors lead back to themselves or stand for too many values."""
    sizes: dict[int, int] = {}

    def size(node: Node) -> int:
        known = sizes.get(id(node))
        if known == 0:
            raise ValueError("an anchor that contains itself")
        if known is not None:
            return known
        sizes[id(node)] = 0
        total = 1
        if isinstance(node, ScalarNode):
            total += len(node.value) // 64
        elif isinstance(node, SequenceNode):
            total += sum(map(size, node.value))
        elif isinstance(node, MappingNode):
            total += sum(size(key) + size(value) for key, value in node.value)
        if total > MOST_VALUES:
            raise ValueError(f"expected at most {MOST_VALUES:,} values, anchors written out")
        sizes[id(node)] = total
        return total

    size(root)
