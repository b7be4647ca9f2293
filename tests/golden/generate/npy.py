"""npy and npz files as NumPy writes them:  python npy.py OUT  (needs numpy only)"""

import io
import pathlib
import sys
import zipfile

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
    yield "big_endian", np.arange(3, dtype=">f4")
    yield "specials", np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45, 3.4e38], np.float32)


def main(out):
    out.mkdir(parents=True, exist_ok=True)
    for name, array in arrays():
        np.save(out / f"{name}.npy", array)
    np.save(out / "refused_text.npy", np.array(["a", "bc"]))
    np.save(out / "refused_records.npy", np.zeros(2, dtype=[("x", "<f4"), ("y", "<i4")]))
    np.save(out / "refused_raw.npy", np.zeros(2, dtype="V2"))
    np.save(out / "refused_rank7.npy", np.zeros((1,) * 7, np.float32))
    with open(out / "version2.npy", "wb") as f:
        np.lib.format.write_array(f, np.arange(5, dtype=np.float32), version=(2, 0))
    with open(out / "version3.npy", "wb") as f:
        np.lib.format.write_array(f, np.arange(5, dtype=np.float32), version=(3, 0))
    archives(out)


def archives(out):
    batch = np.arange(4000, dtype=np.float32).reshape(40, 100) % 37 / 4  # repeats: distances, codes of their own
    few = {"x": np.arange(6, dtype=np.int64).reshape(2, 3), "scalar": np.array(1.5, np.float32)}
    np.savez(out / "stored.npz", **few, empty=np.zeros((0, 4), np.float32), batch=batch[:3])
    np.savez_compressed(out / "deflated.npz", **few, batch=batch)
    np.savez(out / "none.npz")
    big = {c: np.arange(-2, 4).reshape(2, 3).astype(">" + c) for c in ["i2", "u2", "f2", "i4", "u4", "f4", "i8", "u8", "f8"]}
    fortran = np.asfortranarray(big["i4"])
    np.savez(out / "big_endian.npz", **big, fortran=fortran, i1=np.arange(3, dtype=">i1"), empty=np.zeros((0, 4), ">f8"))
    np.savez_compressed(out / "big_endian_deflated.npz", batch=batch.astype(">f4"))
    content = io.BytesIO()
    np.save(content, batch[:3])
    with zipfile.ZipFile(out / "blocks.npz", "w") as z:  # deflate's uncompressed blocks, and a member of another kind
        z.comment = b"a comment"
        z.writestr(zipfile.ZipInfo("uncompressed.npy"), content.getvalue(), zipfile.ZIP_DEFLATED, 0)
        z.writestr(zipfile.ZipInfo("notes.txt"), "no array")
    with zipfile.ZipFile(out / "refused_bzip2.npz", "w", zipfile.ZIP_BZIP2) as z:
        z.writestr(zipfile.ZipInfo("x.npy"), content.getvalue(), zipfile.ZIP_BZIP2)


main(pathlib.Path(sys.argv[1]))
