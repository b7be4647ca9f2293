#!/usr/bin/env python3
"""The peers of bench_kernels --peers: what other libraries need for the same work, on tensors of the same size.

    peers.py THREADS

Prints `peer NAME KERNEL FORMAT DTYPE` for everything that can be timed, `skipped: WHAT: WHY` for what is not
installed or does not run, and `ready`. Then answers each line `PEER KERNEL FORMAT DTYPE ROWS COLUMNS REPEATS` with the
seconds that REPEATS calls took, so that bench_kernels can time itself in turn with them.
"""
import os
import sys
import time

AMAX = 2.0


def torch_peers(offer, threads):
    import torch

    torch.set_num_threads(threads)
    dtypes = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

    def tensor(dtype, rows, columns):
        x = torch.rand(rows, columns) * (2 * AMAX) - AMAX
        return x.to(dtypes[dtype])

    def fp8(x):
        return (x * (448 / AMAX)).to(torch.float8_e4m3fn)

    def rows_of(x):
        return torch.full((x.shape[0],), AMAX / 127), torch.zeros(x.shape[0], dtype=torch.int32)

    offer("torch", "fake_quantize", "int8", dtypes, tensor,
          lambda x: torch.fake_quantize_per_tensor_affine(x, AMAX / 127, 0, -128, 127))
    offer("torch", "fake_quantize", "int8_channel", dtypes, tensor,
          lambda x: torch.fake_quantize_per_channel_affine(x, *rows_of(x), 0, -128, 127))
    offer("torch", "fake_quantize", "fp8", dtypes, tensor, lambda x: fp8(x).to(x.dtype) * (AMAX / 448))
    offer("torch", "encode", "int8", ["float32"], tensor,
          lambda x: torch.quantize_per_tensor(x, AMAX / 127, 0, torch.qint8))
    offer("torch", "encode", "fp8", dtypes, tensor, fp8)
    offer("torch", "amax", "int8", dtypes, tensor, torch.aminmax)
    offer("torch", "histogram", "2048 bins", ["float32"], lambda *shape: tensor(*shape).abs(),
          lambda x: torch.histc(x, 2048, 0, AMAX))


def fbgemm_peers(offer, threads):
    import torch
    import fbgemm_gpu  # noqa: F401  registers torch.ops.fbgemm

    torch.set_num_threads(threads)

    def tensor(_, rows, columns):
        return torch.rand(rows, columns) * (2 * AMAX) - AMAX

    offer("fbgemm", "encode", "int4_b32", ["float32"], tensor,
          lambda x: torch.ops.fbgemm.FloatToFusedNBitRowwiseQuantizedSBHalf(x.view(-1, 32), 4))
    offer("fbgemm", "encode", "int8_channel", ["float32"], tensor,
          torch.ops.fbgemm.FloatToFused8BitRowwiseQuantized)


def ml_dtypes_peers(offer, _):
    import ml_dtypes
    import numpy

    random = numpy.random.default_rng(1)

    def tensor(dtype, rows, columns):
        x = random.random((rows, columns), dtype=numpy.float32) * (2 * AMAX) - AMAX
        return x.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)

    dtypes = ["float32", "float16", "bfloat16"]
    offer("ml_dtypes", "encode", "fp8", dtypes, tensor, lambda x: x.astype(ml_dtypes.float8_e4m3fn))
    offer("ml_dtypes", "fake_quantize", "fp8", dtypes, tensor,
          lambda x: x.astype(ml_dtypes.float8_e4m3fn).astype(x.dtype))


def main():
    threads = int(sys.argv[1])
    offers, tensors = {}, {}
    answers = os.fdopen(os.dup(1), "w")
    for stream in 1, 2:  # what libraries print is no answer
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)

    def say(text):
        print(text, file=answers, flush=True)

    def offer(peer, kernel, form, dtypes, make, call):
        for dtype in dtypes:
            try:
                call(make(dtype, 2, 64))
            except Exception as why:  # a library that lacks the operation says so in many ways
                say(f"skipped: {peer} {kernel} {form} {dtype}: {str(why).splitlines()[0] if str(why) else type(why)}")
                continue
            offers[tuple(f"{peer} {kernel} {form} {dtype}".split())] = make, call
            say(f"peer {peer} {kernel} {form} {dtype}")

    for name, add in (("torch", torch_peers), ("fbgemm", fbgemm_peers), ("ml_dtypes", ml_dtypes_peers)):
        try:
            add(offer, threads)
        except Exception as why:
            say(f"skipped: peer {name}: {str(why).splitlines()[0] if str(why) else type(why)}")
    say("ready")
    for line in sys.stdin:
        *what, rows, columns, repeats = line.split()
        make, call = offers[tuple(what)]
        key = what[0], what[1] == "histogram", what[-1], rows, columns
        if key not in tensors:
            tensors.clear()  # one at a time: they are as large as the tensors timed beside them
            tensors[key] = make(what[-1], int(rows), int(columns))
        x = tensors[key]
        start = time.perf_counter()
        for _ in range(int(repeats)):
            call(x)
        say(f"{time.perf_counter() - start:.9g}")


if __name__ == "__main__":
    main()
