"""Detectors as their authors published them; the boxes' final selection is not counted."""

from __future__ import annotations

from .builder import Net, T
from .classic import fire
from .mobile import inverted, mobilenet_v1_body, mobilenet_v2_body, shufflenet_v2_body


def _ssd_head(net: Net, maps: list[T], anchors: list[int], k: int, classes: int = 21) -> None:
    scores = 0
    for x, count in zip(maps, anchors, strict=True):
        for out in (4 * count, classes * count):
            net.layout(net.conv(x, out, k, bn=False, bias=True, act=None))
        scores += count * x.h * x.w
    net.layout(T(4, scores, 1))
    net.layout(T(classes, scores, 1))
    net.softmax(T(classes, scores, 1))


def mobilenet_ssd() -> Net:
    """MobileNet V1 + SSD, 300×300, 21 classes (arXiv:1704.04861 section 4.5; the Caffe model of chuanqi305)."""
    net = Net(300)
    _, eleventh, last = mobilenet_v1_body(net)
    maps, x = [eleventh, last], last
    for mid, out in ((256, 512), (128, 256), (128, 256), (64, 128)):
        x = net.conv(net.conv(x, mid), out, 3, 2)
        maps.append(x)
    _ssd_head(net, maps, [3, 6, 6, 6, 6, 6], 1)
    return net


def squeezenet_ssd() -> Net:
    """SqueezeNet + SSD, 300×300, 21 classes (the Caffe model of chuanqi305)."""
    net = Net(300)
    x = net.pool(net.conv(net.input, 64, 3, 2, pad=0), 3, 2)
    x = net.pool(fire(net, fire(net, x, 16, 64), 16, 64), 3, 2, ceil=True)
    x = fire(net, fire(net, x, 32, 128), 32, 128)
    maps = [net.act(x)]
    x = net.pool(x, 3, 2)
    for squeeze, expand in ((48, 192), (48, 192), (64, 256), (64, 256)):
        x = fire(net, x, squeeze, expand)
    maps.append(x)
    x = fire(net, net.pool(x, 3, 2, ceil=True), 96, 384)
    maps.append(x)
    x = fire(net, net.pool(x, 3, 2), 96, 384)
    maps.append(x)
    for mid, out in ((128, 256), (64, 128)):
        x = net.conv(net.conv(x, mid), out, 3, 2)
        maps.append(x)
    _ssd_head(net, maps, [4, 6, 6, 6, 6, 6], 3)
    return net


def mobilenet_yolo() -> Net:
    """MobileNet V1 + YOLO, 416×416 (the Caffe model of eric612)."""
    net = Net(416)
    _, eleventh, last = mobilenet_v1_body(net)
    x = net.conv(net.conv(last, 1024, 3, groups=1024), 1024)
    up = net.conv(net.upsample(T(512, x.h, x.w)), 512, 3, groups=512, act=None)
    y = net.add(eleventh, up)
    y = net.conv(net.conv(y, 512, 3, groups=512), 1024)
    for source in (x, y):
        net.conv(source, 125, bn=False, bias=True, act=None)
    return net


def mobilenetv2_yolov3() -> Net:
    """MobileNet V2 + YOLOv3, 352×352 (the Caffe model of eric612)."""
    net = Net(352)
    stages = mobilenet_v2_body(net)
    x = net.conv(stages[-1], 1280)
    x = net.conv(net.conv(x, 1280, 3, groups=1280), 576)
    up = net.pool(net.upsample(x), 2, 1, 1)
    up = T(576, 2 * x.h, 2 * x.w)
    y = T(576, 2 * x.h, 2 * x.w)  # the widened output of the last block before the final change of resolution
    y = net.conv(net.conv(y, 576, 3, groups=576), 576)
    y = net.add(up, y)
    y = net.conv(net.conv(y, 576, 3, groups=576), 576)
    for source in (x, y):
        net.conv(source, 75, bn=False, bias=True, act=None)
    return net


def yolov4_tiny() -> Net:
    """YOLOv4-tiny, 416×416, 80 classes (arXiv:2011.08036; its authors' configuration file)."""
    net = Net(416)
    x = net.conv(net.conv(net.input, 32, 3, 2, act="leaky"), 64, 3, 2, act="leaky")
    route = x
    for out in (64, 128, 256):
        x = net.conv(x, out, 3, act="leaky")
        half = net.layout(T(out // 2, x.h, x.w))
        a = net.conv(half, out // 2, 3, act="leaky")
        b = net.conv(a, out // 2, 3, act="leaky")
        route = net.conv(net.concat(b, a), out, act="leaky")
        x = net.pool(net.concat(x, route), 2, 2)
    x = net.conv(net.conv(x, 512, 3, act="leaky"), 256, act="leaky")
    net.conv(net.conv(x, 512, 3, act="leaky"), 255, bn=False, bias=True, act=None)
    up = net.upsample(net.conv(x, 128, act="leaky"))
    y = net.conv(net.concat(up, route), 256, 3, act="leaky")
    net.conv(y, 255, bn=False, bias=True, act=None)
    return net


def nanodet_m() -> Net:
    """NanoDet-m, 320×320: ShuffleNet V2 1×, PAN without convolutions, shared-shape heads (its authors' release)."""
    net = Net(320)
    c3, c4, c5 = shufflenet_v2_body(net, ((116, 4), (232, 8), (464, 4)))
    p3, p4, p5 = (net.conv(x, 96, bn=False, bias=True, act=None) for x in (c3, c4, c5))
    p4 = net.add(p4, net.upsample(p5))
    p3 = net.add(p3, net.upsample(p4))
    p4 = net.add(p4, net.layout(p3, p4))
    p5 = net.add(p5, net.layout(p4, p5))
    for x in (p3, p4, p5):
        y = x
        for _ in range(2):
            y = net.conv(net.conv(y, 96, 3, groups=96, act="leaky"), 96, act="leaky")
        y = net.conv(y, 112, bn=False, bias=True, act=None)
        net.layout(y)
        net.act(T(80, y.h, y.w))
        net.layout(T(80, y.h, y.w))
        net.layout(T(32, y.h, y.w))
    return net


def yolo_fastest_v11() -> Net:
    """Yolo-Fastest 1.1, 320×320 (its author's configuration file)."""
    net = Net(320)
    x = net.conv(net.input, 8, 3, 2, act="leaky")
    x = net.conv(x, 8, act="leaky")
    x = net.conv(net.conv(x, 8, 3, groups=8, act="leaky"), 4, act=None)
    stages = [  # (expanded, outputs, stride) of each block
        [(8, 4, 1)], [(24, 8, 2), (32, 8, 1), (32, 8, 1)], [(32, 8, 2), (48, 8, 1), (48, 8, 1)],
        [(48, 16, 1), *[(96, 16, 1)] * 4], [(96, 24, 2), *[(136, 24, 1)] * 4], [(136, 48, 2), *[(224, 48, 1)] * 5],
    ]  # fmt: skip
    found = []
    for blocks in stages:
        for expanded, out, stride in blocks:
            x = inverted(net, x, expanded, out, 3, stride, act="leaky")
        found.append(x)
    x = net.concat(x, *(net.pool(x, k, 1, k // 2) for k in (3, 5, 9)))
    x = net.conv(x, 96, act="leaky")

    def head(source: T) -> None:
        y = source
        for _ in range(2):
            y = net.conv(net.conv(y, y.c, 5, groups=y.c, act="leaky"), y.c, act=None)
        net.conv(y, 255, bn=False, bias=True, act=None)

    head(x)
    head(net.concat(net.upsample(x), found[4]))
    return net


def yolo_fastest_v2() -> Net:
    """Yolo-FastestV2, 352×352: a narrow ShuffleNet V2 and light heads (its author's release)."""
    net = Net(352)
    _, c4, c5 = shufflenet_v2_body(net, ((48, 4), (96, 8), (192, 4)))
    small = net.conv(c5, 72)
    large = net.conv(net.concat(net.upsample(c5), c4), 72)
    for source in (small, large):
        ends = []
        for _ in range(2):
            y = source
            for _ in range(2):
                y = net.conv(net.conv(y, 72, 5, groups=72), 72, act=None)
            ends.append(y)
        for out, y in ((12, ends[0]), (3, ends[1]), (80, ends[1])):
            net.conv(y, out, bn=False, bias=True, act=None)
        scores = T(80, source.h, source.w)
        net.layout(net.softmax(net.layout(scores)))
        net.layout(T(95, source.h, source.w))
        net.layout(T(95, source.h, source.w))
    return net


def fastestdet() -> Net:
    """FastestDet, 352×352: the same narrow ShuffleNet V2, one head (its author's release)."""
    net = Net(352)
    c3, c4, c5 = shufflenet_v2_body(net, ((48, 4), (96, 8), (192, 4)))
    x = net.concat(net.pool(c3, 3, 2, 1), c4, net.upsample(c5))
    x = net.conv(x, 96)
    a = net.conv(x, 96, 5, groups=96)
    b = net.conv(net.conv(x, 96, 5, groups=96), 96, 5, groups=96)
    c = net.conv(net.conv(net.conv(x, 96, 5, groups=96), 96, 5, groups=96), 96, 5, groups=96)
    y = net.conv(net.concat(a, b, c), 96, act=None)
    x = net.conv(net.act(net.add(x, y)), 96)
    for out in (80, 4, 1):
        net.conv(net.conv(x, 96, 5, groups=96), out, act=None)
    net.softmax(T(80, x.h, x.w))
    net.layout(T(85, x.h, x.w))
    return net


def blazeface() -> Net:
    """BlazeFace's feature extractor, front camera, 128×128 (arXiv:1907.05047 table 4)."""
    net = Net(128)
    x = net.conv(net.layout(net.input, T(3, 131, 131)), 24, 5, 2, pad=0, bn=False, bias=True)
    x = net.act(x)
    for out, stride in [
        (24, 1), (28, 1), (32, 2), (36, 1), (42, 1), (48, 2), (56, 1), (64, 1), (72, 1), (80, 1), (88, 1), (96, 2),
        (96, 1), (96, 1), (96, 1), (96, 1),
    ]:  # fmt: skip
        short = x if stride == 1 else net.pool(x, 2, 2)
        if stride == 2:
            net.layout(x)
        y = net.conv(x, x.c, 3, stride, groups=x.c, act=None, bn=False, bias=True)
        y = net.conv(y, out, act=None, bn=False, bias=True)
        if short.c != out:
            net.layout(short, y)
        x = net.act(net.add(y, y))
    return net
