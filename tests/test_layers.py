"""The code's layers: a module imports only from its own layer or below, and nothing runs in a circle.

`docs/code.md` shows the same layers to a reader.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documents import blocks_of

ROOT = Path(__file__).parents[1]
# The layers from the bottom up: packages, or modules of `tasks`. A folder stands for all that is in it.
LAYERS = (
    "tasks.signals",
    # The data that the stages hand each other, and the errors.
    (
        "tasks.arrow tasks.checksum tasks.database tasks.errors tasks.failpoints tasks.manifests tasks.murmur2 "
        "tasks.people tasks.printable"
    ),
    "tasks.run_context tasks.run_record",
    "tasks.settings tasks.broker",
    "tasks.kafka tasks.stage",
    (
        "tasks.chunks tasks.file_columns tasks.folders tasks.formats tasks.json_arrays tasks.keys tasks.placement "
        "tasks.s3 tasks.sorting tasks.sparse_index tasks.storage tasks.types tasks.workdir"
    ),
    "tasks.observe",
    # The subjects of the stages.
    (
        "tasks.attempts tasks.dead_letters tasks.ownership tasks.permissions tasks.publication tasks.publishers "
        "tasks.source tasks.targets"
    ),
    (
        "tasks.fill tasks.inference tasks.inspection tasks.output_folders tasks.outputs tasks.preflight "
        "tasks.replacement tasks.sample tasks.settlement"
    ),
    # The stages.
    "tasks.dump tasks.generate tasks.load tasks.loading tasks.publish tasks.snapshot tasks.sort tasks.sort_part",
    "tasks.estimates tasks.stages tasks.survey",
    "tasks.dask tasks.layouts tasks.plan tasks.rewriting tasks.run tasks.runners tasks.task_runs",
    "tasks.merging tasks.reading tasks.stream tasks.streaming tasks.verification tasks.verify",
    "flows",
    "kafka_sort",
)
LEVELS = {name: level for level, names in enumerate(LAYERS) for name in names.split()}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for folder in ("tasks", "flows", "kafka_sort")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if path.name != "__init__.py"
}


def level_of(module: str) -> int:
    """Return the level of the longest name in LEVELS that the module is, or is in."""
    parts = module.split(".")
    known = (LEVELS[name] for end in range(len(parts), 0, -1) if (name := ".".join(parts[:end])) in LEVELS)
    level = next(known, None)
    assert level is not None, f"{module} has no layer: give it one in {Path(__file__).name}"
    return level


def imports_of(module: str) -> Iterator[str]:
    """Return the project's modules that it imports, also within functions."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            names = {f"{node.module}.{item.name}" for item in node.names}
            yield from names & MODULES.keys() or {node.module} & MODULES.keys()
        elif isinstance(node, ast.Import):
            yield from {item.name for item in node.names} & MODULES.keys()


@pytest.mark.parametrize("module", MODULES)
def test_no_module_imports_from_a_layer_above(module: str) -> None:
    """Arrows point down: what is below can be read, tested and changed without what is above."""
    upward = [other for other in imports_of(module) if level_of(other) > level_of(module)]
    assert not upward, f"{module} is below what it imports"


def test_no_module_imports_itself_in_a_circle() -> None:
    """There is no circle within a layer either."""
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " → ".join((*path[path.index(module) :], module))
        if module not in done:
            for other in imports_of(module):
                visit(other, (*path, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


def test_the_map_shows_the_layers() -> None:
    """docs/code.md has each layer, from the top, with all that is in it."""
    shown = next(block for block in blocks_of("docs/code.md") if block.startswith("kafka_sort\n"))
    layers = [sorted(name.removeprefix("tasks.") for name in names.split()) for names in reversed(LAYERS)]
    assert [line.split(" · ") for line in shown.splitlines()] == layers


def test_every_layer_is_there() -> None:
    """Each name in LAYERS is a module: an old one would allow whatever takes its name."""
    folders = {name for module in MODULES for name in (module, module.rpartition(".")[0])}
    assert LEVELS.keys() <= folders
