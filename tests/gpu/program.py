"""Checks of the limiter with PyTorch; see README.md. Prints figures and ends with 0 where they are as they should be."""

import sys
import time

import torch

MIB = 1 << 20
# what the driver may keep for a context, and the step that memory is asked for in
SLACK = 128 * MIB


def memory(cap):
    """Tensors can be made up to the cap, and no further; what is freed can be had again."""
    free, total = torch.cuda.mem_get_info()
    assert total == cap and free <= cap, (free, total, cap)
    for _ in range(2):
        kept, taken = [], 0
        try:
            while True:
                kept.append(torch.empty(32 * MIB, dtype=torch.uint8, device="cuda"))
                taken += 32 * MIB
        except torch.cuda.OutOfMemoryError:
            pass
        print(f"{taken // MIB} of {cap // MIB} MiB")
        assert taken <= cap <= taken + SLACK, (taken, cap)
        kept.clear()
        torch.cuda.empty_cache()


def step():
    """Something that keeps the card busy for about a millisecond, and the same without Python in between."""
    a = torch.randn(2048, 2048, device="cuda")
    out = torch.empty_like(a)

    def eager():
        for _ in range(4):
            torch.mm(a, a, out=out)

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        eager()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        eager()
    return eager, graph.replay


def cost(run):
    """Milliseconds of the card's time for one step: the least of several, each after a pause."""
    a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    least = float("inf")
    for _ in range(10):
        time.sleep(0.2)
        a.record()
        run()
        b.record()
        b.synchronize()
        least = min(least, a.elapsed_time(b))
    return least


def share(how, percent):
    eager, replay = step()
    run = replay if how == "graph" else eager
    each = cost(run)
    began, steps = time.monotonic(), 0
    while time.monotonic() - began < 10:
        run()
        steps += 1
        if steps % 16 == 0:
            torch.cuda.current_stream().synchronize()
    torch.cuda.synchronize()
    got = 100 * steps * each / 1000 / (time.monotonic() - began)
    print(f"{how}: {got:.1f} of {percent} %, {steps} steps of {each:.3f} ms")
    assert abs(got - percent) <= 3, (got, percent)


def speed():
    eager, _ = step()
    for _ in range(50):
        eager()
    torch.cuda.synchronize()
    began = time.monotonic()
    for _ in range(500):
        eager()
    torch.cuda.synchronize()
    print(f"{500 / (time.monotonic() - began):.1f}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["memory", cap]:
            memory(int(cap) * MIB)
        case ["share", how, percent]:
            share(how, int(percent))
        case ["speed"]:
            speed()
        case _:
            sys.exit("usage: program.py memory MIB | share eager|graph PERCENT | speed")
