"""What commands import when they run, imported once for all that are forked."""

import importlib
import pkgutil

import exitbench

importlib.import_module("torch._dynamo")  # every optimiser imports it when it is made
for module in pkgutil.walk_packages(exitbench.__path__, "exitbench."):
    if ".ray" not in module.name and not module.name.endswith("__main__"):
        importlib.import_module(module.name)
