"""Settings and limits of other people's machines: of language, Python, memory and output, and plugins that misbehave."""

from __future__ import annotations

import logging
import os
import resource
import stat
import subprocess
import sys
import time

import pytest

from exitbench.cli import ending
from exitbench.cli.say import OutputLost
from exitbench.models import plugins as module
from exitbench.models.plugins import plugins
from tests.toys import ROOT

pytestmark = pytest.mark.long

RUN = ("run", "--model", "rdi_smallcnn", "--dataset", "digits", "--attack", "single:1", "--n", "2", "--steps", "1")


def bench(*arguments, cwd, limit=None, **options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **options.pop("environment", {})}
    return subprocess.run(
        [sys.executable, "-m", "exitbench.__main__", *arguments],
        cwd=cwd,
        env=environment,
        text=True,
        stderr=subprocess.PIPE,
        stdout=options.pop("stdout", subprocess.PIPE),
        check=False,
        preexec_fn=limit,
    )


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """Return a results folder made under another language and time zone, and without docstrings."""
    folder = tmp_path_factory.mktemp("odd")
    odd = {"LC_ALL": "de_DE.UTF-8", "TZ": "Asia/Kolkata", "PYTHONOPTIMIZE": "2"}
    done = bench(*RUN, cwd=folder, environment={**odd, "EXITBENCH_LOGS": str(folder)})
    assert done.returncode == 0, done.stderr
    return folder, odd


def test_plots_are_the_same_under_anybody_s_settings(evaluated, tmp_path):
    folder, _ = evaluated
    (plot,) = (folder / "results" / "plots").glob("*.svg")
    first = plot.read_bytes()
    assert bench("report", cwd=folder).returncode == 0
    assert plot.read_bytes() == first


def test_without_docstrings_models_have_no_description(evaluated, tmp_path):
    _, odd = evaluated
    done = bench("list", "models", cwd=tmp_path, environment={**odd, "EXITBENCH_CACHE": str(tmp_path)})
    assert (
        done.returncode == 0 and "rdi_smallcnn" in done.stdout and "no description: Python runs" in " ".join(done.stdout.split())
    )


def test_too_little_memory_is_no_bug(tmp_path):
    few = 500_000_000
    done = bench(*RUN, cwd=tmp_path, limit=lambda: resource.setrlimit(resource.RLIMIT_AS, (few, few)))
    assert done.returncode == 2 and "there is not enough memory" in done.stderr and "ulimit -v" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_output_that_cannot_be_written_is_not_blamed_on_the_results(evaluated, tmp_path):
    folder, _ = evaluated
    device = tmp_path / "full"
    try:
        os.mknod(device, stat.S_IFCHR | 0o600, os.makedev(1, 7))
        full = device.open("wb")
    except OSError as error:
        pytest.skip(f"a device that is always full takes the right to make one ({error})")
    with full:
        done = bench(*RUN, cwd=folder, stdout=full)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and last.startswith("error: the output cannot be written (No space left on device)")


def test_who_has_read_enough_is_told_nothing(evaluated):
    folder, _ = evaluated
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as closed:
        done = bench("report", cwd=folder, stdout=closed)
    assert done.returncode == 141 and done.stderr == ""


def test_a_lost_output_stays_lost(monkeypatch, capsys):
    monkeypatch.setattr(ending, "_give_up_output", lambda: None)
    assert ending.ended_by(OutputLost(BrokenPipeError(32, "Broken pipe"))) == 141
    assert ending.ended_by(OutputLost(OSError(28, "No space left on device"))) == 2
    assert "No space left on device" in capsys.readouterr().err


PLUGINS = {
    "slow": "import time\ntime.sleep(0.5)\n",
    "leaves": "raise GeneratorExit\n",
    "odd": "class Odd(BaseException): pass\nraise Odd('\\x1b[31mit\\nhas')\n",
    "interrupts": "raise KeyboardInterrupt\n",
}


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Return a function that installs a plugin."""
    monkeypatch.syspath_prepend(str(tmp_path))
    plugins.cache_clear()

    def install(name):
        (tmp_path / f"plugin_{name}.py").write_text(PLUGINS[name] + "value = 1\n")
        info = tmp_path / f"plugin_{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: plugin-{name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[exitbench.odd_{name}]\nentry = plugin_{name}:value\n")
        return f"exitbench.odd_{name}"

    yield install
    plugins.cache_clear()


def test_a_plugin_that_takes_long_is_named_while_it_does(installed, monkeypatch, caplog):
    monkeypatch.setattr(module, "SLOW_S", 0.1)
    began = time.monotonic()
    assert len(plugins(installed("slow"), lambda _: None)) == 1 and time.monotonic() - began >= 0.5
    assert "still loading the plugin plugin-slow 1.0" in caplog.text


@pytest.mark.parametrize("name", ["leaves", "odd"])
def test_a_plugin_that_raises_anything_is_left_out(installed, caplog, name):
    assert plugins(installed(name), lambda _: None) == ()
    assert f"plugin left out: plugin-{name} 1.0" in caplog.text


def test_a_plugin_that_interrupts_is_named(installed, caplog):
    with caplog.at_level(logging.WARNING), pytest.raises(KeyboardInterrupt):
        plugins(installed("interrupts"), lambda _: None)
    assert "interrupted while this plugin was loaded: plugin-interrupts 1.0" in caplog.text
