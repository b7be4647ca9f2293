"""npy files as NumPy writes them:  python npy.py OUT  (needs numpy only)"""

import pathlib
import sys

import numpy as np


def arrays():
    types = ["bool", "int8", "uint8", "int16", "uint16", "float16", "int32", "uint32", "float32", "int64", "uint64",
             "float64"]
    for name in types:
        yield name, np.arange(6).reshape(2, 3).astype(name)
    yield "scalar", np.array(1.5, np.float32)
    yield "vector", np.arange(7, dtype=np.float32) / 2
    yield "empty", np.zeros((0, 4), np.float32)
    yield "rank6", np.arange(64, dtype=np.int32).reshape(2, 2, 2, 2, 2, 2)
    yield "fortran", np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    yield "specials", np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45, 3.4e38], np.float32)


def main(out):
    out.mkdir(parents=True, exist_ok=True)
    for name, array in arrays():
        np.save(out / f"{name}.npy", array)
    np.save(out / "refused_big_endian.npy", np.arange(3, dtype=">f4"))
    np.save(out / "refused_text.npy", np.array(["a", "bc"]))
    np.save(out / "refused_records.npy", np.zeros(2, dtype=[("x", "<f4"), ("y", "<i4")]))
    np.save(out / "refused_raw.npy", np.zeros(2, dtype="V2"))
    np.save(out / "refused_rank7.npy", np.zeros((1,) * 7, np.float32))
    with open(out / "version2.npy", "wb") as f:
        np.lib.format.write_array(f, np.arange(5, dtype=np.float32), version=(2, 0))
    with open(out / "version3.npy", "wb") as f:
        np.lib.format.write_array(f, np.arange(5, dtype=np.float32), version=(3, 0))


main(pathlib.Path(sys.argv[1]))
