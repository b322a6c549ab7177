"""What commands import when they run, imported once for all that are forked."""

import importlib
import pkgutil

import exitbench

for module in pkgutil.walk_packages(exitbench.__path__, "exitbench."):
    if ".ray" not in module.name and not module.name.endswith("__main__"):
        importlib.import_module(module.name)
