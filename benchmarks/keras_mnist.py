"""Trains the MNIST model of keras_table.py with Keras 3; run in the environment that has TensorFlow.

python keras_mnist.py DATA.npz MODEL.keras
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np


def network() -> keras.Model:
    """A small convolutional net, (28, 28, 1) in 0 to 1 → ten scores; batch normalisation as trained nets have it."""
    layers = keras.layers
    image = keras.Input((28, 28, 1), name="image")
    x = image
    for filters, strides in ((16, 2), (32, 2), (64, 1)):
        x = layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization()(x)
        x = layers.ReLU()(x)
    x = layers.Flatten()(x)
    x = layers.Dense(64, activation="relu")(x)
    x = layers.Dropout(0.3)(x)
    return keras.Model(image, layers.Dense(10, name="scores")(x))


def main() -> None:
    """Train for three epochs and save."""
    keras.utils.set_random_seed(0)
    data = np.load(sys.argv[1])
    model = network()
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    model.fit(data["image"], data["labels"], batch_size=128, epochs=3, verbose=2)
    model.save(sys.argv[2])


main()
