"""Programs that lie outside the packages, as modules."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]


def loaded(path: Path) -> ModuleType:
    """What a Python file defines; its `main` is not run. As when Python runs it, its folder is
    searched for what it imports.
    """
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    spec = spec_from_file_location(f"program_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def benchmark(name: str) -> ModuleType:
    """`examples/benchmarks/NAME.py`."""
    return loaded(ROOT / "examples" / "benchmarks" / f"{name}.py")
