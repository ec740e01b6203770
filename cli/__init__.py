"""The ``edgeopt`` command: one file a command group; parse, call, print. No logic lives here.

Modules of this folder import nothing heavy at the top (a test holds the list): torch, the
exporters, numpy and pydantic are imported inside the functions that need them.
"""

from .app import main

__all__ = ["main"]
