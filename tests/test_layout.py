"""The house: where files lie, how long they are, and that imports point one way. An import inside a function counts too."""

import ast
from collections import Counter
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "mipo_mlx"
FILES = sorted(PACKAGE.rglob("*.py"))
# From below to above: a file uses its own floor and those before it, never one behind it.
GROUND = ("errors", "files", "records", "progress", "recipe", "recipe_loading", "backend", "preference", "text")
FLOORS = (
    GROUND, ("gguf_format",), ("engine",), ("models",), ("sources",), ("memory",), ("pairs",), ("training",), ("evaluation",),
    ("export",), ("report",), ("serving",), ("run",), ("commands",), ("cli", "__init__", "__main__"),
)  # fmt: skip
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}


def name_of(path: Path) -> str:
    """mipo_mlx/pairs/make.py -> pairs.make; a folder's __init__ is the folder; the package's own is __init__."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {name_of(path): path for path in FILES}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path, lazy: bool) -> set[str]:
    """The modules of the package that a file imports; with `lazy` those inside functions too."""
    package = [] if path.parent == PACKAGE else list(path.parent.relative_to(PACKAGE).parts)
    names: set[str] = set()
    for node in nodes(tree(path), lazy):
        if isinstance(node, ast.Import):
            names |= {alias.name.removeprefix("mipo_mlx.") for alias in node.names if alias.name.startswith("mipo_mlx.")}
        elif isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("mipo_mlx")):
            base = package[: len(package) - node.level + 1] if node.level else []
            inner = (node.module or "").removeprefix("mipo_mlx").strip(".") if not node.level else node.module or ""
            base = [*base, *inner.split(".")] if inner else base
            for alias in node.names:
                whole = ".".join([*base, alias.name])
                names.add(whole if whole in MODULES else ".".join(base))
    return {name for name in names if name in MODULES} - {name_of(path)}


def nodes(root: ast.AST, lazy: bool):
    for node in ast.iter_child_nodes(root):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not lazy:
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from nodes(node, lazy)


def floor(module: str) -> int:
    return FLOOR[module.partition(".")[0]]


def test_every_file_has_its_floor():
    assert not {name.partition(".")[0] for name in MODULES} - FLOOR.keys()


def test_a_stage_uses_earlier_ones_only():
    wrong = {(name, used) for name, path in MODULES.items() for used in imports(path, lazy=True) if floor(used) > floor(name)}
    assert not wrong


def test_ten_floors_at_most():
    """A part stands one floor above the highest part that it uses."""
    uses: dict[str, set[str]] = {}
    for name, path in MODULES.items():
        uses.setdefault(name.partition(".")[0], set()).update(used.partition(".")[0] for used in imports(path, lazy=True))

    @cache
    def height(part: str) -> int:
        return 1 + max((height(used) for used in uses[part] - {part}), default=0)

    assert max(map(height, uses)) <= 10, sorted((height(part), part) for part in uses)


def test_no_circles():
    graph = {name: imports(path, lazy=False) for name, path in MODULES.items()}
    while free := [name for name, used in graph.items() if not used & graph.keys()]:
        for name in free:
            del graph[name]
    assert not graph


def test_no_two_files_of_one_name():
    names = Counter(path.name for path in FILES)
    assert [name for name, count in names.items() if count > 1 and name != "__init__.py"] == []


def test_files_are_of_40_to_400_lines():
    lines = {path.relative_to(PACKAGE).as_posix(): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert not {name for name, count in lines.items() if count > 400}
    assert not {name for name, count in lines.items() if count < 40 and not name.endswith("__.py")}


def test_at_most_ten_files_at_the_top():
    top = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert len(top) <= 10, sorted(top)


def test_functions_have_at_most_six_parameters():
    wrong = set()
    for name, path in MODULES.items():
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef) and not any("option" in ast.dump(each) for each in node.decorator_list):
                given = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                if len([each for each in given if each not in ("self", "cls")]) > 6:
                    wrong.add(f"{name}.{node.name}")
    assert not wrong


def test_nothing_is_imported_by_a_composed_name_and_nothing_is_mocked():
    composed, mocking = set(), set()
    for name, path in MODULES.items():
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in (
                "import_module",
                "__import__",
            ):
                composed |= set() if isinstance(node.args[0], ast.Constant) else {name}
            if isinstance(node, ast.ImportFrom | ast.Import):
                used = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
                mocking |= {name} if "unittest.mock" in used or ("unittest" in used and "mock" in used) else set()
    assert not composed and not mocking


def test_mlx_is_never_imported_before_the_fast_blas():
    """Matrix products would be 30 times slower, and MLX would take kernels from a folder that others can write."""
    unsafe = set()
    for name, path in MODULES.items():
        whole = [node for node in tree(path).body if isinstance(node, ast.Import | ast.ImportFrom)]
        used = {alias.name if isinstance(node, ast.Import) else node.module or "" for node in whole for alias in node.names}
        if any(each.partition(".")[0] in ("mlx", "mlx_lm") for each in used):
            unsafe |= {name} if "backend.start()" not in (path.parent / "__init__.py").read_text(encoding="utf-8") else set()
    assert {name.partition(".")[0] for name in unsafe} <= {"commands"}  # which import these modules after other folders


def test_the_one_minute_test_covers_every_folder():
    makefile = (PACKAGE.parent / "Makefile").read_text(encoding="utf-8")
    quick = makefile[makefile.index("QUICK :=") : makefile.index(".PHONY")]
    covered = {word.partition("/")[0] for word in quick.split()}
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert folders and not folders - covered
    assert all((PACKAGE.parent / "tests" / word.rstrip(")")).exists() for word in quick.split() if word.rstrip(")").endswith(".py"))
