"""What the checks with Python's libraries have in common. Each prints figures and ends with 0 where they are as they should be."""

import sys
import time

MIB = 1 << 20
# the step that memory is asked for in, and what may be left over of it
STEP = 32 * MIB
SLACK = 128 * MIB
# seconds for which a share is measured, and that a program pauses
MEASURE, PAUSE = 5, 5


def holds(take, free, total, cap, least=1.0):
    """Takes pieces of STEP by `take`, which is false where there are no more: up to the cap, and one step more at most.
    `least`: the part of the free memory that the library is to get."""
    taken = 0
    while taken <= cap and take():
        taken += STEP
    print(f"{taken // MIB} of {cap // MIB} MiB; {free // MIB} of {total // MIB} MiB were free")
    assert total == cap, (total, cap)
    assert taken <= cap, "the cap does not hold: stopped one step beyond it"
    assert taken + SLACK >= least * free, (taken, free)


def launch_for(run, wait, seconds):
    """Runs for so many seconds; how often, and how long it took."""
    began, runs = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        run()
        runs += 1
        if runs % 8 == 0:
            wait()
    wait()
    return runs, time.perf_counter() - began


def each(run, wait):
    """Milliseconds of the card's time for one run, which is long beside what starting it costs. Without a share, and with the
    card busy, since the clocks of an idle card are slow."""
    launch_for(run, wait, 1)
    runs, took = launch_for(run, wait, 2)
    print(f"{1000 * took / runs:.3f}")


def share(run, wait, percent, milliseconds, points=5):
    """`milliseconds`: what `each` found."""
    # the time that an idle container has saved is used up first
    launch_for(run, wait, 1)
    runs, took = launch_for(run, wait, MEASURE)
    got = 100 * runs * float(milliseconds) / 1000 / took
    print(f"{got:.1f} of {percent} %, {runs} runs of {milliseconds} ms")
    assert abs(got - float(percent)) <= points, (got, percent)


def idle(burst):
    """`burst` launches a few small kernels and fetches a result."""

    def timed():
        began = time.perf_counter()
        burst()
        return time.perf_counter() - began

    for _ in range(5):
        first = timed()
    most = 0.0
    for _ in range(2):
        time.sleep(PAUSE)
        # what was charged for the pause is paid by the launches after the next ones
        most = max(most, timed() + timed())
    print(f"{1000 * first:.1f} ms before a pause of {PAUSE} s, at most {1000 * most:.1f} ms after it")
    assert most <= 2 * first + 0.25, (first, most)


def main(**checks):
    name, *arguments = sys.argv[1:]
    checks[name](*arguments)
