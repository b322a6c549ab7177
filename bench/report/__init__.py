"""Reports: pure functions of the store. Delete them, run ``report`` again, get the same bytes."""
