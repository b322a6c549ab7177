"""Reports, as pure functions of the store: written again, they have the same bytes."""
