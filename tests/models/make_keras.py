"""Writes the Keras models of test_keras.py into a folder; run in the environment that has TensorFlow.

python make_keras.py FOLDER
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["TF_USE_LEGACY_KERAS"] = "1"

import keras
import numpy as np
import tensorflow as tf
import tf_keras

keras.utils.set_random_seed(0)
folder = Path(sys.argv[1])
layers = keras.layers


def digits() -> keras.Model:
    """8×8 digits: convolution, batch norm, residual add, a nested model, dropout."""
    image = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(8, 3, padding="same", use_bias=False)(image)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    y = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    x = layers.Add()([x, y])
    head = keras.Sequential(
        [layers.Flatten(), layers.Dense(32, activation="relu"), layers.Dropout(0.2)], name="head"
    )
    return keras.Model(image, layers.Dense(10, name="scores")(head(x)))


def trained(model: keras.Model) -> keras.Model:
    """``model`` after a few epochs on scikit-learn's digits, which the caller left in FOLDER/train.npz."""
    data = np.load(folder / "train.npz")
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(data["image"], data["labels"], epochs=8, batch_size=32, verbose=0)
    return model


def two_in_two_out() -> keras.Model:
    """Named inputs in a dict, two outputs."""
    a, b = keras.Input((4,), name="left"), keras.Input((3,), name="right")
    x = layers.Concatenate()([a, b])
    return keras.Model({"left": a, "right": b}, [layers.Dense(2, name="p")(x), layers.Dense(5, name="q")(x)])


def recurrent() -> keras.Model:
    """Token numbers through an embedding and an LSTM."""
    tokens = keras.Input((6,), dtype="int32", name="tokens")
    x = layers.LSTM(8)(layers.Embedding(20, 8)(tokens))
    return keras.Model(tokens, layers.Dense(2, activation="softmax", name="sentiment")(x))


class Scale(layers.Layer):
    """A custom layer."""

    def call(self, x):
        return x * 2.0


model = trained(digits())
model.save(folder / "digits.keras")
model.save(folder / "digits.h5")
model.export(str(folder / "digits_graph"), verbose=False)
two_in_two_out().save(folder / "two.keras")
recurrent().save(folder / "recurrent.keras")
keras.Sequential([keras.Input((3,)), Scale(), layers.Dense(2)]).save(folder / "custom.keras")
keras.Sequential([keras.Input((3,)), layers.Lambda(lambda x: x * 2)]).save(folder / "lambda.keras")
keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(2, 3), layers.GlobalAveragePooling2D()]).save(
    folder / "anysize.keras"
)
model.save_weights(folder / "only.weights.h5")
old = tf_keras.Sequential(
    [
        tf_keras.layers.Input((5,), name="features"),
        tf_keras.layers.Dense(4, activation="relu"),
        tf_keras.layers.Dense(1),
    ]
)
old.save(folder / "old.keras")
old.save(folder / "old.h5")
old.save(folder / "old_folder", save_format="tf")
broken = tf_keras.models.clone_model(old)
broken.set_weights([np.full_like(w, np.nan) for w in old.get_weights()])
broken.save(folder / "nan.keras")


class Words(tf.Module):
    """Takes text, which no model file does."""

    @tf.function(input_signature=[tf.TensorSpec([1], tf.string, name="text")])
    def serve(self, text):
        return {"length": tf.strings.length(text)}


class Odd(tf.Module):
    """An operator that only TensorFlow's own kernels have."""

    @tf.function(input_signature=[tf.TensorSpec([1, 4, 4], tf.float32, name="matrix")])
    def serve(self, matrix):
        return {"determinant": tf.linalg.det(matrix)}


for name, module in (("words", Words()), ("odd", Odd())):
    tf.saved_model.save(module, str(folder / name), signatures=module.serve)
