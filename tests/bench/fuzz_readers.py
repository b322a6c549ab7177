"""Every reader of stores, archives, baselines and claims meets files that a stranger changed.

``python -m tests.bench.fuzz_readers --examples 100000`` takes some minutes; the suite runs a few hundred of the same examples.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import lzma
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from exitbench.analysis.regression.baseline import from_text
from exitbench.errors import UserError
from exitbench.models.spec import digest
from exitbench.models.stored import Unreadable
from exitbench.scoring.load import evaluations
from exitbench.store.archive import figures, unpacked
from exitbench.store.calibration_logits import HeldOut
from exitbench.store.cell import Cell
from exitbench.store.cell_error import CELL_ERROR
from exitbench.store.generations import Generations
from exitbench.store.heartbeat import HEARTBEAT
from exitbench.store.inspection import inspect
from exitbench.store.run_record import check_rule, read_run
from exitbench.store.status import statuses
from exitbench.store.store import Store
from exitbench.store.trust_result import TRUST_RESULT
from exitbench.timing.latency import LATENCY
from exitbench.verify.export_file import from_bytes, to_bytes
from tests.bench.hostile import STRINGS, array_changes, arrays_in, byte_changes, json_changes, npz, texts_of
from tests.bench.proof.toy_claims import toy_claims, toy_store
from tests.toys import ROOT

GOLDEN = ROOT / "tests/bench/golden/schema1"
ANSWERS = (Unreadable, UserError)
"""The one kind of error: what a reader raises, and what a command makes of it."""

Read = Callable[[bytes], Any]


@dataclass(frozen=True)
class Reader:
    """A reader, files that it takes, how a stranger changes them, and its share of the examples."""

    good: tuple[bytes, ...]
    read: Read
    changes: st.SearchStrategy[Callable[[bytes], bytes]]
    share: float = 1.0


def changed_json(signed: bool = False) -> st.SearchStrategy[Callable[[bytes], bytes]]:
    """Changes of the values in a JSON file; ``signed`` writes the digest of what is left into it."""

    def of(change: Callable[[Any], Any]) -> Callable[[bytes], bytes]:
        def changed(raw: bytes) -> bytes:
            content = change(json.loads(raw))
            if signed and isinstance(content, dict):
                content.pop("digest", None)
                content["digest"] = digested(content)
            return texts_of(content)

        return changed

    return json_changes().map(of) | byte_changes()


def changed_npz() -> st.SearchStrategy[Callable[[bytes], bytes]]:
    """Changes of the arrays in an npz file."""
    return array_changes().map(lambda change: lambda raw: npz(change(arrays_in(raw)))) | byte_changes()


def digested(content: Any) -> str:
    """The digest that a file of this content has to have; any, where it has none."""
    try:
        return digest(content)
    except (ValueError, RecursionError, TypeError):
        return "0" * 64


def readers(folder: Path) -> dict[str, Reader]:
    """Every reader by the kind of file."""
    store = toy_store(folder, ["single", "average"])
    (run,) = (store.root / "runs").glob("*.json")
    cell = min((store.root / "cells").glob("*/*.npz"), key=lambda path: path.stat().st_size)
    held = HeldOut("0" * 64, {"model": "toy"}, np.zeros((2, 32), np.uint8), np.zeros((3, 2, 4), np.float32))
    claims = to_bytes([toy_claims(folder)])
    archive = figures(store, list(store.runs()))
    network = {"weights": "0" * 64, "note": None, "shape": [1, 1, 1], "float32": "AAAAAA=="}
    networks = json.dumps({"schema": 1, "key": "0" * 64, "generations": [network]}).encode()
    golden = {kind: tuple(path.read_bytes() for path in sorted((GOLDEN / "store" / kind).glob("*.json"))) for kind in _KINDS}
    baselines = tuple(path.read_bytes() for path in (GOLDEN / "baseline.json", *sorted((ROOT / "baselines").glob("*.json"))))
    return {
        "run record": Reader((*golden["runs"], run.read_bytes()), lambda raw: _run(folder, raw), changed_json(), 3),
        "trust result": Reader(golden["trust"], lambda raw: TRUST_RESULT.read_text(raw, "it"), changed_json(), 2),
        "error": Reader(golden["errors"], lambda raw: CELL_ERROR.read_text(raw, "it"), changed_json()),
        "latency": Reader(golden["latency"], lambda raw: LATENCY.read_text(raw, "it"), changed_json()),
        "heartbeat": Reader(
            ((GOLDEN / "heartbeat.json").read_bytes(),), lambda raw: HEARTBEAT.read_text(raw, "it"), changed_json()
        ),
        "network": Reader((networks,), lambda raw: _network(folder, raw), changed_json()),
        "baseline": Reader(baselines, lambda raw: from_text(raw.decode(errors="replace"), "it"), changed_json(signed=True), 3),
        "cell": Reader((cell.read_bytes(),), lambda raw: Cell.from_bytes(raw, cell.stem), changed_npz(), 2),
        "calibration logits": Reader((held.to_bytes(),), lambda raw: HeldOut.from_bytes(raw, held.key), changed_npz()),
        "claims": Reader((claims,), lambda raw: from_bytes(raw, "it"), changed_npz()),
        "archive": Reader((archive,), lambda raw: _archive(folder, raw), changed_archives(), 0.1),
        "store": Reader((archive,), lambda raw: _store(folder, raw), changed_archives(), 0.1),
    }


_KINDS = ("runs", "trust", "errors", "latency")


def _run(folder: Path, raw: bytes) -> Any:
    try:
        name = digested(json.loads(raw))
    except (ValueError, RecursionError):
        name = "0" * 64
    path = folder / "records" / "runs" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw)
    try:
        record = read_run(path)
        check_rule(record, path)
    finally:
        path.unlink()
    assert all(part.isalnum() for attack in record.attacks for part in attack.keys) and "/" not in record.dataset
    return record


def _network(folder: Path, raw: bytes) -> Any:
    path = folder / "known" / "networks" / f"{'0' * 64}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw)
    return Generations(folder / "known").load("0" * 64)


def _archive(folder: Path, raw: bytes) -> Any:
    path = folder / "theirs.tar.xz"
    path.write_bytes(raw)
    with unpacked(path) as root:
        return evaluations(Store(root))


def _store(folder: Path, raw: bytes) -> Any:
    """A store that has the archive's files, whatever they are: nothing in it stops what reads it, and nothing is read outside."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        root = Store(Path(place) / "store").root
        for member, content in members(raw):
            path = root / member.name.replace("\0", "")
            if ".." not in path.parts and path.is_relative_to(root) and len(path.name) < 200 and not path.exists():
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content)
                except (OSError, UnicodeEncodeError):
                    continue
        inspect(root)
        statuses(root)
        return evaluations(Store(root))


TYPES = (
    *(tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE),
    tarfile.GNUTYPE_SPARSE,
)
Members = list[tuple[tarfile.TarInfo, bytes]]


def members(raw: bytes) -> Members:
    """The files in an archive; none where it is damaged."""
    try:
        with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
            return [(member, archive.extractfile(member).read()) for member in archive if member.isreg()]  # type: ignore[union-attr]
    except (tarfile.TarError, lzma.LZMAError, EOFError, OSError, ValueError):
        return []


@st.composite
def changed_archives(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Changes of one member of an archive, or of the archive's bytes."""
    if draw(st.integers(0, 5)) == 0:
        return draw(byte_changes())
    which = draw(st.integers(0, 10**6))
    kind = draw(st.sampled_from(["json", "json", "npz", "npz", "bytes", "name", "type", "twice", "gone"]))
    change = draw({"json": changed_json(), "npz": changed_npz()}.get(kind, byte_changes()))
    name, odd = draw(st.sampled_from(STRINGS)), draw(st.sampled_from(TYPES))

    def changed(raw: bytes) -> bytes:
        found = members(raw)
        fitting = [i for i, (member, _) in enumerate(found) if kind not in ("json", "npz") or member.name.endswith(kind)]
        at = fitting[which % len(fitting)]
        member, content = found[at]
        if kind in ("json", "npz", "bytes"):
            content = change(content)
            if member.name.startswith("runs") and kind == "json":
                member.name = f"runs/{digested(json.loads(content)) if _is_json(content) else '0' * 64}.json"
        elif kind == "name":
            member.name = name.encode(errors="replace").decode() or "x"
        elif kind == "type":
            member.type, member.linkname = odd, "/etc/passwd"
        found[at : at + 1] = {"gone": [], "twice": [(member, content)] * 2}.get(kind, [(member, content)])
        return packed(found)

    return changed


def _is_json(raw: bytes) -> bool:
    try:
        json.loads(raw)
    except (ValueError, RecursionError):
        return False
    return True


def packed(found: Members) -> bytes:
    """An archive of these files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz", preset=0) as archive:
        for member, content in found:
            member.size = len(content) if member.type == tarfile.REGTYPE else 0
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def meet(reader: Reader, examples: int, seen: Counter[str] | None = None, **options: Any) -> None:
    """Give changed files to a reader, which has to end in a value or in one of ``ANSWERS``, of one line."""

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck), **options)
    @given(st.sampled_from(reader.good), reader.changes)
    def answer(good: bytes, change: Callable[[bytes], bytes]) -> None:
        try:
            reader.read(change(good))
        except ANSWERS as error:
            assert str(error)
            said = "refused"
        else:
            said = "read"
        if seen is not None:
            seen[said] += 1

    answer()


def main() -> None:
    """Run many examples over all readers, and print how they ended."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--examples", type=int, default=100_000)
    wanted = parser.parse_args().examples
    logging.disable()
    with tempfile.TemporaryDirectory() as folder:
        found = readers(Path(folder))
        total = sum(reader.share for reader in found.values())
        for name, reader in found.items():
            began, seen = time.perf_counter(), Counter[str]()
            meet(reader, max(1, round(wanted * reader.share / total)), seen, phases=[Phase.generate, Phase.shrink])
            took = time.perf_counter() - began
            print(f"{name}: {seen.total()} examples, {dict(seen)}, {took:.0f} s", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
