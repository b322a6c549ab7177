"""What a threat model with a grid means for clean images that are not on it."""

from __future__ import annotations

from collections.abc import Iterable

from exitbench.attacks.regions import ON_GRID, ROUNDING, ThreatModel
from exitbench.data.split import Batch
from exitbench.errors import UserError
from exitbench.models.on_grid import nearest


def off_grid_note(batches: Iterable[Batch], threat_model: ThreatModel) -> str | None:
    """Return in a line how many clean images are off the grid, and how many have no image of it in their ball; None if none is.

    Raises:
        UserError: If no ball has an image of the grid.
    """
    grid = threat_model.grid
    if grid is None:
        return None
    n = off = alone = 0
    for batch in batches:
        on = nearest(batch.x, grid)
        n, off = n + len(batch.y), off + int(((on - batch.x).abs() > ON_GRID).flatten(1).any(1).sum())
        alone += int((threat_model.distance(on, batch.x) > threat_model.eps + ROUNDING[threat_model.norm]).sum())
    if n and alone == n:
        raise UserError(
            f"no image whose pixels are multiples of 1/{grid} lies within {threat_model.norm} {threat_model.eps:.4g} of any "
            "clean image: there is nothing to attack; leave out --grid, or give a larger --eps"
        )
    if not off:
        return None
    kept = f"; {alone} of them have none within eps and count as right where they are right when clean" if alone else ""
    return (
        f"{off} of {n} clean images are off the grid of 1/{grid}: attacks are judged on the images of the grid around them{kept}"
    )
