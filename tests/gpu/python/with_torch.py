"""PyTorch in a container with a share."""

import threading
import time

import figures
import torch


def version():
    assert torch.cuda.is_available(), "PyTorch sees no card"
    print(torch.__version__)


def taking(kept):
    """A function that takes a piece of memory, which `kept` keeps; false where there is no more."""

    def take():
        try:
            kept.append(torch.empty(figures.STEP, dtype=torch.uint8, device="cuda"))
            return True
        except torch.cuda.OutOfMemoryError:
            return False

    return take


def memory(cap):
    kept = []
    free, total = torch.cuda.mem_get_info()
    for _ in range(2):
        figures.holds(taking(kept), free, total, int(cap) * figures.MIB)
        # what is freed can be had again
        kept.clear()
        torch.cuda.empty_cache()


def step():
    """Some milliseconds of work for the card, eagerly and as a graph."""
    a = torch.randn(4096, 4096, device="cuda", dtype=torch.bfloat16)
    out = torch.empty_like(a)

    def eager():
        for _ in range(40):
            torch.mm(a, a, out=out)

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        eager()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        eager()
    return eager, graph.replay


def each():
    figures.each(step()[0], torch.cuda.synchronize)


def share(how, percent, milliseconds):
    eager, replay = step()
    figures.share(replay if how == "graph" else eager, torch.cuda.synchronize, percent, milliseconds)


def idle():
    a = torch.zeros(1024, device="cuda")

    def burst():
        for _ in range(101):
            a.add_(1)
        a[0].item()

    figures.idle(burst)


def capture():
    """Captures in the default mode, which is global, beside a thread that is over its share all the time."""
    large = torch.ones(1 << 28, device="cuda")
    small = torch.ones(1024, device="cuda")
    ready, stop = threading.Event(), threading.Event()
    launches, errors = [], []

    def owe():
        try:
            with torch.cuda.stream(torch.cuda.Stream()):
                while not stop.is_set():
                    for _ in range(20):
                        large.mul_(1.0)
                    launches.append(20)
                    ready.set()
        except RuntimeError as error:
            errors.append(error)
            ready.set()

    small.add_(1)
    thread = threading.Thread(target=owe)
    thread.start()
    ready.wait()
    captures, began = 0, time.perf_counter()
    while time.perf_counter() - began < 8:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(10):
                small.add_(1)
                time.sleep(0.001)
        captures += 1
    stop.set()
    thread.join()
    print(f"{captures} captures beside {sum(launches)} launches of a thread in debt; its errors: {errors}")
    assert captures > 1 and not errors


def speed():
    eager, _ = step()
    eager()
    torch.cuda.synchronize()
    runs, took = figures.launch_for(eager, torch.cuda.synchronize, 3)
    print(f"{40 * runs / took:.0f} products of matrices a second")


if __name__ == "__main__":
    figures.main(version=version, memory=memory, each=each, share=share, idle=idle, capture=capture, speed=speed)
