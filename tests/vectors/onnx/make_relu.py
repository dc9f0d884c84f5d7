#!/usr/bin/env python3
"""Writes mnist-relu32.onnx: 784 - 32 - ReLU - 10, scikit-learn's MLPClassifier fitted on
MNIST's training images (pixels from 0 to 1), as skl2onnx exports it.

    env/bin/python make_relu.py DIRECTORY_OF_MNIST
"""

import gzip
import pathlib
import sys

import numpy as np
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.neural_network import MLPClassifier

data = pathlib.Path(sys.argv[1])


def read(name, header):
    return np.frombuffer(gzip.open(data / f"{name}.gz").read(), np.uint8)[header:]


def split(name):
    images = read(f"{name}-images-idx3-ubyte", 16).reshape(-1, 784)
    return (images / 255).astype(np.float32), read(f"{name}-labels-idx1-ubyte", 8)


train, labels = split("train")
network = MLPClassifier((32,), batch_size=128, learning_rate_init=2e-3, max_iter=14, random_state=1)
network.fit(train, labels)
images, labels = split("t10k")
print(network.score(images, labels))
made = convert_sklearn(network, initial_types=[("x", FloatTensorType([None, 784]))], target_opset=17)
(pathlib.Path(__file__).parent / "mnist-relu32.onnx").write_bytes(made.SerializeToString())
