"""An evaluation of ours in RobustBench's fields: what was measured, what the user told, and null for the rest."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest

from exitbench.analysis.robustbench.entry_json import GIVEN, given_fields, robustbench_entry
from exitbench.errors import UserError
from exitbench.models.zoo.package import robustbench_package
from tests.bench.evaluated import evaluate, only_evaluation


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory):
    """The toy's, with an AutoAttack on the rule, one on exit 2, and an attack that breaks more."""
    _, store = evaluate(tmp_path_factory.mktemp("toy"), ("single", "average"))
    found = only_evaluation(store)
    first, second, third, average = found.attacks
    attacks = (broken(first, "autoattack", 4), replace(second, name="autoattack:2"), broken(third, "single:3", 3), average)
    return replace(found, attacks=attacks)


def broken(result, name, every):
    """The result under another name, with one sample in ``every`` broken."""
    correct = result.correct.copy()
    correct[::every] = False
    return replace(result, name=name, correct=correct)


def percent(share):
    return f"{100 * share:.2f}"


def test_measured_fields_are_the_evaluations(evaluation):
    entry = robustbench_entry(evaluation, {})
    by_name = {attack.name: attack for attack in evaluation.attacks}
    assert entry["clean_acc"] == percent(evaluation.clean.correct.mean())
    assert entry["autoattack_acc"] == percent(evaluation.robust(by_name["autoattack"]).mean())
    assert entry["external"] == entry["exitbench"]["worst_case"] == percent(evaluation.worst.mean())
    assert float(entry["external"]) < float(entry["autoattack_acc"])
    assert [each["mmacs"] for each in entry["exits"]] == list(evaluation.record.mmacs)
    assert sum(each["taken"] for each in entry["exits"]) == 70
    assert [each["autoattack_acc"] for each in entry["exits"]] == [None, percent(by_name["autoattack:2"].exit_accuracy[1]), None]
    assert [each["clean_acc"] for each in entry["exits"]] == [percent(share) for share in evaluation.clean.exit_accuracy]


def test_nothing_is_invented(evaluation):
    entry = robustbench_entry(evaluation, {})
    assert all(entry[name] is None for name in GIVEN) and entry["unreliable"] is None  # the toy was not checked
    bare = robustbench_entry(replace(evaluation, attacks=()), {})
    assert bare["autoattack_acc"] is None and "external" not in bare
    assert bare["exitbench"]["worst_case"] is None and bare["exitbench"]["worst_case_status"] == "not attacked"


def test_told_fields_have_robustbenchs_types(evaluation):
    told = given_fields(
        ["venue=ICLR 2020", "additional_data=False", "number_forward_passes=1", "reported=41.9", "link=https://a/?b=c"]
    )
    entry = robustbench_entry(evaluation, told)
    assert entry["venue"] == "ICLR 2020" and entry["link"] == "https://a/?b=c" and entry["reported"] == "41.9"
    assert entry["additional_data"] is False and entry["number_forward_passes"] == 1


@pytest.mark.parametrize(
    "text",
    [
        "venue",
        "clean_acc=99",
        "additional_data=maybe",
        "number_forward_passes=0",
        "number_forward_passes=x",
        "reported=x",
        "reported=101",
    ],
)
def test_fields_that_are_measured_or_of_another_type_are_refused(text):
    with pytest.raises(UserError, match="--field"):
        given_fields([text])


def test_robustbench_reads_it(evaluation, tmp_path, monkeypatch, capsys):
    """Its own fields and order, and its own reader of ``model_info`` files."""
    entry = robustbench_entry(evaluation, given_fields(["name=A toy", "venue=nowhere", "architecture=toy"]))
    folder = tmp_path / "model_info" / "cifar10" / "Linf"
    folder.mkdir(parents=True)
    (folder / "Standard.json").write_text(json.dumps(entry))
    monkeypatch.chdir(tmp_path)
    with robustbench_package() as package:
        own = [field.name for field in fields(package.utils.ModelInfo)]
        package.utils.list_available_models("cifar10", "Linf")
    assert [name for name in own if name in entry] == [name for name in entry if name in own]
    assert set(own) - set(entry) == {name for name in own if name.startswith("corruptions")}
    assert "A toy" in capsys.readouterr().err
