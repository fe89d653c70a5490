/* What pacing does to programs that pause and to threads that capture. */
#define _GNU_SOURCE
#include "checks.h"
#include "driver.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

typedef struct {
  const char *way;
  handle kernel, stream, event;
  ptr memory;
} burst;

static void await(const burst *b) {
  char byte;
  if (!strcmp(b->way, "copy")) {
    MUST(cuMemcpyDtoH_v2, &byte, b->memory, 1);
  } else if (!strcmp(b->way, "stream")) {
    int status;
    while ((status = DO(cuStreamQuery, b->stream)) == NOT_READY) pause_for(20000);
    must(status, "cuStreamQuery");
  } else {
    int status;
    MUST(cuEventRecord, b->event, b->stream);
    while ((status = DO(cuEventQuery, b->event)) == NOT_READY) pause_for(20000);
    must(status, "cuEventQuery");
  }
}

/* milliseconds for a few small kernels, of which some have no mark of the limiter behind them, and the wait for them */
static double run(const burst *b) {
  uint64_t began = now();
  for (int i = 0; i < 201; i++) must(launch(b->kernel, b->stream, 5000), "cuLaunchKernel");
  await(b);
  return (now() - began) / 1e6;
}

int idle(const char *way, double seconds) {
  burst b = {.way = way};
  double first = 0, after = 0, most = 0;
  open_context();
  b.kernel = spin_kernel();
  /* the copy waits for the default stream alone */
  if (strcmp(way, "copy")) MUST(cuStreamCreate, &b.stream, 1);
  MUST(cuEventCreate, &b.event, 2);
  MUST(cuMemAlloc_v2, &b.memory, 512);
  for (int i = 0; i < 4; i++) first = run(&b);
  for (int i = 0; i < 2; i++) {
    pause_for((uint64_t)(seconds * 1e9));
    /* what was charged for the pause is paid by the launches after the next ones */
    after = run(&b) + run(&b);
    if (after > most) most = after;
  }
  printf("waits by %s: %.1f ms before a pause of %.0f s, at most %.1f ms after it\n", way, first, seconds, most);
  return most <= 2 * first + 250 ? 0 : 1;
}

typedef struct {
  handle context, kernel;
  atomic_int stop, status;
  atomic_ulong launches;
} debtor;

/* a thread that is over its share all the time */
static void *owe(void *argument) {
  debtor *d = argument;
  handle stream = NULL;
  int status = DO(cuCtxSetCurrent, d->context);
  if (!status) status = DO(cuStreamCreate, &stream, 1);
  while (!status && !atomic_load(&d->stop)) {
    /* large and small ones: they are measured in different ways */
    unsigned long count = atomic_fetch_add(&d->launches, 1);
    status = launch(d->kernel, stream, count % 8 ? MS / 2 : 20 * MS);
  }
  atomic_store(&d->status, status);
  return NULL;
}

/* the first status that is not a success, of one capture */
static int capture_once(handle stream, handle kernel, int mode) {
  handle graph = NULL, executable = NULL;
  int status = DO(cuStreamBeginCapture_v2, stream, mode);
  if (status) return status;
  for (int i = 0; i < 10 && !status; i++) {
    status = launch(kernel, stream, 1000);
    pause_for(200000);
  }
  int ended = DO(cuStreamEndCapture, stream, &graph);
  if (!status) status = ended;
  if (!status) status = DO(cuGraphInstantiateWithFlags, &executable, graph, 0);
  if (executable) DO(cuGraphExecDestroy, executable);
  if (graph) DO(cuGraphDestroy, graph);
  return status;
}

int capture(int mode, double seconds) {
  debtor d = {0};
  pthread_t thread;
  handle stream;
  unsigned long captures = 0, broken = 0;
  int last = 0;
  d.context = open_context();
  d.kernel = spin_kernel();
  MUST(cuStreamCreate, &stream, 1);
  /* the driver loads a kernel's code at its first launch, which is not allowed while a stream captures */
  must(launch(d.kernel, stream, 1000), "cuLaunchKernel");
  MUST(cuStreamSynchronize, stream);
  if (pthread_create(&thread, NULL, owe, &d)) return 1;
  /* it owes before anything is captured, and is measured between captures */
  while (!atomic_load(&d.status) && atomic_load(&d.launches) < 10) pause_for(MS);
  for (uint64_t began = now(); now() - began < (uint64_t)(seconds * 1e9); captures++) {
    int status = capture_once(stream, d.kernel, mode);
    if (status) {
      broken++;
      last = status;
    }
    pause_for(3 * MS);
  }
  atomic_store(&d.stop, 1);
  pthread_join(thread, NULL);
  printf("mode %d: %lu of %lu captures broken (last %d), beside %lu launches of a thread in debt (last %d)\n", mode, broken,
         captures, last, atomic_load(&d.launches), atomic_load(&d.status));
  return captures && !broken && !atomic_load(&d.status) && atomic_load(&d.launches) > 1 ? 0 : 1;
}
