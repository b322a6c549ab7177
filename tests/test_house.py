"""The house rules: imports run one way, nothing heavy loads before it is needed, nothing unwanted is imported."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.toys import ROOT

FOLDERS = {"exitbench": "bench", "exitbench.models": "models", "exitbench.attacks": "attacks"}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in {path}"
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("folder", [*FOLDERS.values(), "tests"])
def test_our_packages_are_imported_under_one_name_alone(folder):
    files = list((ROOT / folder).rglob("*.py"))
    assert files
    for path in files:
        bare = {name for name in imports(path) if name.partition(".")[0] in FOLDERS.values()}
        assert not bare, f"{path} imports {bare}"


def test_all_our_packages_are_in_the_wheel():
    with (ROOT / "pyproject.toml").open("rb") as file:
        setuptools = tomllib.load(file)["tool"]["setuptools"]
    found = {
        ".".join([name, *path.parent.relative_to(ROOT / folder).parts])
        for name, folder in FOLDERS.items()
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert set(setuptools["packages"]) == found | {"exitbench.models.weights", "exitbench.report.templates"}
    data = {"exitbench.models.weights": "models/weights", "exitbench.report.templates": "bench/report/templates"}
    for package, folder in data.items():
        taken = {path for pattern in setuptools["package-data"][package] for path in (ROOT / folder).glob(pattern)}
        assert taken >= {path for path in (ROOT / folder).iterdir() if path.suffix != ".png"}


def test_robustbench_is_imported_by_its_adapter_alone_and_only_when_asked_for():
    adapter = ROOT / "models" / "zoo" / "package.py"
    for folder in (*FOLDERS.values(), "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            assert path == adapter or not any(name.partition(".")[0] == "robustbench" for name in imports(path)), path
    at_once = [node for node in ast.parse(adapter.read_text(encoding="utf-8")).body if isinstance(node, ast.Import)]
    assert any(name.startswith("robustbench") for name in imports(adapter)) and not any(
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
        "import sys; sys.argv = ['exitbench', *{!r}]\n"
        "from exitbench.cli.main import cli\n"
        "cli.main(standalone_mode=False)\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code.format(arguments)], capture_output=True, text=True, cwd=ROOT, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"torch", "pandas", "matplotlib", "vl_convert", "sklearn", "pyarrow", "torchattacks", "timm"}


def test_an_evaluation_loads_no_compiler_and_no_scikit_learn(tmp_path):
    """Each takes seconds to import, and nothing of them is used."""
    code = (
        "import sys; sys.argv = ['exitbench', *{!r}]\n"
        "from exitbench.cli.main import cli\n"
        "cli.main(standalone_mode=False)\n"
        "print(*sys.modules)"
    )
    run = ["run", "--model", "rdi_smallcnn", "--dataset", "digits", "--attack", "single:1", "--n", "2", "--steps", "1"]
    code = code.format([*run, "--results", str(tmp_path)])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    loaded = set(done.stdout.split())
    assert "torch" in loaded and not loaded & {"torch._dynamo", "torch._inductor", "sympy", "sklearn", "ray", "robustbench"}


def test_help_lists_every_command_with_its_whole_summary():
    """In groups, one line of at most 80 columns each."""
    from click.testing import CliRunner

    from exitbench.cli.main import cli

    commands = {name: cli.get_command(None, name) for name in cli.list_commands(None)}
    text = CliRunner().invoke(cli, ["--help"], terminal_width=80).output
    for name, command in commands.items():
        (line,) = re.findall(rf"^  {name} +(.+)$", text, re.MULTILINE)
        assert line == command.short_help
    assert max(map(len, text.splitlines())) <= 80


def test_no_file_is_two_rooms():
    for folder in FOLDERS.values():
        for path in (ROOT / folder).rglob("*.py"):
            assert len(path.read_text(encoding="utf-8").splitlines()) <= 300, path
