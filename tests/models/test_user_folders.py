"""Where data, weights and caches are looked for: the environment first, then the platform's place, then that of version 0.1."""

import os
import pwd
import sys
import tempfile
from pathlib import Path

import pytest

from exitbench.models.user_folders import cache_folder, data_folder, weights_folder

FOLDERS = {
    "EXITBENCH_DATA": (data_folder, ".local/share/exitbench/data", "XDG_DATA_HOME", "exitbench/data"),
    "EXITBENCH_WEIGHTS": (weights_folder, ".local/share/exitbench/weights", "XDG_DATA_HOME", "exitbench/weights"),
    "EXITBENCH_CACHE": (cache_folder, ".cache/exitbench", "XDG_CACHE_HOME", "exitbench"),
}
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the places of Linux")


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (*FOLDERS, "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("variable", FOLDERS)
def test_the_environment_wins(variable, monkeypatch, tmp_path):
    folder, earlier, *_ = FOLDERS[variable]
    (tmp_path / earlier).mkdir(parents=True)
    monkeypatch.setenv(variable, "/elsewhere")
    assert folder() == Path("/elsewhere")
    monkeypatch.setenv(variable, "")
    assert folder() == tmp_path / earlier


@linux
@pytest.mark.parametrize("variable", FOLDERS)
def test_the_places_on_linux_are_those_of_version_0_1(variable, tmp_path):
    folder, earlier, *_ = FOLDERS[variable]
    assert folder() == tmp_path / earlier


@linux
@pytest.mark.parametrize("variable", ["EXITBENCH_DATA", "EXITBENCH_WEIGHTS"])
def test_what_version_0_1_put_elsewhere_is_found_until_the_platforms_place_exists(variable, monkeypatch, tmp_path):
    folder, earlier, base, inner = FOLDERS[variable]
    monkeypatch.setenv(base, str(tmp_path / "base"))
    assert folder() == tmp_path / "base" / inner
    (tmp_path / earlier).mkdir(parents=True)
    assert folder() == tmp_path / earlier
    (tmp_path / "base" / inner).mkdir(parents=True)
    assert folder() == tmp_path / "base" / inner


@pytest.fixture
def homeless(monkeypatch, tmp_path):
    """Neither ``HOME`` nor an entry in the passwd file, as for a user id that was made up for a container."""

    def nobody(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"exitbench-{os.getuid()}"


@linux
@pytest.mark.parametrize(
    ("variable", "name"), [("EXITBENCH_DATA", "data"), ("EXITBENCH_WEIGHTS", "weights"), ("EXITBENCH_CACHE", "cache")]
)
def test_without_a_home_there_is_a_folder_among_the_temporary_files(variable, name, homeless, monkeypatch, tmp_path):
    folder, _, xdg, below = FOLDERS[variable]
    assert folder() == homeless / name
    monkeypatch.setenv(xdg, str(tmp_path / "xdg"))
    assert folder() == tmp_path / "xdg" / below
    monkeypatch.setenv(variable, "/elsewhere")
    assert folder() == Path("/elsewhere")


@linux
def test_a_temporary_folder_of_somebody_else_is_refused(homeless, monkeypatch):
    homeless.mkdir()
    assert data_folder() == homeless / "data"
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    homeless.rename(homeless.with_name("exitbench-12345"))
    with pytest.raises(PermissionError, match="belongs to another user; set HOME"):
        data_folder()
