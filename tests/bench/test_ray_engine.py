"""An evaluation on a Ray cluster: the same results to the last bit, whatever happens to its processes."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections import Counter
from dataclasses import replace

import pytest
import ray
import torch

from exitbench.attacks.best_of import BestOf
from exitbench.cli.main import main
from exitbench.errors import UserError
from exitbench.runner.ray import driver
from exitbench.runner.ray.connect import Resources, connect, slots
from exitbench.runner.ray.driver import AHEAD, RayRunner
from exitbench.runner.ray.job import shard_of, shards
from exitbench.runner.ray.worker import WorkerMismatchError, work
from exitbench.store.store import Store
from tests.bench.clustered import Kills, Raises, Slow, contents, kill_some, locally, named, plan_of, ready
from tests.processes import Started, environment, run
from tests.toys import ROOT

pytestmark = pytest.mark.long

WORKERS = 2


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """Two workers on this machine; its address."""
    environment = {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False, logging_level="ERROR", object_store_memory=10**8)
        yield ray.get_runtime_context().gcs_address
        ray.shutdown()


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """What is evaluated; one thread, as in the workers."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield ready(tmp_path_factory.mktemp("no data"))
    torch.set_num_threads(threads)


@pytest.fixture
def on_ray(digits, tmp_path):
    """Runs attacks on the cluster; outcomes, the store, and the runner."""
    prepared, job = digits

    def run(attacks, on_outcome=None, n=None, folder="ray", slices=1):
        outcomes, told = [], []
        wanted = prepared if n is None else replace(prepared, n=n)
        store = Store(tmp_path / folder)
        runner = RayRunner(ray, job, store, Resources(), slices, told.append)
        runner.run(plan_of(wanted, store, attacks), lambda _: None, on_outcome or outcomes.append)
        return outcomes, store, runner, told

    return run


def test_the_results_are_those_of_this_process_to_the_last_bit(on_ray, digits, tmp_path):
    attacks = named(digits[0])
    outcomes, store, _, told = on_ray(attacks)
    local = Store(tmp_path / "local")
    locally(digits[0], local, attacks)
    assert contents(store) == contents(local)
    assert not told and not any(outcome.error for outcome in outcomes)
    assert set(Counter(outcome.cell.key for outcome in outcomes).values()) == {1}
    assert len(outcomes) == 3 * len(attacks)

    # Of one selection and one of its parts nothing is left: the other parts go to the worker as they are stored.
    whole = contents(store)
    chosen = [name for name, attack in attacks.items() if isinstance(attack, BestOf)]
    for cell in plan_of(digits[0], store, attacks).cells:
        if cell.name in (*chosen, "single:2"):
            (store.root / "cells" / cell.key[:2] / f"{cell.key}.npz").unlink()
    outcomes, store, _, _ = on_ray(attacks, slices=2)
    assert len(outcomes) == 3 * (len(chosen) + 1) and contents(store) == whole


def test_a_killed_worker_loses_nothing_and_what_kills_every_worker_is_one_error(on_ray, digits, tmp_path, monkeypatch):
    monkeypatch.setattr(driver, "LOSSES", 2)
    marker = str(tmp_path / "killed")
    attacks = {
        **named(digits[0], ["single:1"]),
        "once": Kills(marker, 3),
        **named(digits[0], ["average"]),
        "always": Kills(marker, 40, always=True),
        **named(digits[0], ["single:3"]),
    }
    outcomes, store, _, told = on_ray(attacks)
    assert (tmp_path / "killed").exists()
    assert Counter(outcome.cell.key for outcome in outcomes) == dict.fromkeys({o.cell.key for o in outcomes}, 1)
    (failed,) = [outcome for outcome in outcomes if outcome.error]
    assert (failed.cell.name, failed.cell.slice.start) == ("always", 32)
    assert "2 workers in a row were lost" in failed.error and failed.error == store.read_error(failed.cell.key).error
    assert len(outcomes) == 3 * len(attacks) and len(told) == 2

    # Here, where nothing kills: the marker is there, and the slice that always does is left out.
    local = Store(tmp_path / "local")
    locally(digits[0], local, {name: attack for name, attack in attacks.items() if name != "always"})
    found, expected = contents(store), contents(local)
    assert {key: found[key] for key in expected} == expected


def test_workers_killed_at_random_moments_change_nothing(on_ray, digits, tmp_path):
    (tmp_path / "pids").mkdir()
    attacks = {f"slow {i}": Slow(str(tmp_path / "pids"), i) for i in range(8)}
    killed = []
    killer = threading.Thread(target=lambda: killed.append(kill_some(tmp_path / "pids", 3, time.monotonic() + 300)))
    killer.start()
    outcomes, store, _, told = on_ray(attacks, n=128)
    killer.join()
    local = Store(tmp_path / "local")
    locally(replace(digits[0], n=128), local, attacks)
    assert killed[0] and told and contents(store) == contents(local)
    assert Counter(outcome.cell.key for outcome in outcomes) == dict.fromkeys({o.cell.key for o in outcomes}, 1)


def test_what_raises_on_one_batch_is_recorded_as_it_is_here(on_ray, digits, tmp_path):
    attacks = {**named(digits[0], ["single:1"]), "raises": Raises(40)}
    outcomes, store, _, _ = on_ray(attacks)
    local = Store(tmp_path / "local")
    expected = locally(digits[0], local, attacks)
    assert contents(store) == contents(local)
    errors = {outcome.cell.key: outcome.error for outcome in outcomes}
    assert errors == {outcome.cell.key: outcome.error for outcome in expected}
    assert sorted(filter(None, errors.values())) == ["RuntimeError: it raised"]


def test_a_bounded_number_of_shards_is_in_flight(on_ray, digits):
    outcomes, _, runner, _ = on_ray(named(digits[0], ["single:1"]), n=320)
    assert len(outcomes) == 10
    assert slots(ray, Resources()) == WORKERS and runner.most_in_flight == AHEAD * WORKERS


def test_shards_are_made_as_they_are_asked_for(digits, tmp_path):
    plan = plan_of(digits[0], Store(tmp_path), named(digits[0]))
    seen = []
    found = shards((seen.append(cell) or cell for cell in plan.cells), 1)
    first = next(found)
    assert len(seen) == len(first) + 1 and {cell.slice.start for cell in first} == {0}
    assert [len(shard) for shard in shards(plan.cells, 2)] == [2 * len(first), len(first)]


def test_an_interrupt_keeps_what_is_finished_and_the_next_run_goes_on(on_ray, digits, tmp_path):
    attacks = {f"slow {i}": Slow(str(tmp_path), i) for i in range(4)}
    told = []

    def interrupt(outcome):
        told.append(outcome)
        if len(told) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        on_ray(attacks, interrupt)
    kept = contents(Store(tmp_path / "ray"))
    assert 3 <= len(kept) < 12
    outcomes, store, _, _ = on_ray(attacks)
    assert len(outcomes) == 12 - len(kept)
    local = Store(tmp_path / "local")
    locally(digits[0], local, attacks)
    assert contents(store) == contents(local)


def test_a_killed_driver_goes_on_where_it_was(cluster, tmp_path):
    command = ["run", "--model", "rdi_smallcnn", "--dataset", "digits", "--attack", "single,average"]
    command += ["--n", "200", "--steps", "6", "--precision", "fp32"]
    on_cluster = [*command, "--engine", "ray", "--address", cluster, "--ray-cpus", "1.5", "--results", tmp_path / "ray"]
    killed = Started(*on_cluster, cwd=tmp_path, env=environment(OMP_NUM_THREADS="1"))
    while killed.poll() is None and len(list(tmp_path.rglob("cells/*/*.npz"))) < 3:
        time.sleep(0.02)
    killed.kill()
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    done = len(list(tmp_path.rglob("cells/*/*.npz")))
    assert 3 <= done < 35
    again = run(*on_cluster, cwd=tmp_path, env={"OMP_NUM_THREADS": "1"})
    assert again.returncode == 0, again.stderr
    assert f"{done} done before" in again.stderr
    here = run(*command, "--results", tmp_path / "local", cwd=tmp_path, env={"OMP_NUM_THREADS": "1"})
    assert here.returncode == 0, here.stderr
    assert contents(Store(tmp_path / "ray" / "store")) == contents(Store(tmp_path / "local" / "store"))


CHANGED = {
    "runs other code": lambda job: replace(job, code="another"),
    "the driver 0.0": lambda job: replace(job, torch="0.0"),
    "has other weights of rdi_smallcnn": lambda job: replace(job, weights="0" * 64),
    "cannot load what is evaluated": lambda job: replace(job, request=replace(job.request, dataset="mnist")),
    "has other images": lambda job: replace(job, seed=1),
}


@pytest.mark.parametrize("message", CHANGED)
def test_a_machine_that_would_compute_something_else_says_so(message, digits, tmp_path, monkeypatch):
    monkeypatch.setattr("exitbench.data.download.urlopen", None, raising=False)
    prepared, job = digits
    store = Store(tmp_path)
    (cells,) = shards(plan_of(replace(prepared, n=32), store, named(prepared, ["single:1"])).cells, 1)
    shard = shard_of(cells, {cell.key: cell for cell in cells}, store)
    with pytest.raises(WorkerMismatchError, match=message):
        list(work(CHANGED[message](job), shard))


def test_the_driver_stops_at_such_a_machine(digits, tmp_path):
    prepared, job = digits
    store = Store(tmp_path)
    runner = RayRunner(ray, replace(job, weights="0" * 64), store, Resources(), 1, print)
    with pytest.raises(UserError, match="has other weights of rdi_smallcnn"):
        runner.run(plan_of(prepared, store, named(prepared, ["single:1"])), lambda _: None, print)


@pytest.fixture
def unconnected(monkeypatch):
    """As if no cluster were known to this process."""
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def test_an_unknown_address_is_one_message(unconnected, tmp_path, monkeypatch, capsys):
    run = ["run", "--model", "rdi_smallcnn", "--dataset", "digits", "--attack", "average", "--n", "2"]
    monkeypatch.setattr(sys, "argv", ["bench", *run, "--results", str(tmp_path), "--engine", "ray", "--address", "127.0.0.1:1"])
    with pytest.raises(SystemExit) as left:
        main()
    err = capsys.readouterr().err
    assert left.value.code == 2 and "error: there is no Ray cluster at 127.0.0.1:1" in err and "Traceback" not in err
    assert not list(tmp_path.rglob("*.npz"))


@pytest.mark.parametrize(
    ("address", "message"), [("nowhere", "host:port, as"), ("ray://127.0.0.1:10001", "ray job submit"), ("h:0x", "host:port")]
)
def test_an_address_that_is_none_says_what_one_is(unconnected, address, message):
    with pytest.raises(UserError, match=message):
        connect(address)


def test_without_ray_the_message_names_the_command(unconnected, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'ray>=2\.52'"):
        connect(None)


@pytest.mark.parametrize("options", [["--address", "auto"], ["--ray-gpus", "1"], ["--shard", "64"]])
def test_options_of_ray_without_ray_are_refused(options, tmp_path, monkeypatch, capsys):
    run = ["run", "--model", "rdi_smallcnn", "--dataset", "digits", "--attack", "average", "--n", "2", "--results", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["bench", *run, *options])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2 and f"{options[0]} goes with --engine ray" in capsys.readouterr().err


def test_resources_are_counted_per_machine():
    machine = {"CPU": 7.0, "GPU": 2.0}
    assert Resources().fitting(machine) == 7 and Resources(2.5).fitting(machine) == 2
    assert Resources(1, 0.25).fitting(machine) == 7 and Resources(0.5, 1 / 3).fitting(machine) == 6
    assert Resources(0, 1).fitting({"CPU": 8.0}) == 0
    assert (Resources(3.5).threads, Resources(0.5).threads) == (3, 1)
    for cpus, gpus in ((0, 0), (-1, 1), (1, 2)):
        with pytest.raises(UserError, match="shard"):
            Resources(cpus, gpus)
