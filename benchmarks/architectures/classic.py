"""Larger classifiers, each from its paper (named at the function)."""

from __future__ import annotations

from .builder import Net, T


def alexnet() -> Net:
    """Krizhevsky 2012, the Caffe reference with two groups, 227×227."""
    net = Net(227)
    x = net.conv(net.input, 96, 11, 4, pad=0, bn=False, bias=True)
    x = net.pool(net.response_norm(x), 3, 2)
    x = net.conv(x, 256, 5, pad=2, groups=2, bn=False, bias=True)
    x = net.pool(net.response_norm(x), 3, 2)
    x = net.conv(x, 384, 3, bn=False, bias=True)
    x = net.conv(x, 384, 3, groups=2, bn=False, bias=True)
    x = net.conv(x, 256, 3, groups=2, bn=False, bias=True)
    x = net.pool(x, 3, 2)
    for out in (4096, 4096, 1000):
        x = net.linear(x, out)
    net.softmax(x)
    return net


def vgg(blocks: tuple[int, ...] = (2, 2, 3, 3, 3), image: int = 224) -> Net:
    """arXiv:1409.1556 table 1: VGG16 (D); (2, 2, 4, 4, 4) is VGG19 (E)."""
    net = Net(image)
    x = net.input
    for out, repeat in zip((64, 128, 256, 512, 512), blocks, strict=True):
        for _ in range(repeat):
            x = net.conv(x, out, 3, bn=False, bias=True)
        x = net.pool(x, 2, 2)
    for out in (4096, 4096, 1000):
        x = net.linear(x, out)
    net.softmax(x)
    return net


def _inception(net: Net, x: T, one: int, three: tuple[int, int], five: tuple[int, int], pooled: int) -> T:
    def conv(source: T, out: int, k: int = 1) -> T:
        return net.conv(source, out, k, bn=False, bias=True)

    return net.concat(
        conv(x, one),
        conv(conv(x, three[0]), three[1], 3),
        conv(conv(x, five[0]), five[1], 5),
        conv(net.pool(x, 3, 1, 1), pooled),
    )


def googlenet(image: int = 224) -> Net:
    """arXiv:1409.4842 table 1, without the two training heads."""
    net = Net(image)
    x = net.conv(net.input, 64, 7, 2, bn=False, bias=True)
    x = net.response_norm(net.pool(x, 3, 2, ceil=True))
    x = net.conv(x, 64, bn=False, bias=True)
    x = net.conv(x, 192, 3, bn=False, bias=True)
    x = net.pool(net.response_norm(x), 3, 2, ceil=True)
    x = _inception(net, x, 64, (96, 128), (16, 32), 32)
    x = _inception(net, x, 128, (128, 192), (32, 96), 64)
    x = net.pool(x, 3, 2, ceil=True)
    x = _inception(net, x, 192, (96, 208), (16, 48), 64)
    x = _inception(net, x, 160, (112, 224), (24, 64), 64)
    x = _inception(net, x, 128, (128, 256), (24, 64), 64)
    x = _inception(net, x, 112, (144, 288), (32, 64), 64)
    x = _inception(net, x, 256, (160, 320), (32, 128), 128)
    x = net.pool(x, 3, 2, ceil=True)
    x = _inception(net, x, 256, (160, 320), (32, 128), 128)
    x = _inception(net, x, 384, (192, 384), (48, 128), 128)
    net.classify(x)
    return net


def fire(net: Net, x: T, squeeze: int, expand: int) -> T:
    """SqueezeNet's module."""
    s = net.conv(x, squeeze, bn=False, bias=True)
    return net.concat(net.conv(s, expand, bn=False, bias=True), net.conv(s, expand, 3, bn=False, bias=True))


def squeezenet_v11(image: int = 227) -> Net:
    """SqueezeNet 1.1 (arXiv:1602.07360 and its authors' 1.1 release)."""
    net = Net(image)
    x = net.pool(net.conv(net.input, 64, 3, 2, pad=0, bn=False, bias=True), 3, 2, ceil=True)
    for squeeze, expand in ((16, 64), (16, 64)):
        x = fire(net, x, squeeze, expand)
    x = net.pool(x, 3, 2, ceil=True)
    for squeeze, expand in ((32, 128), (32, 128)):
        x = fire(net, x, squeeze, expand)
    x = net.pool(x, 3, 2, ceil=True)
    for squeeze, expand in ((48, 192), (48, 192), (64, 256), (64, 256)):
        x = fire(net, x, squeeze, expand)
    x = net.conv(x, 1000, bn=False, bias=True)
    net.softmax(net.mean(x))
    return net


def squeezenet_v10(image: int = 227) -> Net:
    """SqueezeNet 1.0, arXiv:1602.07360 table 1."""
    net = Net(image)
    x = net.pool(net.conv(net.input, 96, 7, 2, pad=0, bn=False, bias=True), 3, 2, ceil=True)
    for squeeze, expand in ((16, 64), (16, 64), (32, 128)):
        x = fire(net, x, squeeze, expand)
    x = net.pool(x, 3, 2, ceil=True)
    for squeeze, expand in ((32, 128), (48, 192), (48, 192), (64, 256)):
        x = fire(net, x, squeeze, expand)
    x = net.pool(x, 3, 2, ceil=True)
    x = fire(net, x, 64, 256)
    net.softmax(net.mean(net.conv(x, 1000, bn=False, bias=True)))
    return net


def resnet18(image: int = 224) -> Net:
    """arXiv:1512.03385 table 1, basic blocks."""
    net = Net(image)
    x = net.pool(net.conv(net.input, 64, 7, 2), 3, 2, 1)
    for stage, out in enumerate((64, 128, 256, 512)):
        for index in range(2):
            stride = 2 if stage and index == 0 else 1
            y = net.conv(net.conv(x, out, 3, stride), out, 3, act=None)
            short = net.conv(x, out, 1, stride, act=None) if stride == 2 else x
            x = net.act(net.add(y, short))
    net.classify(x)
    return net


def resnet(depths: tuple[int, ...] = (3, 4, 6, 3), image: int = 224, *, late_stride: bool = False) -> Net:
    """arXiv:1512.03385 table 1, bottlenecks: (3, 4, 6, 3) is ResNet-50, (3, 8, 36, 3) ResNet-152.

    ``late_stride``: the 3×3 carries the stride (PyTorch's form) instead of the first 1×1 (the paper's).
    """
    net = Net(image)
    x = net.pool(net.conv(net.input, 64, 7, 2), 3, 2, 1)
    for stage, (depth, mid) in enumerate(zip(depths, (64, 128, 256, 512), strict=True)):
        for index in range(depth):
            stride = 2 if stage and index == 0 else 1
            early, late = (1, stride) if late_stride else (stride, 1)
            y = net.conv(net.conv(x, mid, 1, early), mid, 3, late)
            y = net.conv(y, 4 * mid, act=None)
            short = net.conv(x, 4 * mid, 1, stride, act=None) if index == 0 else x
            x = net.act(net.add(y, short))
    net.classify(x)
    return net


def resnet_v2(depths: tuple[int, ...] = (3, 4, 6, 3), image: int = 299) -> Net:
    """arXiv:1603.05027 as TF-Slim publishes it: normalisation before the convolutions, stride at a block's end."""
    net = Net(image)
    x = net.pool(net.conv(net.input, 64, 7, 2, bn=False, bias=True), 3, 2, 1)
    for stage, (depth, mid) in enumerate(zip(depths, (64, 128, 256, 512), strict=True)):
        for index in range(depth):
            stride = 2 if index == depth - 1 and stage < len(depths) - 1 else 1
            before = net.act(x)
            short = (
                net.conv(before, 4 * mid, 1, stride, bn=False, bias=True, act=None) if index == 0
                else x if stride == 1 else net.pool(x, 1, 2)
            )  # fmt: skip
            y = net.conv(net.conv(before, mid), mid, 3, stride)
            y = net.conv(y, 4 * mid, bn=False, bias=True, act=None)
            x = net.add(y, short)
    net.classify(net.act(x), 1001)
    return net


def inception_v3(image: int = 299, classes: int = 1001) -> Net:
    """arXiv:1512.00567 as TF-Slim and torchvision publish it, without the training head."""
    net = Net(image)
    x = net.conv(net.input, 32, 3, 2, pad=0)
    x = net.conv(x, 32, 3, pad=0)
    x = net.pool(net.conv(x, 64, 3), 3, 2)
    x = net.pool(net.conv(net.conv(x, 80), 192, 3, pad=0), 3, 2)
    for pooled in (32, 64, 64):
        x = net.concat(
            net.conv(x, 64),
            net.conv(net.conv(x, 48), 64, 5),
            net.conv(net.conv(net.conv(x, 64), 96, 3), 96, 3),
            net.conv(net.pool(x, 3, 1, 1), pooled),
        )
    x = net.concat(
        net.conv(x, 384, 3, 2, pad=0),
        net.conv(net.conv(net.conv(x, 64), 96, 3), 96, 3, 2, pad=0),
        net.pool(x, 3, 2),
    )
    for mid in (128, 160, 160, 192):
        a = net.conv(net.conv(net.conv(x, mid), mid, 1, kw=7), 192, 7, kw=1)
        b = net.conv(x, mid)
        for k, kw, out in ((7, 1, mid), (1, 7, mid), (7, 1, mid), (1, 7, 192)):
            b = net.conv(b, out, k, kw=kw)
        x = net.concat(net.conv(x, 192), a, b, net.conv(net.pool(x, 3, 1, 1), 192))
    a = net.conv(net.conv(net.conv(x, 192), 192, 1, kw=7), 192, 7, kw=1)
    x = net.concat(
        net.conv(net.conv(x, 192), 320, 3, 2, pad=0), net.conv(a, 192, 3, 2, pad=0), net.pool(x, 3, 2)
    )
    for _ in range(2):
        a = net.conv(x, 384)
        b = net.conv(net.conv(x, 448), 384, 3)
        x = net.concat(
            net.conv(x, 320),
            net.conv(a, 384, 1, kw=3), net.conv(a, 384, 3, kw=1),
            net.conv(b, 384, 1, kw=3), net.conv(b, 384, 3, kw=1),
            net.conv(net.pool(x, 3, 1, 1), 192),
        )  # fmt: skip
    net.classify(x, classes)
    return net


def vision_transformer(
    image: int = 384, patch: int = 32, dim: int = 768, depth: int = 12, heads: int = 12, *, classes: int = 0
) -> Net:
    """ViT-B/32 (arXiv:2010.11929 table 1); ``classes`` 0: without the classification head."""
    net = Net(image)
    x = net.conv(net.input, dim, patch, patch, pad=0, bn=False, bias=True, act=None)
    tokens = x.h * x.w + 1
    x = T(dim, tokens, 1)
    net.params += dim * (tokens + 1)
    net.layout(x)
    net.add(x, x)
    for _ in range(depth):
        net.norm(x)
        for _ in range(3):
            net.linear(x, dim, rows=tokens)
        net.matmul(tokens, dim // heads, tokens, batch=heads)
        net.softmax(T(tokens, tokens, heads))
        net.matmul(tokens, tokens, dim // heads, batch=heads)
        net.linear(x, dim, rows=tokens)
        net.add(x, x)
        net.norm(x)
        hidden = net.linear(x, 4 * dim, rows=tokens)
        net.act(T(4 * dim, tokens, 1))
        net.linear(T(4 * dim, tokens, 1), dim, rows=tokens)
        net.add(x, x)
        del hidden
    net.norm(x)
    if classes:
        net.linear(T(dim, 1, 1), classes)
    return net
