"""Numbers are read in ASCII digits alone: those of other scripts would give one thing many names."""

from __future__ import annotations

import re
import sys
import unicodedata
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import exitbench.cli
from exitbench.analysis.robustbench.entry_json import given_fields
from exitbench.attacks.regions import ThreatModel
from exitbench.attacks.registry import _exit_number
from exitbench.attacks.torchattack import torch_attack
from exitbench.cli.main import cli
from exitbench.cli.option_types import Real, Whole
from exitbench.cli.options import number
from exitbench.models.errors import InputError, InvalidValue
from exitbench.models.number_text import real_number, whole_number
from exitbench.models.policies import FixedExit
from exitbench.models.policy_text import parse_policy

FOREIGN = [
    chr(i)
    for i in range(128, sys.maxunicode + 1)
    if unicodedata.category(chr(i)) == "Nd" and unicodedata.decimal(chr(i)) in (1, 2)
]
WHOLE, REAL = Whole(), Real()

READERS = {
    "single:k": lambda text: _exit_number(f"single:{text}", text, 2),
    "exit:k": lambda text: parse_policy(f"exit:{text}", 2),
    "entropy:t": lambda text: parse_policy(f"entropy:0.{text}", 2),
    "confidence:t": lambda text: parse_policy(f"confidence:.{text}", 2),
    "an option": lambda text: WHOLE.convert(text, None, None),
    "an option, not whole": lambda text: REAL.convert(f"{text}.5", None, None),
    "--eps": lambda text: number(None, None, f"{text}/255"),
    "--eps, decimal": lambda text: number(None, None, f"0.{text}"),
    "--field": lambda text: given_fields([f"number_forward_passes={text}"]),
    "torchattacks": lambda text: torch_attack(ThreatModel("Linf", 0.1), FixedExit(1), f"PGD(steps={text})"),
}
REFUSALS = (InputError, click.BadParameter)


@pytest.mark.parametrize("reader", READERS)
def test_ascii_digits_are_read(reader):
    assert READERS[reader]("1") is not None


@pytest.mark.parametrize("reader", READERS)
@given(st.sampled_from([*FOREIGN, "1\u200b", *(each + "1" for each in FOREIGN[:9])]))
def test_other_digits_are_refused_with_a_message(reader, text):
    with pytest.raises(REFUSALS) as caught:
        READERS[reader](text)
    assert str(caught.value) or caught.value.message


@given(st.text(max_size=12))
def test_any_text_is_a_number_in_ascii_or_is_refused(text):
    for read in (whole_number, real_number):
        try:
            read(text)
        except InvalidValue as error:
            assert str(error)
        else:
            assert text.isascii() and "_" not in text


@pytest.mark.parametrize("text", ["01", "+1", " 1", "0", "3", ""])
def test_an_exit_has_one_name(text):
    with pytest.raises(InvalidValue, match=r"the model's exits are 1\.\.2"):
        READERS["single:k"](text)


RUN = ["run", "--model", "rdi_smallcnn", "--dataset", "digits", "--n", "1", "--dry-run"]
ASKED = (
    ("--n", "\uff11"),
    ("--eps", "\uff18/255"),
    ("--attack", "single:\uff11"),
    ("--policy", "exit:\uff11"),
    ("--steps", "\u0661"),
)


@pytest.mark.parametrize("asked", ASKED)
def test_commands_refuse_them(asked, tmp_path):
    ended = CliRunner().invoke(cli, [*RUN, "--results", str(tmp_path), *asked], standalone_mode=False)
    assert isinstance(ended.exception, REFUSALS)
    assert "0-9" in str(ended.exception.message if isinstance(ended.exception, click.ClickException) else ended.exception)


@pytest.mark.parametrize("option", ["--results", "--data", "--weights"])
def test_an_empty_path_is_not_the_current_folder(option):
    ended = CliRunner().invoke(cli, ["run", "--model", "rdi_smallcnn", option, ""])
    assert ended.exit_code == 2 and "the name is empty" in ended.output


def test_every_option_of_every_command_is_read_so():
    folder = Path(exitbench.cli.__file__).parent
    own = re.compile(r"click\.(INT|FLOAT|Path)|type=(int|float)\b|click\.(Int|Float)Range")
    found = [path.name for path in folder.glob("*.py") if path.name != "option_types.py" and own.search(path.read_text("utf-8"))]
    assert not found


def test_help_shows_a_range_only_where_there_is_one():
    shown = CliRunner().invoke(cli, ["sweep", "--help"]).output
    assert "1<=x<=1000" in shown and "None" not in shown
