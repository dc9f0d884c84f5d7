#!/usr/bin/env python3
"""Writes models/*.onnx and models/expected.json: networks as they come, what onnxruntime
computes of them, and the sentence by which those are refused that are no network here.
Writes tables/ too: scikit-learn's breast cancer and wine data as CSV.

    python3 -m venv env && env/bin/pip install onnx onnxruntime skl2onnx scikit-learn
    env/bin/python make_models.py

Weights are pseudorandom numbers of this script, or scikit-learn's fits of its two tables
(the UCI repository's Breast Cancer Wisconsin (Diagnostic) and Wine, CC BY 4.0).
"""

import json
import pathlib
import warnings

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, Normalizer, StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

warnings.filterwarnings("ignore")
HERE = pathlib.Path(__file__).parent
OUT = HERE / "models"
OUT.mkdir(exist_ok=True)
random = np.random.default_rng(16)
expected = []
SAMPLES = 12


def uniform(*shape, reach=None):
    reach = reach or (1.5 / np.sqrt(max(1, np.prod(shape[1:]))) if len(shape) > 1 else 0.5)
    return random.uniform(-reach, reach, shape)


def node(operator, inputs, output, **attributes):
    outputs = output if isinstance(output, list) else [output]
    return helper.make_node(operator, inputs, outputs, name=f"/{outputs[0]}", **attributes)


def network(name, dims, nodes, tensors, output="y", refused=None, check=True, kind="pixels"):
    """A graph from x to `output`; its samples are pixels from 0 to 255, or features."""
    initializers = [
        numpy_helper.from_array(np.asarray(v, np.int64 if np.asarray(v).dtype.kind == "i" else np.float32), k)
        for k, v in tensors.items()
    ]
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *dims])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, OUT / f"{name}.onnx")
    entry = {"name": name, "kind": kind}
    if refused:
        entry["refused"] = refused
    else:
        count = int(np.prod(dims))
        if kind == "pixels":
            samples = random.integers(0, 256, (SAMPLES, count))
            fed = (samples / 255).astype(np.float32)
        else:
            samples = random.normal(0, 1, (SAMPLES, count)).astype(np.float32).round(4)
            fed = samples
        session = onnxruntime.InferenceSession(model.SerializeToString())
        given = [session.run(None, {"x": row.reshape(1, *dims)})[0].ravel() for row in fed]
        # The order of pixels here: channels first.
        if len(dims) == 3 and dims[2] in (1, 3) and dims[0] > 4:
            samples = samples.reshape(SAMPLES, *dims).transpose(0, 3, 1, 2).reshape(SAMPLES, count)
        entry["samples"] = samples.tolist()
        entry["results"] = np.array(given, np.float64).round(7).tolist()
    expected.append(entry)


square = lambda source, to: node("Mul", [source, source], to)
flat = lambda source, to: node("Flatten", [source], to, axis=1)
gemm = lambda source, w, to, b=None: node("Gemm", [source, w] + ([b] if b else []), to, transB=1)

norm = lambda c: {"s": random.uniform(0.5, 1.5, c), "t": uniform(c), "m": uniform(c), "v": random.uniform(0.5, 2, c)}
NORM = ["s", "t", "m", "v"]

# What is linear, in every way that it is written.
network("batchnorm", [1, 8, 8], [
    node("Conv", ["x", "k", "b"], "c", pads=[1, 1, 1, 1], strides=[2, 2]),
    node("BatchNormalization", ["c", *NORM], "n"), square("n", "q"), flat("q", "f"), gemm("f", "w", "y", "e"),
], {"k": uniform(3, 1, 3, 3), "b": uniform(3), **norm(3), "w": uniform(4, 48), "e": uniform(4)})
network("batchnorm-first", [3, 6, 6], [
    node("BatchNormalization", ["x", *NORM], "n"),
    node("Conv", ["n", "k"], "c", pads=[1, 1, 1, 1]), square("c", "q"), flat("q", "f"), gemm("f", "w", "y"),
], {**norm(3), "k": uniform(2, 3, 3, 3), "w": uniform(3, 72)})
network("average-pool", [1, 10, 10], [
    node("Conv", ["x", "k"], "c"), node("AveragePool", ["c"], "p", kernel_shape=[2, 2], strides=[2, 2]),
    square("p", "q"), node("AveragePool", ["q"], "r", kernel_shape=[2, 2], strides=[2, 2]),
    flat("r", "f"), gemm("f", "w", "y"),
], {"k": uniform(2, 1, 3, 3), "w": uniform(3, 8)})
network("average-pool-padded", [1, 7, 7], [
    node("AveragePool", ["x"], "p", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    node("AveragePool", ["p"], "r", kernel_shape=[2, 2], strides=[1, 1], pads=[1, 1, 0, 0], count_include_pad=1),
    node("Conv", ["r", "k"], "c"), square("c", "q"), flat("q", "f"), gemm("f", "w", "y"),
], {"k": uniform(2, 1, 2, 2), "w": uniform(3, 18)})
network("average-pool-ceil", [1, 7, 7], [
    node("AveragePool", ["x"], "p", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
    flat("p", "f"), gemm("f", "w", "h"), square("h", "q"), gemm("q", "u", "y"),
], {"w": uniform(6, 16), "u": uniform(3, 6)})
network("global-average", [1, 9, 9], [
    node("Conv", ["x", "k", "b"], "c", strides=[2, 2]), square("c", "q"),
    node("GlobalAveragePool", ["q"], "g"), flat("g", "f"), gemm("f", "w", "y"),
], {"k": uniform(6, 1, 3, 3), "b": uniform(6), "w": uniform(4, 6)})
network("pad", [1, 6, 5], [
    node("Pad", ["x", "p"], "z"), node("Conv", ["z", "k"], "c", strides=[2, 2]),
    square("c", "q"), flat("q", "f"), gemm("f", "w", "y"),
], {"p": np.array([0, 0, 1, 2, 0, 0, 1, 1]), "k": uniform(2, 1, 3, 3), "w": uniform(3, 18)})
network("pad-with-a-value", [1, 5, 5], [
    node("Pad", ["x", "p", "half"], "z"), node("Conv", ["z", "k"], "c"),
    square("c", "q"), flat("q", "f"), gemm("f", "w", "y"),
], {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "half": 0.5, "k": uniform(2, 1, 3, 3), "w": uniform(3, 50)})
network("same-upper", [1, 9, 8], [
    node("Conv", ["x", "k"], "c", auto_pad="SAME_UPPER", strides=[2, 2]), square("c", "q"), flat("q", "f"), gemm("f", "w", "y"),
], {"k": uniform(2, 1, 4, 3), "w": uniform(3, 40)})
network("dilated", [1, 9, 9], [
    node("Conv", ["x", "k"], "c", dilations=[2, 2], pads=[2, 2, 2, 2], strides=[2, 2]),
    square("c", "q"), flat("q", "f"), gemm("f", "w", "y"),
], {"k": uniform(2, 1, 3, 3), "w": uniform(3, 50)})
network("grouped", [4, 6, 6], [
    node("Conv", ["x", "d"], "e", group=4, pads=[1, 1, 1, 1]), node("Conv", ["e", "k"], "c"),
    square("c", "q"), flat("q", "f"), gemm("f", "w", "y"),
], {"d": uniform(4, 1, 3, 3), "k": uniform(2, 4, 1, 1), "w": uniform(3, 72)})
network("uneven-strides", [1, 8, 9], [
    node("Conv", ["x", "k"], "c", strides=[2, 3]), square("c", "q"), flat("q", "f"), gemm("f", "w", "y"),
], {"k": uniform(2, 1, 2, 3), "w": uniform(3, 24)})
network("normalised-features", [6], [
    node("Sub", ["x", "m"], "c"), node("Div", ["c", "d"], "n"), gemm("n", "w", "h", "b"), square("h", "q"), gemm("q", "u", "y"),
], {"m": uniform(6), "d": random.uniform(0.5, 2, 6), "w": uniform(5, 6), "b": uniform(5), "u": uniform(3, 5)}, kind="features")
network("per-value", [2, 4, 4], [
    node("Mul", ["x", "a"], "n"), node("Add", ["n", "c"], "o"), flat("o", "f"), gemm("f", "w", "h"), square("h", "q"), gemm("q", "u", "y"),
], {"a": uniform(2, 4, 4, reach=1), "c": uniform(1, 2, 1, 4, reach=1), "w": uniform(5, 32), "u": uniform(3, 5)})
network("shortcut", [2, 6, 6], [
    node("Conv", ["x", "k1"], "a", pads=[1, 1, 1, 1]), node("Add", ["a", "x"], "s1"), square("s1", "q"),
    node("Conv", ["q", "k2"], "b", pads=[1, 1, 1, 1]), node("Conv", ["b", "k3"], "c", pads=[1, 1, 1, 1]),
    node("Add", ["q", "c"], "s2"), square("s2", "r"), flat("r", "f"), gemm("f", "w", "y"),
], {"k1": uniform(2, 2, 3, 3), "k2": uniform(2, 2, 3, 3), "k3": uniform(2, 2, 3, 3), "w": uniform(3, 72)})
network("inception", [1, 7, 7], [
    node("Conv", ["x", "k1"], "a"), node("Conv", ["x", "k3"], "b", pads=[1, 1, 1, 1]), node("Conv", ["x", "k5"], "c", pads=[2, 2, 2, 2]),
    node("Concat", ["a", "b", "c"], "j", axis=1), square("j", "q"), flat("q", "f"), gemm("f", "w", "y"),
], {"k1": uniform(1, 1, 1, 1), "k3": uniform(2, 1, 3, 3), "k5": uniform(1, 1, 5, 5), "w": uniform(3, 196)})
network("channels-last", [8, 7, 3], [
    node("Transpose", ["x"], "t", perm=[0, 3, 1, 2]), node("Conv", ["t", "k", "b"], "c", strides=[2, 2]), square("c", "q"),
    node("Transpose", ["q"], "u", perm=[0, 2, 3, 1]), flat("u", "f"), gemm("f", "w", "y"),
], {"k": uniform(2, 3, 3, 3), "b": uniform(2), "w": uniform(3, 18)})
network("shape-of-the-batch", [1, 6, 6], [
    node("Conv", ["x", "k"], "c", strides=[2, 2]), square("c", "q"),
    node("Shape", ["q"], "sh"), node("Gather", ["sh", "zero"], "n", axis=0), node("Unsqueeze", ["n", "axes"], "n1"),
    node("Concat", ["n1", "rest"], "to", axis=0), node("Reshape", ["q", "to"], "f"), gemm("f", "w", "y"),
], {"k": uniform(3, 1, 2, 2), "zero": np.array(0), "axes": np.array([0]), "rest": np.array([-1]), "w": uniform(3, 27)})
network("no-ops", [12], [
    node("Identity", ["x"], "i"), node("Dropout", ["i"], "d"), node("Cast", ["d"], "k", to=1), gemm("k", "w", "h"),
    node("Unsqueeze", ["h", "axes"], "g"), square("g", "q"), node("Squeeze", ["q", "axes"], "s"), gemm("s", "u", "y"),
], {"w": uniform(5, 12), "axes": np.array([2]), "u": uniform(3, 5)})
network("computed-constants", [5], [
    node("Sqrt", ["v"], "r"), node("Add", ["r", "eps"], "re"), node("Reciprocal", ["re"], "inv"), node("Transpose", ["wt"], "w0", perm=[1, 0]),
    node("Mul", ["x", "inv"], "n"), node("MatMul", ["n", "w0"], "h"), square("h", "q"), gemm("q", "u", "y"),
], {"v": random.uniform(0.5, 2, 5), "eps": 1e-3, "wt": uniform(4, 5), "u": uniform(3, 4)}, kind="features")
network("matrix-per-row", [4, 6], [
    node("MatMul", ["x", "a"], "h"), square("h", "q"), node("ReduceMean", ["q"], "r", axes=[1], keepdims=0), gemm("r", "u", "y"),
], {"a": uniform(6, 3), "u": uniform(3, 3)})
network("slices", [10], [
    node("Slice", ["x", "zero", "five", "one"], "a"), node("Slice", ["x", "five", "ten", "one"], "b"), node("Add", ["a", "b"], "s"),
    node("Gather", ["s", "some"], "g", axis=1), gemm("g", "w", "h"), square("h", "q"), gemm("q", "u", "y"),
], {"zero": np.array([0]), "five": np.array([5]), "ten": np.array([10]), "one": np.array([1]), "some": np.array([4, 0, 2]), "w": uniform(4, 3), "u": uniform(3, 4)}, kind="features")
network("merged-matrices", [20], [
    gemm("x", "p", "a"), gemm("a", "w", "y", "b"),
], {"p": uniform(12, 20), "w": uniform(3, 12), "b": uniform(3)}, kind="features")

# Activations and ends.
network("cubic", [8], [
    gemm("x", "w", "h", "b"), node("Pow", ["h", "three"], "c"), node("Mul", ["c", "tenth"], "t"), node("Sub", ["h", "t"], "a"), gemm("a", "u", "y"),
], {"w": uniform(6, 8), "b": uniform(6), "three": 3.0, "tenth": 0.1, "u": uniform(3, 6)}, kind="features")
network("scaled-behind-square", [1, 6, 6], [
    node("Conv", ["x", "k"], "c"), square("c", "q"), node("BatchNormalization", ["q", *NORM], "n"),
    node("Conv", ["n", "k2"], "d", strides=[2, 2]), square("d", "r"), flat("r", "f"), gemm("f", "w", "y"),
], {"k": uniform(2, 1, 3, 3), **norm(2), "k2": uniform(3, 2, 2, 2), "w": uniform(3, 12)})
network("activation-at-both-ends", [6], [
    square("x", "a"), gemm("a", "w", "h"), square("h", "y"),
], {"w": uniform(3, 6)}, kind="features")
network("softmax", [8], [
    gemm("x", "w", "h"), square("h", "q"), gemm("q", "u", "l"), node("Softmax", ["l"], "y", axis=1),
], {"w": uniform(6, 8), "u": uniform(4, 6)}, kind="features")
network("sigmoid-of-one", [8], [
    gemm("x", "w", "h"), square("h", "q"), gemm("q", "u", "l", "b"), node("Sigmoid", ["l"], "y"),
], {"w": uniform(6, 8), "u": uniform(1, 6), "b": uniform(1)}, kind="features")

# What is refused.
two = {"w": uniform(6, 8), "u": uniform(3, 6)}
network("relu", [8], [gemm("x", "w", "h"), node("Relu", ["h"], "a"), gemm("a", "u", "y")], two, kind="features",
        refused='the operator Relu of node "/a" cannot be imported: CKKS evaluates polynomials alone; import with --fit-activations')
network("max-pool", [1, 6, 6], [node("MaxPool", ["x"], "p", kernel_shape=[2, 2], strides=[2, 2]), flat("p", "f"), gemm("f", "w", "y")],
        {"w": uniform(3, 9)}, refused='MaxPool of node "/p" cannot be imported: the largest of several values is no polynomial; train with AveragePool')
network("layer-norm", [8], [gemm("x", "w", "h"), node("LayerNormalization", ["h", "g"], "n"), gemm("n", "u", "y")],
        {**two, "g": uniform(6)}, kind="features", refused="train with BatchNormalization")
network("recurrent", [4, 8], [node("RNN", ["x", "w", "r"], ["h", "last"], hidden_size=3), gemm("last", "u", "y")],
        {"w": uniform(1, 3, 8), "r": uniform(1, 3, 3), "u": uniform(3, 3)}, refused="use dense layers over a window of fixed length")
network("shortcut-across", [1, 6, 6], [
    node("Conv", ["x", "k"], "c", pads=[1, 1, 1, 1]), square("c", "q"), node("Conv", ["q", "k"], "d", pads=[1, 1, 1, 1]),
    node("Add", ["d", "x"], "s"), flat("s", "f"), gemm("f", "w", "y"),
], {"k": uniform(1, 1, 3, 3), "w": uniform(3, 36)}, refused="join them in front of the activation")
network("gate", [8], [gemm("x", "w", "h"), gemm("x", "v", "g"), node("Mul", ["h", "g"], "a"), gemm("a", "u", "y")],
        {**two, "v": uniform(6, 8)}, kind="features", refused="it multiplies results of two different layers")
network("three-dimensional", [1, 4, 4, 4], [node("Conv", ["x", "k"], "c"), flat("c", "f"), gemm("f", "w", "y")],
        {"k": uniform(1, 1, 2, 2, 2), "w": uniform(3, 27)}, refused="which is no image or row of features of known size")
network("root", [8], [gemm("x", "w", "h"), node("Pow", ["h", "half"], "a"), gemm("a", "u", "y")],
        {**two, "half": 0.5}, kind="features", refused="its exponent is no whole number from 1 to 15; use one")
network("rounding", [8], [gemm("x", "w", "h"), node("Cast", ["h"], "a", to=7), node("Cast", ["a"], "a2", to=1), gemm("a2", "u", "y")],
        two, kind="features", refused="it rounds the data to the type 7")

# scikit-learn.
TABLES = HERE / "tables"
for table, load in (("breast-cancer", load_breast_cancer), ("wine", load_wine)):
    data = load()
    names = [name.replace(" ", "_") for name in data.feature_names]
    parts = train_test_split(data.data.astype(np.float32), data.target, test_size=0.3, random_state=1, stratify=data.target)
    train_x, test_x, train_y, test_y = parts
    (TABLES / table).mkdir(parents=True, exist_ok=True)
    for part, rows, labels in (("train", train_x, train_y), ("test", test_x, test_y)):
        with open(TABLES / table / f"{part}.csv", "w") as file:
            file.write(",".join([*names, "class"]) + "\n")
            for row, label in zip(rows, labels):
                file.write(",".join([*(f"{x:.6g}" for x in row), str(data.target_names[label])]) + "\n")
    labels = lambda y: np.array([data.target_names[i] for i in y])

    def classical(name, model, refused=None, targets=train_y, **options):
        model.fit(train_x, targets)
        made = convert_sklearn(model, initial_types=[("x", FloatTensorType([None, train_x.shape[1]]))], target_opset=17, **options)
        onnx.save(made, OUT / f"{name}.onnx")
        entry = {"name": name, "kind": "features", "table": table}
        if refused:
            entry["refused"] = refused
        else:
            rounded = np.array([[float(f"{x:.6g}") for x in row] for row in test_x], np.float32)
            session = onnxruntime.InferenceSession(made.SerializeToString())
            given = session.run(["output_label"] if "output_label" in [o.name for o in session.get_outputs()] else None, {"x": rounded})[0]
            classes = sorted(set(train_y))
            entry["labels"] = [int(label) if not isinstance(label, str) else sorted(data.target_names).index(label) for label in given]
            del classes
        expected.append(entry)

    scaled = lambda *models: make_pipeline(StandardScaler(), *models)
    classical(f"{table}-logistic", scaled(LogisticRegression()), targets=labels(train_y))
    classical(f"{table}-logistic-bare", LogisticRegression(max_iter=5000))
    classical(f"{table}-svc", LinearSVC(max_iter=20000))
    classical(f"{table}-lda", scaled(LinearDiscriminantAnalysis()))
    classical(f"{table}-pca", make_pipeline(MinMaxScaler(), PCA(5, whiten=True), LogisticRegression()))
    classical(f"{table}-perceptron", scaled(MLPClassifier((8,), activation="identity", max_iter=300, random_state=1)))
    if table == "wine":
        classical("wine-relu", scaled(MLPClassifier((8,), activation="relu", max_iter=300, random_state=1)), refused="import with --fit-activations")
        classical("wine-tree", DecisionTreeClassifier(max_depth=3), refused="train LogisticRegression")
        classical("wine-kernel", SVC(), refused="train LinearSVC")
        classical("wine-normalizer", make_pipeline(Normalizer(), LogisticRegression()), refused="use StandardScaler or MinMaxScaler")

(TABLES / "SOURCE.txt").write_text(
    "Breast Cancer Wisconsin (Diagnostic), W. Wolberg, O. Mangasarian, N. Street, W. Street, 1993,\n"
    "doi:10.24432/C5DW2B, and Wine, S. Aeberhard, M. Forina, 1992, doi:10.24432/C5PC7J, of the UCI\n"
    "Machine Learning Repository, CC BY 4.0, as scikit-learn bundles them. Rows were split and\n"
    "numbers rounded to six digits by make_models.py.\n"
)
with open(OUT / "expected.json", "w") as file:
    json.dump(expected, file, separators=(",", ":"))
    file.write("\n")
print(len(expected), "networks,", sum("refused" in entry for entry in expected), "of them refused")
