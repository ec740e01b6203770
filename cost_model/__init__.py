"""Predicts latency, memory and energy of a model on a device that isn't there.

Kernels (what a file computes) and a profile (what a device is) go in, an estimate with a band and a reason
comes out. Knows nothing of files, frameworks or how a device is reached; prediction needs numpy only.
"""

from __future__ import annotations

from .kernels import Kernel as Kernel
from .kernels import check_kernels as check_kernels
from .machine import Machine as Machine
from .machine import machine_of as machine_of
from .predict import Estimate as Estimate
from .predict import KernelEstimate as KernelEstimate
from .predict import predict as predict
