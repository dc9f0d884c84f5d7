#!/usr/bin/env python3
"""Writes conv.onnx, dense.onnx and padded.onnx, and prints the logits that the reference
implementation in the `onnx` package computes for pixels 53 i mod 256.

    python3 -m venv env && env/bin/pip install onnx && env/bin/python make.py

The weights are pseudorandom numbers of this script and part of no data set.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator


def write(name, dims, nodes, weights):
    tensors = [numpy_helper.from_array(w.astype(np.float32), k) for k, w in weights.items()]
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", *dims])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, f"{name}.onnx")
    count = int(np.prod(dims))
    image = (np.arange(count) * 53 % 256 / 255).astype(np.float32).reshape(1, *dims)
    print(name, ReferenceEvaluator(model).run(None, {"image": image})[0][0].tolist())


random = np.random.default_rng(1)
uniform = lambda *shape: random.uniform(-1, 1, shape)

# As PyTorch exports Conv2d, x * x, flatten, Linear.
write(
    "conv",
    [1, 8, 8],
    [
        helper.make_node(
            "Conv",
            ["image", "conv.weight", "conv.bias"],
            ["/conv/Conv_output_0"],
            name="/conv/Conv",
            dilations=[1, 1],
            group=1,
            kernel_shape=[3, 3],
            pads=[0, 0, 0, 0],
            strides=[2, 2],
        ),
        helper.make_node("Mul", ["/conv/Conv_output_0"] * 2, ["/Mul_output_0"], name="/Mul"),
        helper.make_node("Flatten", ["/Mul_output_0"], ["/Flatten_output_0"], name="/Flatten", axis=1),
        helper.make_node(
            "Gemm",
            ["/Flatten_output_0", "fc.weight", "fc.bias"],
            ["logits"],
            name="/fc/Gemm",
            alpha=1.0,
            beta=1.0,
            transB=1,
        ),
    ],
    {
        "conv.weight": uniform(2, 1, 3, 3),
        "conv.bias": uniform(2),
        "fc.weight": uniform(3, 18),
        "fc.bias": uniform(3),
    },
)

# As tf2onnx and others write a dense layer, with an activation of degree 3
# built of Pow, Mul and Add.
write(
    "dense",
    [6],
    [
        helper.make_node("MatMul", ["image", "w1"], ["m1"]),
        helper.make_node("Add", ["m1", "b1"], ["h"]),
        helper.make_node("Pow", ["h", "three"], ["cube"]),
        helper.make_node("Mul", ["cube", "small"], ["c"]),
        helper.make_node("Add", ["h", "c"], ["a"]),
        helper.make_node("MatMul", ["a", "w2"], ["m2"]),
        helper.make_node("Add", ["m2", "b2"], ["logits"]),
    ],
    {
        "w1": uniform(6, 5),
        "b1": uniform(5),
        "three": np.array(3.0),
        "small": np.array(-0.04),
        "w2": uniform(5, 3),
        "b2": uniform(3),
    },
)

# As tf2onnx and PyTorch write padded convolutions: by name, and side by side.
write(
    "padded",
    [1, 7, 6],
    [
        helper.make_node(
            "Conv",
            ["image", "k1", "b1"],
            ["c1"],
            auto_pad="SAME_UPPER",
            kernel_shape=[4, 3],
            strides=[2, 2],
        ),
        helper.make_node("Mul", ["c1", "c1"], ["s1"]),
        helper.make_node(
            "Conv",
            ["s1", "k2", "b2"],
            ["c2"],
            auto_pad="SAME_LOWER",
            kernel_shape=[2, 2],
            strides=[1, 1],
        ),
        helper.make_node(
            "Conv",
            ["c2", "k3", "b3"],
            ["c3"],
            kernel_shape=[3, 2],
            pads=[2, 0, 1, 1],
            strides=[2, 2],
        ),
        helper.make_node("Mul", ["c3", "c3"], ["s3"]),
        helper.make_node("Flatten", ["s3"], ["f"], axis=1),
        helper.make_node("Gemm", ["f", "w", "b"], ["logits"], transB=1),
    ],
    {
        "k1": uniform(2, 1, 4, 3),
        "b1": uniform(2),
        "k2": uniform(3, 2, 2, 2),
        "b2": uniform(3),
        "k3": uniform(2, 3, 3, 2),
        "b3": uniform(2),
        "w": uniform(3, 12),
        "b": uniform(3),
    },
)
