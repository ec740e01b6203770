"""Fits the cost model to one device: a suite of kernels, measured there, and the corrections they tell.

The suite is made and measured here and fitted by the cost model; the result is a profile that extends the
device's own with a table ``[calibration]``. Knows no terminal.
"""

from __future__ import annotations
