"""Small classifiers, each from the table of its paper (named at the function)."""

from __future__ import annotations

from .builder import Net, T, width


def mobilenet_v1(scale: float = 1.0, image: int = 224, classes: int = 1000) -> Net:
    """arXiv:1704.04861 table 1."""
    net = Net(image)
    x = mobilenet_v1_body(net, scale)
    net.classify(x[-1], classes)
    return net


def mobilenet_v1_body(net: Net, scale: float = 1.0) -> list[T]:
    """The thirteen pairs; returns the outputs of the pairs 5, 11 and 13."""
    plan = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    x = net.conv(net.input, width(32 * scale), 3, 2)
    found = []
    for index, (out, stride) in enumerate(plan):
        x = net.conv(x, x.c, 3, stride, groups=x.c)
        x = net.conv(x, width(out * scale))
        if index in (4, 10, 12):
            found.append(x)
    return found


def inverted(
    net: Net, x: T, expanded: int, out: int, k: int, s: int, *, act: str | None = "relu6", squeezed: int = 0,
    fused: bool = False, residual: bool = True, dense: bool = False, late_act: bool = False,
) -> T:  # fmt: skip
    """An inverted residual; ``late_act``: the activation after squeeze and excite."""
    y = x
    if fused:
        y = net.conv(y, expanded, k, s, act=act)
    else:
        if expanded != x.c:
            y = net.conv(y, expanded, act=act)
        y = net.conv(y, expanded, k, s, groups=expanded, act=None if late_act else act)
        if squeezed:
            y = net.excite(y, squeezed, act=act if not dense else "relu", dense=dense)
        if late_act:
            y = net.act(y)
    y = net.conv(y, out, act=None)
    return net.add(x, y) if residual and s == 1 and x.c == out else y


def mobilenet_v2(scale: float = 1.0, image: int = 224, classes: int = 1000) -> Net:
    """arXiv:1801.04381 table 2."""
    net = Net(image)
    x = mobilenet_v2_body(net, scale)[-1]
    net.classify(net.conv(x, width(1280 * max(scale, 1.0)), act="relu6"), classes)
    return net


def mobilenet_v2_body(net: Net, scale: float = 1.0) -> list[T]:
    """All blocks; returns the output before each change of resolution and the last."""
    plan = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
            (6, 320, 1, 1)]  # fmt: skip
    x = net.conv(net.input, width(32 * scale), 3, 2, act="relu6")
    found = []
    for expand, out, repeat, stride in plan:
        for index in range(repeat):
            if index == 0 and stride == 2:
                found.append(x)
            x = inverted(net, x, x.c * expand, width(out * scale), 3, stride if index == 0 else 1)
    return [*found, x]


def mobilenet_v3_large(
    scale: float = 1.0,
    image: int = 224,
    classes: int = 1000,
    *,
    minimalistic: bool = False,
    dense: bool = False,
) -> Net:
    """arXiv:1905.02244 table 1; ``minimalistic`` without squeeze-excite, hard-swish and 5×5; ``dense``: as the
    file that ncnn benchmarks (its gates are fully connected, a quarter of the width, the activation after)."""
    swish = "relu" if minimalistic else "swish"
    five = 3 if minimalistic else 5
    plan = [  # kernel, expanded, outputs, excite, activation, stride
        (3, 16, 16, False, "relu", 1), (3, 64, 24, False, "relu", 2), (3, 72, 24, False, "relu", 1),
        (five, 72, 40, True, "relu", 2), (five, 120, 40, True, "relu", 1), (five, 120, 40, True, "relu", 1),
        (3, 240, 80, False, swish, 2), (3, 200, 80, False, swish, 1), (3, 184, 80, False, swish, 1),
        (3, 184, 80, False, swish, 1), (3, 480, 112, True, swish, 1), (3, 672, 112, True, swish, 1),
        (five, 672, 160, True, swish, 2), (five, 960, 160, True, swish, 1), (five, 960, 160, True, swish, 1),
    ]  # fmt: skip
    if dense:  # the published code's earlier table, which that file follows
        plan[12:] = [
            (5, 672, 160, True, swish, 1),
            (5, 672, 160, True, swish, 2),
            (5, 960, 160, True, swish, 1),
        ]
    return _mobilenet_v3(
        plan, 960, 1280, scale, image, classes, swish, minimalistic=minimalistic, dense=dense
    )


def mobilenet_v3_small(scale: float = 1.0, image: int = 224, classes: int = 1000) -> Net:
    """arXiv:1905.02244 table 2."""
    swish = "swish"
    plan = [
        (3, 16, 16, True, "relu", 2), (3, 72, 24, False, "relu", 2), (3, 88, 24, False, "relu", 1),
        (5, 96, 40, True, swish, 2), (5, 240, 40, True, swish, 1), (5, 240, 40, True, swish, 1),
        (5, 120, 48, True, swish, 1), (5, 144, 48, True, swish, 1), (5, 288, 96, True, swish, 2),
        (5, 576, 96, True, swish, 1), (5, 576, 96, True, swish, 1),
    ]  # fmt: skip
    return _mobilenet_v3(plan, 576, 1024, scale, image, classes, swish, minimalistic=False, dense=False)


def _mobilenet_v3(
    plan: list[tuple[int, int, int, bool, str, int]], last: int, head: int, scale: float, image: int, classes: int,
    swish: str, *, minimalistic: bool, dense: bool,
) -> Net:  # fmt: skip
    net = Net(image)
    x = net.conv(net.input, width(16 * scale), 3, 2, act=swish)
    for kernel, expanded, out, excite, act, stride in plan:
        wide = width(expanded * scale)
        gate = 0 if minimalistic or not excite else wide // 4 if dense else width(wide / 4)
        x = inverted(net, x, wide, width(out * scale), kernel, stride, act=act, squeezed=gate, dense=dense,
                     late_act=bool(gate and dense))  # fmt: skip
    x = net.mean(net.conv(x, width(last * scale), act=swish))
    x = net.linear(x, width(head * max(scale, 1.0)))
    if swish == "swish":
        x = net.act(x)
    net.softmax(net.linear(x, classes))
    return net


def mnasnet(image: int = 224) -> Net:
    """MnasNet-A1 without squeeze-excite (B1), arXiv:1807.11626 figure 7, as the models of Caffe and ncnn."""
    net = Net(image)
    x = net.conv(net.input, 32, 3, 2)
    x = net.conv(x, 32, 3, groups=32)
    x = net.conv(x, 16, act=None)
    for expand, out, repeat, stride, kernel in [
        (3, 24, 3, 2, 3), (3, 40, 3, 2, 5), (6, 80, 3, 2, 5), (6, 96, 2, 1, 3), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3),
    ]:  # fmt: skip
        for index in range(repeat):
            x = inverted(net, x, x.c * expand, out, kernel, stride if index == 0 else 1, act="relu")
    net.classify(net.conv(x, 1280))
    return net


def proxylessnas_mobile(image: int = 224) -> Net:
    """ProxylessNAS-Mobile, arXiv:1812.00332 figure 4: (expansion, kernel) block by block."""
    stages = [
        (16, 1, [(1, 3)]), (32, 2, [(3, 5), (3, 3)]), (40, 2, [(3, 7), (3, 3), (3, 5), (3, 5)]),
        (80, 2, [(6, 7), (3, 5), (3, 5), (3, 5)]), (96, 1, [(6, 5), (3, 5), (3, 5), (3, 5)]),
        (192, 2, [(6, 7), (6, 7), (3, 7), (3, 7)]), (320, 1, [(6, 7)]),
    ]  # fmt: skip
    net = Net(image)
    x = net.conv(net.input, 32, 3, 2)
    for out, stride, blocks in stages:
        for index, (expand, kernel) in enumerate(blocks):
            x = inverted(net, x, x.c * expand, out, kernel, stride if index == 0 else 1)
    net.classify(net.conv(x, 1280, act="relu6"))
    return net


def efficientnet(
    scale: float = 1.0, depth: float = 1.0, image: int = 224, *, lite: bool = False, classes: int = 1000
) -> Net:
    """arXiv:1905.11946 table 1, scaled; ``lite``: ReLU6, no squeeze-excite, stem and head unscaled."""
    from math import ceil

    plan = [(1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5),
            (6, 192, 4, 2, 5), (6, 320, 1, 1, 3)]  # fmt: skip
    act = "relu6" if lite else "swish"
    net = Net(image)
    x = net.conv(net.input, 32 if lite else width(32 * scale), 3, 2, act=act)
    for position, (expand, out, repeat, stride, kernel) in enumerate(plan):
        fixed = lite and position in (0, len(plan) - 1)
        for index in range(repeat if fixed else ceil(repeat * depth)):
            gate = 0 if lite else max(1, x.c // 4)
            x = inverted(net, x, x.c * expand, width(out * scale), kernel, stride if index == 0 else 1, act=act,
                         squeezed=gate)  # fmt: skip
    net.classify(net.conv(x, 1280 if lite else width(1280 * scale), act=act), classes)
    return net


EFFICIENTNET_V2_B0 = [  # expansion, outputs, repeats, stride, squeeze-excite
    (1, 16, 1, 1, False), (4, 32, 2, 2, False), (4, 48, 2, 2, False), (4, 96, 3, 2, True), (6, 112, 5, 1, True),
    (6, 192, 8, 2, True),
]  # fmt: skip
EFFICIENTNET_V2_S = [
    (1, 24, 2, 1, False), (4, 48, 4, 2, False), (4, 64, 4, 2, False), (4, 128, 6, 2, True), (6, 160, 9, 1, True),
    (6, 256, 15, 2, True),
]  # fmt: skip


def efficientnet_v2(plan: list[tuple[int, int, int, int, bool]], stem: int, image: int) -> Net:
    """arXiv:2104.00298 table 4: fused blocks first, then inverted residuals with squeeze-excite."""
    net = Net(image)
    x = net.conv(net.input, stem, 3, 2, act="swish")
    for expand, out, repeat, stride, excite in plan:
        for index in range(repeat):
            step = stride if index == 0 else 1
            if expand == 1:
                y = net.conv(x, out, 3, step, act="swish")
                x = net.add(x, y) if step == 1 and x.c == out else y
                continue
            x = inverted(net, x, x.c * expand, out, 3, step, act="swish", squeezed=x.c // 4 if excite else 0,
                         fused=not excite)  # fmt: skip
    net.classify(net.conv(x, 1280, act="swish"))
    return net


def regnety_400m(image: int = 224) -> Net:
    """RegNetY-400MF, arXiv:2003.13678: depths 1, 3, 6, 6; widths 48, 104, 208, 440; groups of 8."""
    net = Net(image)
    x = net.conv(net.input, 32, 3, 2)
    for depth, out in zip((1, 3, 6, 6), (48, 104, 208, 440), strict=True):
        for index in range(depth):
            stride = 2 if index == 0 else 1
            y = net.conv(x, out)
            y = net.conv(y, out, 3, stride, groups=out // 8)
            y = net.excite(y, round(x.c / 4))
            y = net.conv(y, out, act=None)
            short = net.conv(x, out, 1, stride, act=None) if index == 0 else x
            x = net.act(net.add(y, short))
    net.classify(x)
    return net


def shufflenet_v1(image: int = 224, groups: int = 3) -> Net:
    """ShuffleNet 1×, g = 3, arXiv:1707.01083 table 1."""
    net = Net(image)
    x = net.pool(net.conv(net.input, 24, 3, 2), 3, 2, ceil=True)
    for stage, (out, repeat) in enumerate([(240, 4), (480, 8), (960, 4)]):
        for index in range(repeat):
            first = stage == 0 and index == 0
            inner = out // 4 if not first else 54
            y = net.conv(x, inner, groups=1 if first else groups)
            if not first:
                y = net.layout(y)
            y = net.conv(y, inner, 3, 2 if index == 0 else 1, groups=inner, act=None)
            if index == 0:
                y = net.conv(y, out - x.c, groups=groups, act=None)
                x = net.act(net.concat(net.pool(x, 3, 2, ceil=True), y))
            else:
                x = net.act(net.add(x, net.conv(y, out, groups=groups, act=None)))
    net.classify(x)
    return net


def shufflenet_v2_body(net: Net, stages: tuple[tuple[int, int], ...]) -> list[T]:
    """ShuffleNet V2, arXiv:1807.11164 table 5, from the image to the last stage; outputs of the stages."""
    x = net.pool(net.conv(net.input, 24, 3, 2), 3, 2, 1)
    found = []
    for out, repeat in stages:
        half = out // 2
        left = net.conv(net.conv(x, x.c, 3, 2, groups=x.c, act=None), half)
        right = net.conv(x, half)
        right = net.conv(net.conv(right, half, 3, 2, groups=half, act=None), half)
        x = net.layout(net.concat(left, right))
        for _ in range(repeat - 1):
            part = net.layout(T(half, x.h, x.w))
            y = net.conv(part, half)
            y = net.conv(net.conv(y, half, 3, groups=half, act=None), half)
            x = net.layout(net.concat(part, y))
        found.append(x)
    return found


def shufflenet_v2(image: int = 224) -> Net:
    """ShuffleNet V2 1×."""
    net = Net(image)
    x = shufflenet_v2_body(net, ((116, 4), (232, 8), (464, 4)))[-1]
    net.classify(net.conv(x, 1024))
    return net
