"""CuPy in a container with a share."""

import cupy
import figures


def version():
    assert cupy.cuda.runtime.getDeviceCount() > 0, "CuPy sees no card"
    print(cupy.__version__)


def memory(cap):
    kept = []

    def take():
        try:
            kept.append(cupy.empty(figures.STEP, dtype=cupy.uint8))
            return True
        except cupy.cuda.memory.OutOfMemoryError:
            return False

    free, total = cupy.cuda.runtime.memGetInfo()
    figures.holds(take, free, total, int(cap) * figures.MIB)


def wait():
    cupy.cuda.Device().synchronize()


def work():
    a = cupy.ones(1 << 27, dtype=cupy.float32)

    def run():
        for _ in range(20):
            cupy.sqrt(a, out=a)

    return run, wait


def each():
    figures.each(*work())


def share(percent, milliseconds):
    figures.share(*work(), percent, milliseconds)


def idle():
    a = cupy.zeros(1024, dtype=cupy.float32)

    def burst():
        for _ in range(101):
            cupy.add(a, 1, out=a)
        a.get()

    figures.idle(burst)


if __name__ == "__main__":
    figures.main(version=version, memory=memory, each=each, share=share, idle=idle)
