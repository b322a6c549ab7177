"""Factories of the user's own are found, called and named, and errors in them are explained."""

import re
import sys
from importlib.metadata import EntryPoint

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from exitbench.models.factory import factory_name, find_factory, is_reference
from exitbench.models.foreign import ForeignModelError
from exitbench.models.identity import source_files, tensors_digest
from exitbench.models.network_identity import network_digest, structure_digest
from exitbench.models.own_code import own_sources
from exitbench.models.safe_name import safe_name

NET = "from torch import nn\ndef make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(4, 3))\n"


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Return a function that writes a Python file and returns a reference into it."""
    monkeypatch.chdir(tmp_path)

    def write(source, name="make", file="tiny.py"):
        (tmp_path / file).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / file).write_text(source)
        return f"{file}:{name}"

    return write


def digest_of(reference):
    factory = find_factory(reference)
    return identity(factory.build(), factory)


def identity(net, factory):
    return network_digest(structure_digest(net, factory), net)


def test_a_file_and_a_package_are_found(written, tmp_path):
    assert find_factory(written(NET)).build()[1].out_features == 3
    assert find_factory(str(tmp_path / "tiny.py:make")).name == "tiny.make"
    written(NET, file="folder_of_mine/net.py")
    found = find_factory("folder_of_mine.net:make")
    assert (found.name, found.where) == ("folder_of_mine.net.make", "folder_of_mine.net:make")
    assert str(tmp_path) not in sys.path


def test_a_class_and_a_method_of_one_are_factories_too(written):
    source = "from torch import nn\nclass Net(nn.Linear):\n    def __init__(self):\n        super().__init__(4, 3)\n"
    assert find_factory(written(source, "Net")).build().out_features == 3


def test_what_stands_beside_the_file_can_be_imported(written):
    written("WIDTH = 3\n", file="beside_mine/width_of_mine.py")
    source = "from torch import nn\ndef make():\n    from width_of_mine import WIDTH\n    return nn.Linear(4, WIDTH)\n"
    assert find_factory(written(source, file="beside_mine/net.py")).build().out_features == 3
    assert not any("beside_mine" in folder for folder in sys.path)


def test_fresh_weights_are_the_same_every_time_and_randomness_is_put_back(written):
    reference = written(NET)
    torch.manual_seed(5)
    first, drawn = digest_of(reference), torch.rand(1)
    torch.manual_seed(5)
    assert drawn == torch.rand(1)
    assert digest_of(reference) == first


BAD = {
    "no such file": (None, "nowhere.py:make", "there is no file nowhere.py"),
    "a near miss of a file": (NET, "tinny.py:make", "did you mean 'tiny.py'"),
    "no such name": (NET, "tiny.py:mkae", r"has no 'mkae'; did you mean 'make'\? \(it defines: make\)"),
    "no name at all": (NET, "tiny.py", "named without a factory.*it defines: make"),
    "an empty name": (NET, "tiny.py:", "named without a factory"),
    "no file at all": (NET, ":make", "the forms are"),
    "no such package": (NET, "package_that_is_not:make", "package_that_is_not failed: ModuleNotFoundError"),
    "no module's name": (NET, "a b.:c", "failed: ModuleNotFoundError"),
    "a syntax error": ("def make(:\n", "tiny.py:make", "failed: SyntaxError: .*line 1"),
    "an error on import": ("x = 1\nraise RuntimeError('boom')\n", "tiny.py:make", "failed in line 2: RuntimeError: boom"),
    "an exit on import": ("import sys\nsys.exit(3)\n", "tiny.py:make", "failed in line 2: SystemExit: 3"),
    "a former name of ours": ("import models.multi_exit\n", "tiny.py:make", "own packages are exitbench, exitbench.models and"),
    "an error when called": ("def make():\n    return 1 / 0\n", "tiny.py:make", "failed in line 2: ZeroDivisionError"),
    "arguments": (
        "def make(width, deep=3): ...\n",
        "tiny.py:make",
        r"needs arguments \(width\).*: return make\(width=",
    ),
    "a network": ("from torch import nn\nmake = nn.Linear(1, 1)\n", "tiny.py:make", "is a network .Linear., not a factory"),
    "a number": ("make = 3\n", "tiny.py:make", "is int, not a factory"),
    "nothing returned": ("def make(): ...\n", "tiny.py:make", "returned NoneType .does it end in `return net`"),
    "no module returned": ("def make(): return [1]\n", "tiny.py:make", "returned list; it must return a torch.nn.Module"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_said(case, written):
    source, reference, message = BAD[case]
    if source is not None:
        written(source)
    with pytest.raises(ForeignModelError, match=message):
        find_factory(reference).build()


def test_no_bytecode_is_read_or_left(written, tmp_path):
    """Two versions of one size within a second: a cached one would be taken for the other."""
    reference = written(NET)
    assert find_factory(reference).build()[1].out_features == 3
    written(NET.replace("4, 3", "4, 2"))
    assert find_factory(reference).build()[1].out_features == 2
    assert not list(tmp_path.rglob("__pycache__"))


class TestIdentity:
    def test_it_does_not_depend_on_where_the_file_lies(self, written):
        assert digest_of(written(NET)) == digest_of(written(NET, file="elsewhere/tiny.py"))

    def test_another_source_is_another_network_with_the_same_tensors(self, written):
        one, other = written(NET), written(NET + "# changed\n", file="other.py")
        assert digest_of(one) != digest_of(other)
        assert tensors_digest(find_factory(one).build()) == tensors_digest(find_factory(other).build())

    def test_code_that_it_builds_on_counts(self, written, tmp_path):
        layers = "from torch import nn\nclass Layer_of_mine(nn.Linear):\n    pass\n"
        written(layers, file="layers_of_mine.py")
        source = "import layers_of_mine\ndef make():\n    return layers_of_mine.Layer_of_mine(4, 3)\n"
        reference = written(source)
        factory = find_factory(reference)
        before = identity(net := factory.build(), factory)
        assert [path.name for path in source_files(net, factory.module)] == ["tiny.py", "layers_of_mine.py"]
        (tmp_path / "layers_of_mine.py").write_text(layers + "# changed\n")
        assert identity(net, factory) != before

    def test_one_weight_or_buffer_is_another_network(self, written):
        factory = find_factory(written(NET))
        net = factory.build()
        before = identity(net, factory)
        with torch.no_grad():
            net[1].bias[0] += 1e-3
        changed = identity(net, factory)
        net.register_buffer("unsaved", torch.tensor(True), persistent=False)
        assert len({before, changed, identity(net, factory)}) == 3


HOSTILE = [
    "../../etc/passwd",
    "<script>alert(1)</script>",
    "a b\tc",
    "-rf",
    "__x",
    "größe",
    "..",
    "",
    "=1+1",
    "x" * 500,
    "$\\frac$",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_become_plain_ones(text):
    name = safe_name(text)
    assert name and len(name) <= 80 and name[0].isalnum()
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
    assert safe_name(name) == name


@given(st.text())
def test_any_text_becomes_a_plain_name(text):
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}", safe_name(text))


def test_names_of_references():
    assert factory_name("folder/x y.py:make") == "x-y.make"
    assert factory_name("package.module:Net") == "package.module.Net"
    assert is_reference("a.py:b") and is_reference("a.py") and is_reference("a.b:c") and not is_reference("rdi_resnet38")


def test_packages_called_models_attacks_and_bench_are_the_users(written):
    for package, width in (("models", 3), ("attacks", 4), ("bench", 5)):
        written("", file=f"mine/{package}/__init__.py")
        written(f"WIDTH = {width}\n", file=f"mine/{package}/width.py")
    source = "from torch import nn\nfrom {}.width import WIDTH\ndef make():\n    return nn.Linear(4, WIDTH)\n"
    for package, width in (("models", 3), ("attacks", 4), ("bench", 5)):
        assert find_factory(written(source.format(package), file=f"mine/{package}_net.py")).build().out_features == width


def test_two_networks_each_get_their_own_package_of_one_name(written):
    source = "from torch import nn\nfrom models.width import WIDTH\ndef make():\n    return nn.Linear(4, WIDTH)\n"
    for folder, width in (("one", 3), ("two", 4)):
        written("", file=f"{folder}/models/__init__.py")
        written(f"WIDTH = {width}\n", file=f"{folder}/models/width.py")
        written(source, file=f"{folder}/net.py")
    for folder, width in (("one", 3), ("two", 4), ("one", 3)):
        assert find_factory(f"{folder}/net.py:make").build().out_features == width


def test_no_module_of_ours_is_loaded_under_a_former_name(written):
    find_factory(written(NET))
    bare = [name for name in sys.modules if name.partition(".")[0] in ("models", "attacks", "bench")]
    own = {str(path) for path in own_sources().values()}
    assert not [name for name in bare if getattr(sys.modules[name], "__file__", None) in own]


def test_the_command_lines_arguments_are_hidden_from_the_file_and_the_factory(written, monkeypatch):
    arguments = ["exitbench", "run", "--model", "tiny.py:make"]
    monkeypatch.setattr(sys, "argv", arguments)
    parse = "import argparse\nparser = argparse.ArgumentParser()\nparser.add_argument('--width', type=int, default=3)\n"
    source = (
        f"{parse}WIDTH = parser.parse_args().width\nfrom torch import nn\n"
        "def make():\n    return nn.Linear(parser.parse_args().width, WIDTH)\n"
    )
    assert find_factory(written(source)).build().out_features == 3
    written(source, file="of_mine_with_options/net.py")
    assert find_factory("of_mine_with_options.net:make").build().in_features == 3
    needed = written(parse.replace("default=3", "required=True") + "parser.parse_args()\n" + NET, file="needed.py")
    with pytest.raises(ForeignModelError, match=r"needed\.py failed in line 4: SystemExit: 2; .*__name__ == '__main__'"):
        find_factory(needed)
    assert sys.argv is arguments


def test_they_are_hidden_from_plugins_too(written, monkeypatch):
    from exitbench.models.plugins import _load

    written("import sys\nSEEN = list(sys.argv)\n", file="plugin_that_looks.py")
    monkeypatch.syspath_prepend(".")
    monkeypatch.setattr(sys, "argv", ["exitbench", "list", "models"])
    assert _load(EntryPoint("look", "plugin_that_looks:SEEN", "exitbench.models")) == ["exitbench"]


RELATIVE = "from torch import nn\nfrom .width import WIDTH\nfrom ..deep import DEEP\ndef make():\n    from .width import WIDTH as later\n    return nn.Linear(DEEP, later)\n"  # noqa: E501


@pytest.mark.parametrize("is_package", [True, False])
def test_relative_imports(is_package, written, tmp_path):
    """They work by file where there is a package, by module in any case, and the message says so."""
    outer, inner = f"outer_{is_package}".lower(), f"outer_{is_package}".lower() + "/inner"
    written("WIDTH = 3\n", file=f"{inner}/width.py")
    written("DEEP = 4\n", file=f"{outer}/deep.py")
    reference = written(RELATIVE, file=f"{inner}/net.py")
    if is_package:
        for folder in (outer, inner):
            written("", file=f"{folder}/__init__.py")
        net = find_factory(reference).build()
        assert (net.in_features, net.out_features) == (4, 3)
        assert {path.name for path in source_files(net, find_factory(reference).module)} >= {"net.py"}
        assert find_factory(reference).name == "net.make"
    else:
        with pytest.raises(ForeignModelError, match=rf"empty __init__\.py into .*{inner}, or, from .*, say inner\.net:FACTORY"):
            find_factory(reference)
    assert find_factory(f"{inner.replace('/', '.')}.net:make").build().in_features == 4
    assert str(tmp_path) not in sys.path


def test_a_file_in_a_package_still_imports_what_stands_beside_it(written):
    written("raise RuntimeError('a package is imported for relative imports alone')\n", file="with_init/__init__.py")
    written("WIDTH = 3\n", file="with_init/width_beside.py")
    source = "from torch import nn\nfrom width_beside import WIDTH\ndef make():\n    return nn.Linear(4, WIDTH)\n"
    assert find_factory(written(source, file="with_init/net.py")).build().out_features == 3


def test_the_digest_of_a_file_in_a_package_covers_what_it_imports(written):
    written("", file="covered/__init__.py")
    written("class Width:\n    value = 3\n", file="covered/width.py")
    source = "from torch import nn\nfrom .width import Width\ndef make():\n    return nn.Linear(4, Width.value)\n"
    factory = find_factory(written(source, file="covered/net.py"))
    assert {path.name for path in source_files(factory.build(), factory.module)} == {"net.py", "width.py"}
