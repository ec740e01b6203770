"""Keras and TensorFlow models, handled in a process of their own.

TensorFlow stands in its own environment (or in this one, when ``edgeopt[keras]`` is installed) and runs in one
worker process an export. On this side: ``spec`` (is this a Keras model?), ``environment``, ``client`` (the
worker), ``source`` (the worker's model as a source model), ``recipe``. On the worker's side, where nothing but
TensorFlow, numpy and ``edgeopt.errors`` is known: ``worker``, ``loading``, ``rebuild``, ``training``,
``techniques``, ``writing``. This folder never imports TensorFlow into the user's process.
"""
