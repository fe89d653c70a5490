/* How much of the card's time a container gets. */
#define _GNU_SOURCE
#include "checks.h"
#include "driver.h"

#include <string.h>

enum { NODES = 20 };

/* what a check launches, again and again */
typedef struct {
  uint64_t nanoseconds;
  handle context, kernel, stream, executable;
  /* a second context, for checks that use two */
  handle other, other_kernel, other_stream;
  int two;
  uint64_t launches;
} load;

static handle graph_of(handle kernel, uint64_t nanoseconds) {
  handle graph, node, executable, last = NULL;
  void *parameters[] = {&nanoseconds};
  kernel_node k = {kernel, {1, 1, 1, 32, 1, 1, 0}, parameters, NULL, NULL, NULL};
  MUST(cuGraphCreate, &graph, 0);
  for (int i = 0; i < NODES; i++) {
    MUST(cuGraphAddKernelNode_v2, &node, graph, &last, last ? 1 : 0, &k);
    last = node;
  }
  MUST(cuGraphInstantiateWithFlags, &executable, graph, 0);
  return executable;
}

/* a stream of a context that has half of the multiprocessors */
static handle green_stream(void) {
  device_resource all = {0}, half = {0}, rest = {0};
  handle description, green, stream;
  unsigned groups = 1;
  MUST(cuDeviceGetDevResource, 0, &all, 1);
  MUST(cuDevSmResourceSplitByCount, &half, &groups, &all, &rest, 0, all.sm.count / 2);
  MUST(cuDevResourceGenerateDesc, &description, &half, 1);
  MUST(cuGreenCtxCreate, &green, description, 0, 1);
  MUST(cuGreenCtxStreamCreate, &stream, green, 1, 0);
  return stream;
}

static load prepare(const char *how) {
  load l = {.nanoseconds = MS / 10};
  l.context = open_context();
  l.kernel = spin_kernel();
  if (!strcmp(how, "large")) l.nanoseconds = 30 * MS;
  if (!strcmp(how, "contexts")) {
    l.two = 1;
    l.nanoseconds = MS;
    MUST(cuCtxCreate_v2, &l.other, 0, 0);
    l.other_kernel = spin_kernel();
    MUST(cuStreamCreate, &l.other_stream, 1);
    MUST(cuCtxSetCurrent, l.context);
  }
  if (!strcmp(how, "green")) l.stream = green_stream();
  else MUST(cuStreamCreate, &l.stream, 1);
  if (!strcmp(how, "graph")) l.executable = graph_of(l.kernel, l.nanoseconds);
  return l;
}

/* In two contexts by turns; each eighth launch is on a stream of its own, which is destroyed while the other context is
 * current. */
static void once_in_two(load *l) {
  int other = l->launches & 1;
  handle stream = other ? l->other_stream : l->stream, own = NULL;
  MUST(cuCtxSetCurrent, other ? l->other : l->context);
  if (l->launches % 8 == 0) MUST(cuStreamCreate, &own, 1);
  must(launch(other ? l->other_kernel : l->kernel, own ? own : stream, l->nanoseconds), "cuLaunchKernel");
  if (own) {
    MUST(cuCtxSetCurrent, other ? l->context : l->other);
    MUST(cuStreamDestroy_v2, own);
  }
}

static void once(load *l) {
  if (l->executable) MUST(cuGraphLaunch, l->executable, l->stream);
  else if (l->two) once_in_two(l);
  else must(launch(l->kernel, l->stream, l->nanoseconds), "cuLaunchKernel");
  l->launches++;
}

static void finish(load *l) {
  if (l->two) {
    MUST(cuCtxSetCurrent, l->other);
    MUST(cuCtxSynchronize);
    MUST(cuCtxSetCurrent, l->context);
  }
  MUST(cuCtxSynchronize);
}

static uint64_t launch_for(load *l, uint64_t nanoseconds) {
  uint64_t began = now();
  l->launches = 0;
  while (now() - began < nanoseconds) once(l);
  finish(l);
  return now() - began;
}

/* Milliseconds that one launch takes alone, by the driver's events: the least of several, each after a pause, within what an
 * idle container may use at once. */
static double alone(load *l) {
  handle a, b;
  float milliseconds, least = 1e9f;
  int count = l->executable || l->nanoseconds > MS ? 1 : 5;
  MUST(cuEventCreate, &a, 0);
  MUST(cuEventCreate, &b, 0);
  for (int round = 0; round < 3; round++) {
    pause_for(l->nanoseconds > MS ? SECOND : SECOND / 2);
    MUST(cuEventRecord, a, l->stream);
    for (int i = 0; i < count; i++) {
      if (l->executable) MUST(cuGraphLaunch, l->executable, l->stream);
      else must(launch(l->kernel, l->stream, l->nanoseconds), "cuLaunchKernel");
    }
    MUST(cuEventRecord, b, l->stream);
    MUST(cuEventSynchronize, b);
    MUST(cuEventElapsedTime, &milliseconds, a, b);
    if (milliseconds / count < least) least = milliseconds / count;
  }
  return least;
}

/* has `seen` look at the card's use meanwhile */
static void announce(const char *what, double percent) {
  if (getenv("KERF_SEEN")) {
    printf("%s\t%.0f\n", what, percent);
    fflush(stdout);
  }
}

int share(const char *how, double percent, double seconds) {
  load l = prepare(how);
  double each = alone(&l);
  /* the time that an idle container has saved is used up first */
  launch_for(&l, SECOND);
  announce("begin", percent);
  uint64_t took = launch_for(&l, (uint64_t)(seconds * 1e9));
  announce("end", percent);
  double got = 100.0 * l.launches * each * 1e6 / (double)took;
  printf("%s: %.1f of %.0f %% (%llu launches of %.3f ms)\n", how, got, percent, (unsigned long long)l.launches, each);
  return got >= percent - 3 && got <= percent + 3 ? 0 : 1;
}

/* nanoseconds of the program's time for one call: the least of many batches */
static uint64_t least(const char *what, load *l) {
  enum { BATCHES = 200, CALLS = 100 };
  uint64_t best = ~0ull;
  for (int batch = 0; batch < BATCHES; batch++) {
    uint64_t began = now();
    for (int i = 0; i < CALLS; i++) {
      ptr p;
      if (!strcmp(what, "launch")) must(launch(l->kernel, l->stream, 0), "cuLaunchKernel");
      else if (!strcmp(what, "graph")) MUST(cuGraphLaunch, l->executable, l->stream);
      else {
        MUST(cuMemAlloc_v2, &p, 4 * MIB);
        MUST(cuMemFree_v2, p);
      }
    }
    uint64_t each = (now() - began) / CALLS;
    MUST(cuStreamSynchronize, l->stream);
    best = each < best ? each : best;
  }
  return best;
}

int cost(const char *what, double nanoseconds) {
  load l = prepare("small");
  if (!strcmp(what, "loop")) {
    enum { LAUNCHES = 20000 };
    for (int i = 0; i < 100; i++) must(launch(l.kernel, l.stream, 0), "cuLaunchKernel");
    MUST(cuStreamSynchronize, l.stream);
    uint64_t began = now();
    for (int i = 0; i < LAUNCHES; i++) must(launch(l.kernel, l.stream, (uint64_t)nanoseconds), "cuLaunchKernel");
    MUST(cuStreamSynchronize, l.stream);
    printf("%llu\n", (unsigned long long)((now() - began) / LAUNCHES));
    return 0;
  }
  if (!strcmp(what, "graph")) l.executable = graph_of(l.kernel, 0);
  printf("%llu\n", (unsigned long long)least(what, &l));
  return 0;
}
