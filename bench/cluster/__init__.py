"""One evaluation on many machines: shards of a plan as tasks of a Ray cluster; the driver alone writes into the store."""
