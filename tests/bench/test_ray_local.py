"""A local Ray can be reached from this machine alone, and by those alone who know its token."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from exitbench.cli.interrupts import signals_kept
from exitbench.errors import UserError
from exitbench.runner.ray import connect as module
from exitbench.runner.ray.connect import connect
from tests.toys import ROOT

pytest.importorskip("ray")

LOCAL = """
import json, os, signal, sys
from pathlib import Path
from exitbench.cli.interrupts import signals_kept
from exitbench.runner.ray.connect import connect

with signals_kept():
    ray = connect(None)
inodes = {}
for process in Path("/proc").iterdir():
    try:
        ours = process.name.isdecimal() and os.environ["MARK"].encode() in (process / "environ").read_bytes()
        for handle in (process / "fd").iterdir() if ours else ():
            inodes[os.readlink(handle)] = process.name
    except OSError:
        continue
listening = set()
for table in ("tcp", "tcp6"):
    for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
        _, local, _, state, *rest = line.split()
        if state == "0A" and f"socket:[{rest[5]}]" in inodes:
            listening.add(local.partition(":")[0])
told = {"listening": sorted(listening), "mode": os.environ["RAY_AUTH_MODE"], "token": os.environ["RAY_AUTH_TOKEN"]}
told["address"] = ray.get_runtime_context().gcs_address
told["sigterm"] = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
print(json.dumps(told), flush=True)
sys.stdin.read()
"""

STRANGER = """
import sys, ray
ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
print("connected")
"""

PATIENCE_S = 10  # a stranger that is let in is so within three seconds; one that is not tries on for minutes

LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


def test_it_listens_on_the_loopback_alone_and_wants_its_token(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"PYTHONPATH": str(ROOT), "MARK": f"mark-{tmp_path.name}-{os.getpid()}", "HOME": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", LOCAL], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as driver:
        told = json.loads(driver.stdout.readline())
        assert told["listening"] and set(told["listening"]) <= LOOPBACK
        assert told["mode"] == "token" and len(told["token"]) == 64 and told["sigterm"]
        assert not (tmp_path / ".ray" / "auth_token").exists(), "it is kept nowhere"
        stranger = subprocess.Popen(
            [sys.executable, "-c", STRANGER, told["address"]],
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            assert "connected" not in stranger.communicate(timeout=PATIENCE_S)[0]
        except subprocess.TimeoutExpired:
            stranger.kill()
            assert "connected" not in stranger.communicate()[0]
        driver.stdin.close()


@pytest.mark.parametrize("version", ["2.40.0", "2.51.2", "1.13.0"])
def test_a_version_without_tokens_is_refused_with_the_reason(version, monkeypatch):
    old = SimpleNamespace(__version__=version, is_initialized=lambda: True)
    monkeypatch.setitem(sys.modules, "ray", old)
    for address in (None, "10.0.0.1:6379"):
        with pytest.raises(UserError, match=rf"Ray {version} has no tokens.*docs/cluster\.md.*pip install 'ray>=2\.52'"):
            connect(address)


ELSEWHERE = [{"NodeManagerAddress": "192.168.0.7"}]


@pytest.fixture
def imported(monkeypatch):
    """Return a Ray that was imported before, whose nodes are elsewhere; and when it was stopped."""
    stopped = []
    ray = SimpleNamespace(
        __version__="2.60.0",
        is_initialized=lambda: False,
        init=lambda **_: None,
        nodes=lambda: ELSEWHERE,
        shutdown=lambda: stopped.append(True),
    )
    monkeypatch.setitem(sys.modules, "ray", ray)
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "RAY_ADDRESS"):
        monkeypatch.setenv(name, "")
    return stopped


def test_a_ray_that_was_imported_before_is_not_started(imported):
    with pytest.raises(UserError, match=r"other code has imported Ray before.*RAY_AUTH_MODE=token"):
        connect(None)


def test_one_that_listens_elsewhere_all_the_same_is_stopped(imported, monkeypatch):
    for name, value in module._GUARDED.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=r"would listen on 192\.168\.0\.7"):
        connect(None)
    assert imported


def test_a_handler_of_ray_s_does_not_replace_ours():
    before = signal.getsignal(signal.SIGTERM)
    with signals_kept():
        signal.signal(signal.SIGTERM, lambda *_: None)
    assert signal.getsignal(signal.SIGTERM) is before
