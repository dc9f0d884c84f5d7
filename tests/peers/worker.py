"""TenSEAL or OpenFHE for the comparison: one line of JSON in, one out.

The first line gives ring degree, bits of the primes, scale, levels and values.
Times are CPU nanoseconds of this process, which computes on one thread.
"""

import json
import math
import sys
import time


def measure(runs, prepare, run):
    """CPU time of some runs, after one that is not counted."""
    times = []
    clock = time.process_time_ns
    for i in range(runs + 1):
        operands = prepare()
        before = clock()
        start = clock()
        result = run(*operands)
        end = clock()
        if i > 0:
            times.append(max(0, (end - start) - (start - before)))
        del result, operands
    return times


class TenSeal:
    """Its vectors encode, relinearise and rescale by themselves."""

    def __init__(self, n, bits, scale, levels, values):
        import tenseal

        self.values, self.levels = values, levels
        self.vector = tenseal.ckks_vector

        def context(kind):
            made = tenseal.context(
                tenseal.SCHEME_TYPE.CKKS,
                n,
                coeff_mod_bit_sizes=bits,
                encryption_type=kind,
                n_threads=1,
            )
            made.global_scale = scale
            return made

        self.public = context(tenseal.ENCRYPTION_TYPE.ASYMMETRIC)
        self.secret = context(tenseal.ENCRYPTION_TYPE.SYMMETRIC)
        self.secret.generate_galois_keys()
        self.x, self.y = (self.vector(self.secret, v) for v in values)
        self.name = "TenSEAL " + tenseal.__version__
        self.log_qp = float(sum(bits))

    def operations(self):
        x, y, values = self.x, self.y, self.values
        copy = lambda: (x.copy(),)
        none = lambda: ()
        return {
            "add": (copy, lambda ct: ct.add_(y)),
            "encode_encrypt_secret": (none, lambda: self.vector(self.secret, values[0])),
            "encode_encrypt_public": (none, lambda: self.vector(self.public, values[0])),
            "decrypt_decode": (none, lambda: x.decrypt()),
            "encode_multiply_plain_rescale": (copy, lambda ct: ct.mul_(values[1])),
            "multiply_relinearize_rescale": (copy, lambda ct: ct.mul_(y)),
            "square_relinearize_rescale": (copy, lambda ct: ct.square_()),
            "inner_sum": (copy, lambda ct: ct.sum_()),
        }

    def circuit(self):
        ct = self.vector(self.secret, self.values[0])
        ct.mul_(self.vector(self.secret, self.values[1]))
        for _ in range(self.levels - 1):
            ct.square_()
        return ct.decrypt()


class OpenFhe:
    """Hybrid key switching with one prime a digit, scales by hand.

    It chooses the special primes itself, and encrypts under a public key only.
    """

    def __init__(self, n, bits, scale, levels, values):
        import openfhe
        from importlib.metadata import version

        self.values, self.levels, self.slots = values, levels, n // 2
        parameters = openfhe.CCParamsCKKSRNS()
        parameters.SetRingDim(n)
        parameters.SetBatchSize(n // 2)
        parameters.SetSecurityLevel(openfhe.SecurityLevel.HEStd_NotSet)
        parameters.SetScalingTechnique(openfhe.ScalingTechnique.FIXEDMANUAL)
        parameters.SetKeySwitchTechnique(openfhe.KeySwitchTechnique.HYBRID)
        parameters.SetNumLargeDigits(len(bits) - 1)
        parameters.SetMultiplicativeDepth(levels)
        parameters.SetFirstModSize(bits[0])
        parameters.SetScalingModSize(round(math.log2(scale)))
        self.context = context = openfhe.GenCryptoContext(parameters)
        features = openfhe.PKESchemeFeature
        for feature in (features.PKE, features.KEYSWITCH, features.LEVELEDSHE):
            context.Enable(feature)
        self.keys = keys = context.KeyGen()
        context.EvalMultKeyGen(keys.secretKey)
        context.EvalRotateKeyGen(keys.secretKey, [1 << i for i in range((n // 2).bit_length() - 1)])
        self.plain = self.encode(0)
        self.x, self.y = (self.encrypt(i) for i in (0, 1))
        self.product = context.EvalMultNoRelin(self.x, self.y)
        self.name = "OpenFHE " + ".".join(version("openfhe").split(".")[:3])
        # The special modulus covers a digit, which is one prime here; the library
        # makes its primes of 60 bits and does not give them out.
        self.log_qp = math.log2(context.GetModulus()) + 60

    def encode(self, i):
        return self.context.MakeCKKSPackedPlaintext(self.values[i])

    def encrypt(self, i):
        return self.context.Encrypt(self.keys.publicKey, self.encode(i))

    def decrypt(self, ct):
        plain = self.context.Decrypt(self.keys.secretKey, ct)
        plain.SetLength(self.slots)
        return plain.GetRealPackedValue()

    def inner_sum(self, ct):
        for i in range(self.slots.bit_length() - 1):
            ct = self.context.EvalAdd(ct, self.context.EvalRotate(ct, 1 << i))
        return ct

    def operations(self):
        context, x, y = self.context, self.x, self.y
        public = self.keys.publicKey
        none = lambda: ()
        return {
            "encode": (none, lambda: self.encode(0)),
            "encrypt_public": (none, lambda: context.Encrypt(public, self.plain)),
            "decrypt_decode": (none, lambda: self.decrypt(x)),
            "add": (none, lambda: context.EvalAdd(x, y)),
            "multiply_plain": (none, lambda: context.EvalMult(x, self.plain)),
            "multiply": (none, lambda: context.EvalMultNoRelin(x, y)),
            "relinearize": (none, lambda: context.Relinearize(self.product)),
            "rescale": (none, lambda: context.Rescale(x)),
            "rotate": (none, lambda: context.EvalRotate(x, 1)),
            "encode_encrypt_public": (none, lambda: self.encrypt(0)),
            "encode_multiply_plain_rescale": (
                none,
                lambda: context.Rescale(context.EvalMult(x, self.encode(0))),
            ),
            "multiply_relinearize_rescale": (
                none,
                lambda: context.Rescale(context.EvalMult(x, y)),
            ),
            "square_relinearize_rescale": (
                none,
                lambda: context.Rescale(context.EvalSquare(x)),
            ),
            "inner_sum": (none, lambda: self.inner_sum(x)),
        }

    def circuit(self):
        context = self.context
        ct = context.Rescale(context.EvalMult(self.encrypt(0), self.encrypt(1)))
        for _ in range(self.levels - 1):
            ct = context.Rescale(context.EvalSquare(ct))
        return self.decrypt(ct)


def main():
    library = {"tenseal": TenSeal, "openfhe": OpenFhe}[sys.argv[1]]
    # What a library prints must not come between the answers.
    answers, sys.stdout = sys.stdout, sys.stderr
    peer = operations = None
    for line in sys.stdin:
        request = json.loads(line)
        if peer is None:
            peer = library(**request)
            operations = peer.operations()
            answer = {
                "name": peer.name,
                "log_qp": peer.log_qp,
                "operations": list(operations),
            }
        elif "time" in request:
            answer = measure(request["runs"], *operations[request["time"]])
        else:
            answer = peer.circuit()
        print(json.dumps(answer), file=answers, flush=True)


main()
