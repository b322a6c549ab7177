"""Other packages' loaders, where servers are silent or the user has no home."""

from __future__ import annotations

import os
import pwd
import socket
import time
import urllib.request
from pathlib import Path

import pytest

from exitbench.models.tensor_file import WeightsError
from exitbench.models.zoo import surroundings
from exitbench.models.zoo.package import robustbench_package
from exitbench.models.zoo.robustbench_entry import find_entry
from exitbench.models.zoo.surroundings import limited_waiting, some_home
from tests.models.zoo.tiny_zoo import TINY, TinyNet, checkpoint_path, zoo
from tests.silent import silent_server


@pytest.fixture
def behind_a_silent_proxy(monkeypatch, tmp_path):
    monkeypatch.setattr(surroundings, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(urllib.request, "_opener", None)  # urlopen remembers the proxies of its first call
    monkeypatch.setenv("EXITBENCH_WEIGHTS", str(tmp_path))
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with silent_server() as address:
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, address)
        yield


def test_a_silent_proxy_ends_in_where_to_put_the_file(behind_a_silent_proxy, monkeypatch, tmp_path):
    """The real ``gdown``, which sets no time-out."""
    with robustbench_package() as package:
        monkeypatch.setitem(zoo(package, "cifar10", "Linf"), TINY, {"model": TinyNet, "gdrive_id": "tiny-id"})
    begun = time.monotonic()
    with pytest.raises(WeightsError, match=r"drive.google.com/uc\?id=tiny-id") as caught:
        find_entry(TINY).load()
    assert time.monotonic() - begun < 20
    assert str(checkpoint_path(tmp_path)) in str(caught.value)


def test_torchs_hub_waits_no_longer(behind_a_silent_proxy, tmp_path):
    from torch.hub import download_url_to_file

    with limited_waiting(), pytest.raises(OSError, match="timed out"):
        download_url_to_file("http://example.invalid/weights.pt", str(tmp_path / "weights.pt"), progress=False)


def test_limits_are_put_back_and_a_time_out_of_the_codes_own_stands(monkeypatch):
    from requests.adapters import HTTPAdapter

    seen = []
    monkeypatch.setattr(HTTPAdapter, "send", lambda _self, _request, _stream=False, timeout=None, **_: seen.append(timeout))
    before, stands = HTTPAdapter.send, socket.getdefaulttimeout()
    with limited_waiting():
        HTTPAdapter().send(None)
        HTTPAdapter().send(None, timeout=3)
        assert socket.getdefaulttimeout() == surroundings.TIMEOUT_S
    assert seen == [surroundings.TIMEOUT_S, 3]
    assert HTTPAdapter.send is before and socket.getdefaulttimeout() == stands


def test_packages_find_a_home_where_there_is_none(monkeypatch):
    def nobody(uid):
        raise KeyError(uid)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    with some_home():
        assert Path("~").expanduser().is_absolute()
    assert "HOME" not in os.environ


def test_a_home_is_left_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    with some_home():
        assert os.environ["HOME"] == str(tmp_path)
    assert os.environ["HOME"] == str(tmp_path)
