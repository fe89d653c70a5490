"""A kernel of Numba's, compiled by NVIDIA's compiler, launched by itself and on a stream; arrays up to the cap, which is the
argument. Kernels do not compute on a simulated GPU: no result is looked at."""

import os
import sys

os.environ["NUMBA_CUDA_LOW_OCCUPANCY_WARNINGS"] = "0"

import numpy
from numba import cuda
from numba.cuda.cudadrv.driver import CudaAPIError

CAP = int(sys.argv[1])


@cuda.jit
def scale(array, factor):
    i = cuda.grid(1)
    if i < array.size:
        array[i] *= factor


def reserve(count):
    try:
        return cuda.device_array(count, dtype=numpy.uint8)
    except (CudaAPIError, MemoryError) as error:
        print("refused", str(error).replace("\n", " "))


free, total = cuda.current_context().get_memory_info()
print("memory", free, total)
small = cuda.to_device(numpy.ones(1 << 10, dtype=numpy.float32))
stream = cuda.stream()
start, end = cuda.event(), cuda.event()
start.record(stream)
for _ in range(100):
    scale[64, 32, stream](small, numpy.float32(2))
end.record(stream)
end.synchronize()
print("elapsed", start.elapsed_time(end) > 0)
small.copy_to_host()
print("ptx", ".entry" in next(iter(scale.inspect_asm().values())))
del small
cuda.synchronize()
cuda.current_context().deallocations.clear()
print("beyond", reserve(CAP + 1) is not None)
whole = reserve(CAP)
print("whole", whole is not None)
print("and more", reserve(1) is not None)
