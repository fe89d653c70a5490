"""Triton in a container with a share, on tensors of PyTorch."""

import figures
import torch
import triton
import triton.language as tl
from with_torch import taking

BLOCK = 1024


@triton.jit
def added(a, out, count, rounds, size: tl.constexpr):
    at = tl.program_id(0) * size + tl.arange(0, size)
    mask = at < count
    value = tl.load(a + at, mask=mask)
    for _ in range(rounds):
        value = value + 1
    tl.store(out + at, value, mask=mask)


def launch(a, out, rounds):
    count = a.numel()
    added[(triton.cdiv(count, BLOCK),)](a, out, count, rounds, size=BLOCK)


def version():
    assert torch.cuda.is_available(), "PyTorch sees no card"
    print(triton.__version__)


def memory(cap):
    """Its tensors are PyTorch's; a kernel works beside as many of them as there is room for."""
    kept = []
    a = torch.zeros(1 << 20, device="cuda")
    out = torch.empty_like(a)
    launch(a, out, 3)
    assert (out == 3).all().item()
    free, total = torch.cuda.mem_get_info()
    figures.holds(taking(kept), free, total, int(cap) * figures.MIB)
    launch(a, out, 5)
    assert (out == 5).sum().item() == a.numel()


def work():
    a = torch.zeros(1 << 26, device="cuda")
    out = torch.empty_like(a)

    def run():
        for _ in range(20):
            launch(a, out, 100)

    return run, torch.cuda.synchronize


def each():
    figures.each(*work())


def share(percent, milliseconds):
    figures.share(*work(), percent, milliseconds)


def idle():
    a = torch.zeros(1024, device="cuda")
    out = torch.empty_like(a)

    def burst():
        for _ in range(101):
            launch(a, out, 1)
        out.cpu()

    figures.idle(burst)


if __name__ == "__main__":
    figures.main(version=version, memory=memory, each=each, share=share, idle=idle)
