"""Arguments behind a reference to a factory: literals alone, in one form, made anew for every call."""

from __future__ import annotations

from argparse import Namespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exitbench.models.errors import ForeignModelError
from exitbench.models.factory import absolute_reference, factory_name, find_factory, is_reference, reported_name
from exitbench.models.reference import split_call

names = st.sampled_from(["nBlocks", "base", "grFactor", "n_classes", "data"])
leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
literals = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(names, inner, max_size=3)
        | st.dictionaries(names, inner, max_size=3).map(lambda each: Namespace(**each))
    ),
    max_leaves=8,
)
places = st.sampled_from(["net.py:make", "a (copy)/net.py:make", "package.module:Net", "C:\\nets\\net.py:make"])


@given(place=places, by_place=st.lists(literals, max_size=2), by_name=st.dictionaries(names, literals, max_size=3))
def test_values_come_as_they_are_written(place, by_place, by_name):
    text = ", ".join([*map(repr, by_place), *(f"{name}={value!r}" for name, value in by_name.items())])
    called, arguments = split_call(f"{place}({text})")
    assert called == place and arguments.values() == (by_place, by_name)
    assert split_call(f"{called}{arguments.text}") == (called, arguments)


@pytest.mark.parametrize("reference", ["net.py:make", "a (copy)/net.py:make", "package.module:make", "net.py", "a(1).py:make"])
def test_a_reference_without_arguments_is_as_it_was(reference):
    called, arguments = split_call(reference)
    assert called == reference and not arguments.text and arguments.values() == ([], {})


def test_spelling_does_not_matter():
    one, other = split_call("m.py:f(  a = 1e-3,b=[1,2,])"), split_call("m.py:f(a=0.001, b=[1, 2])")
    assert one == other
    assert factory_name("m.py:f(  a = 1e-3,b=[1,2,])") == factory_name("m.py:f(a=0.001, b=[1, 2])") == "m.f-a-0.001-b-1-2"
    assert reported_name("m.py:Net(Namespace(nBlocks=3))") == "m.Net-Namespace-nBlocks-3"


def test_a_factory_that_changes_its_arguments_gets_them_anew():
    _, arguments = split_call("m.py:f(Namespace(grFactor='1-2-4'), [1])")
    (options, several), _ = arguments.values()
    options.grFactor = [1, 2, 4]
    several.append(2)
    assert arguments.values() == ([Namespace(grFactor="1-2-4"), [1]], {})


def test_the_path_becomes_absolute_and_the_arguments_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute_reference("net.py:make(n=3, name='a:b(c)')") == f"{tmp_path}/net.py:make(n=3, name='a:b(c)')"
    assert is_reference("net.py:make(n=3)") and is_reference("pkg.net:make(n=3)")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("(__import__('os').system('touch touched'))", "is no value that a factory can be given"),
        ("(open('touched', 'w'))", "is no value"),
        ("(n=blocks)", "'?blocks'? is no value"),
        ("(n=2**99999999)", "is no value"),
        ("(*[1, 2])", "is no value"),
        ("(**{'n': 1})", r"\*\* is not taken"),
        ("(Namespace(**{'n': 1}))", r"\*\* is not taken"),
        ("({**{}})", "is no value"),
        ("(Namespace([1]))", "is no value"),
        ("(n=1", "names no"),
        ("(n=1, n=2)", "'n' is given twice"),
        ("(n=)", "cannot be parsed"),
        ("(1)(2)", "no single call"),
        ("(1).real.bit_length()", "no single call"),
        ("(n='\0')", "cannot be parsed|is no value"),
        (f"({'[' * 450}{']' * 440})", "cannot be parsed"),
        (f"(n='{'x' * 20000}')", "characters long"),
    ],
)
def test_what_is_no_literal_is_refused_and_not_executed(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text("def make(n=1):\n    return None\n")
    if message == "names no":
        message = "there is no file|has no"
    with pytest.raises(ForeignModelError, match=message):
        find_factory(f"net.py:make{arguments}")
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", r"needs arguments \(args\); give them as in a call, 'net.py:Net\(args=Namespace\(\.\.\.\)\)'"),
        ("(1, 2)", r"does not take \(1, 2\): too many positional"),
        ("(arg=1)", r"missing a required argument: 'args'"),
        ("(Namespace(depth=2))", "Net failed in line 4: AttributeError: 'Namespace' object has no attribute 'width'"),
    ],
)
def test_arguments_that_do_not_fit_are_named(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(
        "from torch import nn\ndef Net(args):\n    args.depth += 1\n    return nn.Linear(args.width, args.depth)\n"
    )
    with pytest.raises(ForeignModelError, match=message):
        find_factory(f"net.py:Net{arguments}").build()
    net = find_factory("net.py:Net(Namespace(depth=2, width=4))")
    assert [net.build().out_features for _ in range(2)] == [3, 3]


def test_a_file_that_imports_from_the_repository_above_is_told_how(tmp_path, monkeypatch):
    folder = tmp_path / "architectures" / "sdn"
    folder.mkdir(parents=True)
    (tmp_path / "aux_of_repo.py").write_text("WIDTH = 4\n")
    (folder / "vgg_sdn.py").write_text(
        "import aux_of_repo\nfrom torch import nn\ndef Net(params):\n    return nn.Linear(aux_of_repo.WIDTH, params['n'])\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ForeignModelError, match=r"from there, say architectures\.sdn\.vgg_sdn:FACTORY"):
        find_factory("architectures/sdn/vgg_sdn.py:Net({'n': 3})")
    assert find_factory("architectures.sdn.vgg_sdn:Net({'n': 3})").build().out_features == 3
