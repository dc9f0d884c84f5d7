"""TenSEAL evaluating networks for the comparison: one line of JSON in, one out.

A request names what is wanted (`network`, `run`, `training`). Times are CPU
nanoseconds of this process, which computes on one thread.
"""

import json
import random
import resource
import sys
import time

import tenseal

CLOCK = time.process_time_ns


def context(n, bits, scale):
    made = tenseal.context(
        tenseal.SCHEME_TYPE.CKKS,
        n,
        coeff_mod_bit_sizes=bits,
        encryption_type=tenseal.ENCRYPTION_TYPE.SYMMETRIC,
        n_threads=1,
    )
    made.global_scale = scale
    made.generate_galois_keys()
    return made


def peak():
    """Bytes of memory that this process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Conv:
    """Its tutorial's: the image's windows side by side, a product a kernel."""

    def __init__(self, context, layer):
        self.kernels, self.biases = layer["kernels"], layer["biases"]
        self.side, self.stride = len(self.kernels[0]), layer["stride"]
        # Rows above and below, columns to the left and right.
        self.padding = layer["padding"]

    def encrypt(self, context, image):
        top, bottom, left, right = self.padding
        rows = [[0.0] * left + list(row) + [0.0] * right for row in image]
        width = len(rows[0])
        image = [[0.0] * width] * top + rows + [[0.0] * width] * bottom
        vector, self.windows = tenseal.im2col_encoding(
            context, image, self.side, self.side, self.stride
        )
        return vector

    def __call__(self, x):
        channels = [
            x.conv2d_im2col(kernel, self.windows) + bias
            for kernel, bias in zip(self.kernels, self.biases)
        ]
        return tenseal.CKKSVector.pack_vectors(channels)


class Dense:
    """A product with a matrix in the clear."""

    def __init__(self, context, layer):
        # A column an output.
        self.matrix = tenseal.plain_tensor([list(row) for row in zip(*layer["weights"])])
        # Encrypted, as that fills all slots: biases in the clear are added to the
        # first outputs alone, and the next product rotates what lies behind them in.
        self.biases = tenseal.ckks_vector(context, layer["biases"])

    def __call__(self, x):
        return x.mm(self.matrix) + self.biases


class EncryptedDense:
    """A product with an encrypted row for every output, the results packed."""

    def __init__(self, context, layer):
        encrypt = lambda values: tenseal.ckks_vector(context, values)
        self.rows = [encrypt(row) for row in layer["weights"]]
        self.biases = [encrypt([bias]) for bias in layer["biases"]]
        self.last = layer["last"]

    def bytes(self):
        return sum(len(v.serialize()) for v in self.rows + self.biases)

    def __call__(self, x):
        outputs = [x.dot(row) + bias for row, bias in zip(self.rows, self.biases)]
        # Packing takes a level; the client can take the results one by one.
        return outputs if self.last else tenseal.CKKSVector.pack_vectors(outputs)


class Square:
    def __call__(self, x):
        return x.square_()


class Network:
    def __init__(self, n, bits, scale, layers, image):
        before = peak()
        self.context = context(n, bits, scale)
        kinds = {"conv": Conv, "dense": Dense, "encrypted": EncryptedDense}
        self.layers = [
            Square() if layer["kind"] == "square" else kinds[layer["kind"]](self.context, layer)
            for layer in layers
        ]
        first = self.layers[0]
        if isinstance(first, Conv):
            x = first.encrypt(self.context, image)
        else:
            x = tenseal.ckks_vector(self.context, [pixel for row in image for pixel in row])
        self.input = x.serialize()
        self.before = before

    def describe(self):
        keys = self.context.serialize(save_public_key=False, save_secret_key=False)
        weights = [layer for layer in self.layers if isinstance(layer, EncryptedDense)]
        return {
            "name": "TenSEAL " + tenseal.__version__,
            "input_bytes": len(self.input),
            "key_bytes": len(keys),
            "weight_bytes": sum(layer.bytes() for layer in weights),
        }

    def run(self):
        times = []
        start = CLOCK()
        x = tenseal.ckks_vector_from(self.context, self.input)
        times.append(CLOCK() - start)
        for layer in self.layers:
            start = CLOCK()
            x = layer(x)
            times.append(CLOCK() - start)
        results = x if isinstance(x, list) else [x]
        return {
            "times": times,
            "logits": [value for result in results for value in result.decrypt()],
            "output_bytes": sum(len(result.serialize()) for result in results),
            "memory": peak() - self.before,
        }


def training(n, bits, scale, rows, features):
    """One epoch of its tutorial's logistic regression, on drawn data: its time
    does not depend on them."""
    random.seed(1)
    made = context(n, bits, scale)
    encrypt = lambda values: tenseal.ckks_vector(made, values)
    start = CLOCK()
    data = [
        (encrypt([random.uniform(-1, 1) for _ in range(features)]), encrypt([random.randrange(2)]))
        for _ in range(rows)
    ]
    encryption = CLOCK() - start
    weight, bias = encrypt([0.1] * features), encrypt([0.1])
    delta_weight, delta_bias = 0, 0
    start = CLOCK()
    for x, y in data:
        out = (x.dot(weight) + bias).polyval([0.5, 0.197, 0, -0.004])
        out -= y
        delta_weight += x * out
        delta_bias += out
    weight -= delta_weight * (1 / rows) + weight * 0.05
    bias -= delta_bias * (1 / rows)
    epoch = CLOCK() - start
    return {"encryption": encryption, "epoch": epoch}


def main():
    # What the library prints must not come between the answers.
    answers, sys.stdout = sys.stdout, sys.stderr
    network = None
    for line in sys.stdin:
        request = json.loads(line)
        if "network" in request:
            network = Network(**request["network"])
            answer = network.describe()
        elif "training" in request:
            answer = training(**request["training"])
        else:
            answer = network.run()
        print(json.dumps(answer), file=answers, flush=True)


main()
