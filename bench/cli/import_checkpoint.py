"""``bench import-checkpoint``: the authors' released checkpoint as a registered weight file."""

from __future__ import annotations

from pathlib import Path

import click

from exitbench.cli.option_types import NamedPath
from exitbench.cli.say import say


@click.command("import-checkpoint", short_help='Import the checkpoint of "Triple Wins"')
@click.argument("file", type=NamedPath(dir_okay=False))
@click.option("--model", default="rdi_resnet38", show_default=True, help="Architecture of the checkpoint.")
@click.option("--out", type=NamedPath(file_okay=False), help="Folder to write to. [default: your weights folder]")
def command(file: Path, model: str, out: Path | None) -> None:
    """Make registered weights of FILE, a checkpoint released with "Triple Wins".

    Nothing in the file is executed. Its digest is recorded.
    """
    from exitbench.errors import UserError
    from exitbench.models.authors_checkpoint import RELEASED_SHA256, import_checkpoint
    from exitbench.models.errors import UnknownName
    from exitbench.models.registry import model_card
    from exitbench.models.user_folders import weights_folder
    from exitbench.models.weights import IMPORTED, WeightsCard, WeightsError, save_weights

    try:
        card = model_card(model)
        net = card.build()
        digest = import_checkpoint(file, net)
        known = "the released checkpoint" if digest == RELEASED_SHA256 else "not the released checkpoint"
        source = f"{IMPORTED}{file.name} ({known}), SHA-256 {digest}"
        weights = WeightsCard(model, card.dataset, "authors", sha256="", source=source)
        _, path = save_weights(net, out or weights_folder(), weights)
    except (UnknownName, WeightsError) as error:
        raise UserError(str(error)) from error
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}") from error
    say(source, f"wrote {path}", f"evaluate it with: python -m bench run --model {model} --training authors --attack all")
