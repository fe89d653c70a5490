"""JAX in a container with a share."""

import os

# the part of the free memory that XLA takes at its start
PART = 0.9
os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", str(PART))

import figures  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy  # noqa: E402


def version():
    assert jax.default_backend() == "gpu", f"JAX runs on {jax.default_backend()}"
    print(jax.__version__)


def memory(cap):
    kept = []
    cap = int(cap) * figures.MIB

    def take():
        try:
            kept.append(jnp.zeros(figures.STEP, jnp.uint8).block_until_ready())
            return True
        except jax.errors.JaxRuntimeError as error:
            assert "RESOURCE_EXHAUSTED" in str(error), error
            return False

    # XLA takes its part of what the driver says is free
    limit = jax.devices()[0].memory_stats()["bytes_limit"]
    print(f"XLA's limit is {limit // figures.MIB} MiB")
    figures.holds(take, limit, cap, cap, least=0.9)


def work():
    @jax.jit
    def products(a):
        return jax.lax.fori_loop(0, 40, lambda _, b: (b @ a) * 0.01, a)

    a = jnp.ones((4096, 4096), jnp.bfloat16)
    last = [a]

    def run():
        last[0] = products(a)

    return run, lambda: last[0].block_until_ready()


def each():
    figures.each(*work())


def share(percent, milliseconds):
    figures.share(*work(), percent, milliseconds)


def idle():
    add = jax.jit(lambda a: a + 1)
    last = [jnp.zeros(1024)]

    def burst():
        for _ in range(101):
            last[0] = add(last[0])
        numpy.asarray(last[0])

    figures.idle(burst)


if __name__ == "__main__":
    figures.main(version=version, memory=memory, each=each, share=share, idle=idle)
