"""The steps of `gpu-check.sh`: each measures one thing and writes it as JSON; `join` puts the parts into one file."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

DEVICE = os.environ.get("DEVICE", "cuda")
N = int(os.environ.get("N", "0"))
EPOCHS = int(os.environ.get("EPOCHS", "3"))
MODEL = {"model": "rdi_resnet38", "dataset": "cifar10", "training": "max_average_fast"}
RECIPE = "rdi_resnet38-cifar10-max_average_fast"


def asked(n: int) -> dict[str, Any]:
    """Return the options of a run on the first ``n`` images, or on N if that is set."""
    return {**MODEL, "n": N or n, "device": DEVICE, "data": Path(os.environ["EXITBENCH_DATA"])}


def gradients(_: Path) -> dict[str, Any]:
    """Measure forward passes and input gradients at several batch sizes."""
    from exitbench.perf.rates import BATCHES, rates
    from exitbench.runner.prepare import Request, prepare
    from exitbench.runner.search_backend import with_search_model

    prepared, backend = with_search_model(prepare(Request.of(asked(64))), work=1e5)
    return {"searched_on": str(backend.config), "images_per_second": rates(prepared, (N,) if N else BATCHES)}


def whole(*attacks: str, n: int) -> Any:
    """Return a step that times a whole run, stage by stage."""

    def step(_: Path) -> dict[str, Any]:
        from exitbench.api.stages import stages
        from exitbench.runner.prepare import Request

        return stages(Request.of(asked(n)), attacks)

    return step


def perf(part: Path) -> dict[str, Any]:
    """Run `bench perf` and return what it writes."""
    from exitbench.cli.main import cli

    output = part.with_suffix(".perf")
    options = [f"--{name}={value}" for name, value in asked(64).items()]
    cli.main(["perf", *options, "--no-autoattack", "--no-run", f"--output={output}"], standalone_mode=False)
    found: dict[str, Any] = json.loads(output.read_text(encoding="utf-8"))
    return found


def training(part: Path) -> dict[str, Any]:
    """Train a recipe for an epoch of each of its phases, and return images per second and the held-out figures."""
    from exitbench.training.make_weights import make_weights
    from exitbench.training.recipes import named_recipe, shortened

    recipe = shortened(named_recipe(RECIPE), EPOCHS) if EPOCHS >= 3 else named_recipe("rdi_smallcnn-digits-average")
    recipe = recipe if EPOCHS >= 3 else shortened(recipe, EPOCHS)
    epochs: list[dict[str, Any]] = []
    told: list[str] = []

    def on_epoch(record: Any) -> None:
        print(f"epoch {record.epoch}: {record.images_per_second:.0f} images/s, {record.seconds:.1f} s", flush=True)
        epochs.append(vars(record))
        part.write_text(json.dumps({"epochs": epochs, "told": told}), encoding="utf-8")

    data, out = asked(1)["data"], part.with_suffix(".weights")
    card, _ = make_weights(recipe, 0, data, out, "gpu-check", on_epoch=on_epoch, tell=told.append, device=DEVICE)
    return {"epochs": epochs, "told": told, "with": card.details["trained_with"]}


STEPS = {
    "gradients": gradients,
    "run": whole("average", "max_average", "adaptive", n=1000),
    "autoattack": whole("autoattack", n=64),
    "all": whole("all", n=1000),
    "perf": perf,
    "training": training,
}


def join(parts: Path, out: Path) -> None:
    """Put what the steps wrote into one file, with how each ended, what it printed last, and the machine."""
    import torch

    from exitbench.timing.cache import machine

    found: dict[str, Any] = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine(torch.device(DEVICE)),
        "torch": torch.__version__,
    }
    for ended in sorted(parts.glob("*.code")):
        code, seconds = ended.read_text(encoding="utf-8").split()
        part, log = ended.with_suffix(".json"), ended.with_suffix(".log")
        found[ended.stem] = {
            "ended_with": int(code),
            "seconds": int(seconds),
            "found": json.loads(part.read_text(encoding="utf-8")) if part.exists() else None,
            "printed": log.read_text(encoding="utf-8", errors="replace").splitlines()[-12:] if code != "0" else [],
        }
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"written: {out}")


def main() -> None:
    """Run the step that is named, or join the parts."""
    name, first, *rest = sys.argv[1:]
    if name == "join":
        join(Path(first), Path(rest[0]))
        return
    found = STEPS[name](Path(first))
    Path(first).write_text(json.dumps(found), encoding="utf-8")
    print(json.dumps(found)[:3000])


if __name__ == "__main__":
    main()
