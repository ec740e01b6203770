"""Published architectures as lists of kernels, with the figures their papers print.

``NCNN`` are the models that ncnn benchmarks; ``OTHERS`` those of other published tables. A test holds every
figure of ``PUBLISHED`` against what the lists add up to.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

from edgeopt.cost_model import Kernel

from . import classic, detectors, mobile
from .builder import Net as Net

NCNN: dict[str, Callable[[], Net]] = {
    "squeezenet": classic.squeezenet_v11,
    "mobilenet": mobile.mobilenet_v1,
    "mobilenet_v2": mobile.mobilenet_v2,
    "mobilenet_v3": partial(mobile.mobilenet_v3_large, dense=True),
    "shufflenet": mobile.shufflenet_v1,
    "shufflenet_v2": mobile.shufflenet_v2,
    "mnasnet": mobile.mnasnet,
    "proxylessnasnet": mobile.proxylessnas_mobile,
    "efficientnet_b0": mobile.efficientnet,
    "efficientnetv2_b0": partial(mobile.efficientnet_v2, mobile.EFFICIENTNET_V2_B0, 32, 224),
    "regnety_400m": mobile.regnety_400m,
    "blazeface": detectors.blazeface,
    "googlenet": classic.googlenet,
    "resnet18": classic.resnet18,
    "alexnet": classic.alexnet,
    "vgg16": classic.vgg,
    "resnet50": classic.resnet,
    "squeezenet_ssd": detectors.squeezenet_ssd,
    "mobilenet_ssd": detectors.mobilenet_ssd,
    "mobilenet_yolo": detectors.mobilenet_yolo,
    "mobilenetv2_yolov3": detectors.mobilenetv2_yolov3,
    "yolov4-tiny": detectors.yolov4_tiny,
    "nanodet_m": detectors.nanodet_m,
    "yolo-fastest-1.1": detectors.yolo_fastest_v11,
    "yolo-fastestv2": detectors.yolo_fastest_v2,
    "vision_transformer": classic.vision_transformer,
    "FastestDet": detectors.fastestdet,
}

OTHERS: dict[str, Callable[[], Net]] = {
    **{
        f"mobilenet_v1_{scale:g}_{image}": partial(mobile.mobilenet_v1, scale, image)
        for scale in (0.25, 0.5, 0.75, 1.0)
        for image in (128, 160, 192, 224)
    },
    **{
        f"mobilenet_v2_{scale:g}_{image}": partial(mobile.mobilenet_v2, scale, image)
        for scale in (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)
        for image in (96, 128, 160, 192, 224)
    },
    **{f"mobilenet_v3_large_{scale:g}": partial(mobile.mobilenet_v3_large, scale) for scale in (0.75, 1.0)},
    "mobilenet_v3_large_minimalistic": partial(mobile.mobilenet_v3_large, minimalistic=True),
    "mobilenet_v3_small": mobile.mobilenet_v3_small,
    "efficientnet_lite0": partial(mobile.efficientnet, 1.0, 1.0, 224, lite=True),
    "efficientnet_lite1": partial(mobile.efficientnet, 1.0, 1.1, 240, lite=True),
    "efficientnet_lite2": partial(mobile.efficientnet, 1.1, 1.2, 260, lite=True),
    "efficientnet_lite3": partial(mobile.efficientnet, 1.2, 1.4, 280, lite=True),
    "efficientnet_lite4": partial(mobile.efficientnet, 1.4, 1.8, 300, lite=True),
    "efficientnet_v2_s": partial(mobile.efficientnet_v2, mobile.EFFICIENTNET_V2_S, 24, 384),
    "squeezenet_1.0": classic.squeezenet_v10,
    "squeezenet_1.1": classic.squeezenet_v11,
    "resnet50": classic.resnet,
    "resnet50_torch": partial(classic.resnet, late_stride=True),
    "resnet50_v2_299": classic.resnet_v2,
    "resnet50_v2_224": partial(classic.resnet_v2, image=224),
    "inception_v1": classic.googlenet,
    "inception_v3": classic.inception_v3,
    "vgg16": classic.vgg,
    "vgg19": partial(classic.vgg, (2, 2, 4, 4, 4)),
}

# name → (10^6 multiply-accumulates, 10^6 parameters, where that is printed). 0 = the source prints none.
PUBLISHED: dict[str, tuple[float, float, str]] = {
    "mobilenet": (569, 4.2, "arXiv:1704.04861 table 4"),
    "mobilenet_v2": (300, 3.4, "arXiv:1801.04381 table 4"),
    "mobilenet_v3_large_1": (219, 5.4, "arXiv:1905.02244 table 3"),
    "mobilenet_v3_large_0.75": (155, 4.0, "arXiv:1905.02244 table 3"),
    "mobilenet_v3_small": (
        56,
        2.5,
        "arXiv:1905.02244 table 3 (2.9 M printed there; 2.5 M in the released code)",
    ),
    "mobilenet_v3_large_minimalistic": (209, 3.9, "the authors' model page"),
    "mobilenet_v1_0.25_128": (14, 0.47, "the authors' model page"),
    "mobilenet_v1_0.5_160": (77, 1.34, "the authors' model page"),
    "mobilenet_v2_0.35_96": (11, 1.66, "the authors' model page"),
    "mobilenet_v2_1.4_224": (582, 6.06, "the authors' model page"),
    "shufflenet": (140, 0, "arXiv:1707.01083 table 2, g = 3"),
    "shufflenet_v2": (146, 2.3, "arXiv:1807.11164 table 8"),
    "mnasnet": (315, 4.4, "the model's page in torchvision (B1, 1.0)"),
    "proxylessnasnet": (320, 4.1, "arXiv:1812.00332 table 2 and the authors' page"),
    "efficientnet_b0": (390, 5.3, "arXiv:1905.11946 table 2"),
    "efficientnetv2_b0": (720, 7.1, "arXiv:2104.00298, the authors' page (0.72 B at 224)"),
    "efficientnet_v2_s": (8400, 21.5, "torchvision's model page (8.37 G at 384; the paper prints 8.8)"),
    "efficientnet_lite0": (407, 4.7, "the authors' model page"),
    "efficientnet_lite2": (899, 6.1, "the authors' model page"),
    "efficientnet_lite4": (2640, 13.0, "the authors' model page"),
    "regnety_400m": (400, 4.3, "arXiv:2003.13678 table 4"),
    "googlenet": (1500, 7.0, "arXiv:1409.4842 table 1 adds up to 1.5 G and 6.8 M"),
    "resnet18": (1820, 11.7, "torchvision's model page"),
    "resnet50": (3860, 25.6, "arXiv:1512.03385 table 1 (3.8 × 10^9)"),
    "resnet50_torch": (4090, 25.6, "torchvision's model page"),
    "alexnet": (724, 61.0, "the Caffe model's page"),
    "vgg16": (15470, 138.4, "arXiv:1409.1556 table 2; torchvision's model page"),
    "vgg19": (19630, 143.7, "torchvision's model page"),
    "inception_v3": (5710, 23.8, "torchvision's model page (without the training head)"),
    "squeezenet": (360, 1.24, "the authors' page of 1.1 (0.72 G operations at 227)"),
    "squeezenet_1.0": (860, 1.25, "the authors' page of 1.0 (1.72 G operations at 227)"),
    "yolov4-tiny": (3450, 6.06, "the authors' configuration (6.9 G operations)"),
    "yolo-fastest-1.1": (126, 0.35, "the author's page (252 M operations, 0.35 M)"),
    "yolo-fastestv2": (106, 0.25, "the author's page (212 M operations, 0.25 M)"),
    "nanodet_m": (360, 0.95, "the authors' page (0.72 G operations at 320, 0.95 M)"),
    "vision_transformer": (12800, 88.2, "arXiv:2010.11929 (ViT-B/32 has 88 M parameters)"),
}


@cache
def build(name: str) -> Net:
    """The network of a name of ``NCNN`` or ``OTHERS``."""
    return (NCNN.get(name) or OTHERS[name])()


@cache
def kernels(name: str) -> tuple[Kernel, ...]:
    """Its kernels in float32."""
    return tuple(build(name).kernels)
