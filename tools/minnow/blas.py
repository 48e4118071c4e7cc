"""Import before torch: one thread a process, and OpenBLAS kernels that suit the CPU.

Debian's OpenBLAS 0.3.21 takes an unknown newer Intel CPU for a Prescott (SSE3) and is then five times slower; so the
core type is named here from the CPU's own flags unless the environment names one.
`/usr/bin/python3 blas.py` prints the speed of a 512 x 512 f32 product with one thread; below 50 GFLOP/s it fails.
"""
import os
import sys
import time


def choose():
    try:
        with open("/proc/cpuinfo") as f:
            flags = next((line for line in f if line.startswith("flags")), "").split()
    except OSError:
        flags = []
    core = "SKYLAKEX" if "avx512bw" in flags else "HASWELL" if "avx2" in flags and "fma" in flags else None
    if core:
        os.environ.setdefault("OPENBLAS_CORETYPE", core)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if "MALLOC_MMAP_THRESHOLD_" not in os.environ and sys.argv[0].endswith(".py"):
        # glibc reads these at start: keep large buffers instead of mapping and faulting them anew each time
        os.environ.update(MALLOC_MMAP_THRESHOLD_="4000000000", MALLOC_TRIM_THRESHOLD_="4000000000", MALLOC_TOP_PAD_="67108864")
        os.execv(sys.executable, [sys.executable] + sys.argv)


choose()


def speed():
    import torch
    torch.set_num_threads(1)
    a, b = torch.randn(512, 512), torch.randn(512, 512)
    best = 1e9
    for _ in range(20):
        t = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - t)
    return 2 * 512 ** 3 / best / 1e9


if __name__ == "__main__":
    g = speed()
    print("512 x 512 f32 product: %.0f GFLOP/s on one thread" % g)
    if g < 50:
        sys.exit("below 50 GFLOP/s: install libopenblas0-pthread, or set OPENBLAS_CORETYPE to this CPU's core")
