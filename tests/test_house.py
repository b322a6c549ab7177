"""The house rules: imports run one way, nothing heavy loads before it is needed, nothing unwanted is imported."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.toys import ROOT

MAY_IMPORT = {"models": {"models"}, "attacks": {"models", "attacks"}, "bench": {"models", "attacks", "bench"}}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in {path}"
            found.add((node.module or "").split(".")[0])
    return found


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_run_one_way(package):
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        ours = imports(path) & {*MAY_IMPORT, "tests"}
        assert ours <= MAY_IMPORT[package], f"{path} imports {ours}"


def test_robustbench_is_imported_by_its_adapter_alone_and_only_when_asked_for():
    adapter = ROOT / "models" / "zoo" / "package.py"
    for package in (*MAY_IMPORT, "tests"):
        for path in (ROOT / package).rglob("*.py"):
            assert path == adapter or "robustbench" not in imports(path), path
    at_once = [node for node in ast.parse(adapter.read_text(encoding="utf-8")).body if isinstance(node, ast.Import)]
    assert "robustbench" in imports(adapter) and not any(
        alias.name.startswith("robustbench") for node in at_once for alias in node.names
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        *(
            [name, "--help"]
            for name in (
                "run",
                "plan",
                "check",
                "compare",
                "train",
                "verify",
                "export",
                "sweep",
                "merge",
                "status",
                "latency",
                "robustbench",
                "perf",
            )
        ),
    ],
)
def test_help_loads_nothing_heavy(arguments):
    code = (
        "import sys; sys.argv = ['bench', *{!r}]\n"
        "from bench.cli.main import cli\n"
        "cli.main(standalone_mode=False)\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code.format(arguments)], capture_output=True, text=True, cwd=ROOT, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"torch", "pandas", "matplotlib", "sklearn", "pyarrow", "torchattacks", "timm"}


def test_no_file_is_two_rooms():
    for package in MAY_IMPORT:
        for path in (ROOT / package).rglob("*.py"):
            assert len(path.read_text(encoding="utf-8").splitlines()) <= 300, path
