"""LiteRT's profile text, as the runner writes it on a device."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt.android_harness.device_op_profile import read_litert_summary
from edgeopt.errors import EdgeoptError

# Captured from the arm64 runner (LiteRT 2.3.0) on a small int8 network, shortened.
TEXT = """\
============ Run Order ============
                 [node type]    [start]    [first]   [avg ms]        [%]     [cdf%]   [mem KB] [times called]   [Name]
       Delegate/Convert (NC)      0.000      0.272      0.057     0.791%     0.791%      0.000              7   [Delegate]:0
Delegate/Convolution (NHWC, QC8) IGEMM      0.000      0.611      0.223     3.072%     3.909%      0.000     7   [Delegate]:2
       TfLiteXNNPackDelegate      0.000      1.000      0.300     4.000%     8.000%      0.000              7   [out]:3
                     SOFTMAX      0.000      0.010      0.020     1.000%     9.000%      0.000              7   [out]:4

============ Top by Computation Time ============
                 [node type]    [start]    [first]   [avg ms]        [%]     [cdf%]   [mem KB] [times called]   [Name]
Delegate/Convolution (NHWC, QC8) IGEMM      0.000      0.611      0.223     3.072%     3.909%      0.000     7   [Delegate]:2
"""


def test_ops_in_the_order_of_execution() -> None:
    ops = read_litert_summary(TEXT)
    assert [(op["name"], op["ms"], op["delegated"]) for op in ops] == [
        ("Convert (NC)", 0.057, True),
        ("Convolution (NHWC, QC8) IGEMM", 0.223, True),
        ("SOFTMAX", 0.020, False),
    ]
    assert sum(op["share"] for op in ops) == pytest.approx(1.0)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        read_litert_summary(text)
    except EdgeoptError as error:
        assert "no operators" in str(error)
