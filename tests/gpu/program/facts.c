/* How the driver itself behaves where the limiter relies on it. Run without the limiter; nothing is judged. */
#define _GNU_SOURCE
#include "checks.h"
#include "driver.h"

#include <pthread.h>

enum { ROUNDS = 1000 };

static handle context, kernel, stream, event, marked;

/* nanoseconds of one call on a stream that is idle, where the driver has the function */
#define COST(name, ...)                                                                                        \
  if (p_##name) {                                                                                              \
    uint64_t began = now();                                                                                    \
    for (int i = 0; i < ROUNDS; i++) p_##name(__VA_ARGS__);                                                    \
    printf("%s: %llu ns\n", #name, (unsigned long long)((now() - began) / ROUNDS));                            \
  } else {                                                                                                     \
    printf("%s: not in this driver\n", #name);                                                                 \
  }

static void latency(void) {
  unsigned at_once = 0;
  uint64_t sum = 0;
  for (int i = 0; i < ROUNDS; i++) {
    uint64_t began = now();
    MUST(cuEventRecord, event, stream);
    if (DO(cuEventQuery, event) == 0) at_once++;
    while (DO(cuEventQuery, event) == NOT_READY) {
    }
    sum += now() - began;
  }
  printf("an event on an idle stream: reached after %llu ns in the mean, at the first question in %u of %d\n",
         (unsigned long long)(sum / ROUNDS), at_once, ROUNDS);
}

static void calls(void) {
  int mode = 2, status;
  float milliseconds;
  COST(cuEventRecord, event, stream)
  MUST(cuStreamSynchronize, stream);
  COST(cuEventQuery, event)
  COST(cuEventElapsedTime, &milliseconds, event, event)
  COST(cuStreamQuery, stream)
  COST(cuStreamIsCapturing, stream, &status)
  COST(cuThreadExchangeStreamCaptureMode, &mode)
  uint64_t began = now();
  for (int i = 0; i < ROUNDS; i++) must(launch(kernel, stream, 0), "cuLaunchKernel");
  printf("cuLaunchKernel: %llu ns\n", (unsigned long long)((now() - began) / ROUNDS));
  MUST(cuStreamSynchronize, stream);
}

/* a thread that asks for an event while another one captures */
static void *ask(void *relaxed) {
  int mode = 2;
  MUST(cuCtxSetCurrent, context);
  if (relaxed) DO(cuThreadExchangeStreamCaptureMode, &mode);
  return (void *)(intptr_t)DO(cuEventQuery, marked);
}

static void captures(void) {
  static const char *const MODES[] = {"global", "of the thread", "relaxed"};
  for (int mode = 0; mode < 3; mode++) {
    for (int relaxed = 0; relaxed < 2; relaxed++) {
      handle graph = NULL;
      pthread_t thread;
      void *answer = NULL;
      MUST(cuStreamBeginCapture_v2, stream, mode);
      int launched = launch(kernel, stream, 0);
      if (pthread_create(&thread, NULL, ask, relaxed ? &mode : NULL)) exit(1);
      pthread_join(thread, &answer);
      int ended = DO(cuStreamEndCapture, stream, &graph);
      if (graph) DO(cuGraphDestroy, graph);
      printf("a capture (%s), cuEventQuery by another thread%s: launch %d, query %d, end of the capture %d\n", MODES[mode],
             relaxed ? " in relaxed mode" : "", launched, (int)(intptr_t)answer, ended);
    }
  }
}

static void recorded(void) {
  handle graph = NULL, other, foreign;
  MUST(cuStreamBeginCapture_v2, stream, 2);
  int record = DO(cuEventRecord, event, stream);
  int query = DO(cuEventQuery, event);
  int ended = DO(cuStreamEndCapture, stream, &graph);
  printf("an event recorded in a capture: record %d, query %d, end of the capture %d\n", record, query, ended);
  MUST(cuCtxCreate_v2, &other, 0, 0);
  MUST(cuEventCreate, &foreign, 0);
  printf("another context's event on this context's stream: record %d\n", DO(cuEventRecord, foreign, stream));
  MUST(cuCtxSetCurrent, context);
}

int facts(void) {
  int version;
  context = open_context();
  kernel = spin_kernel();
  MUST(cuDriverGetVersion, &version);
  printf("the driver's CUDA is %d\n", version);
  MUST(cuStreamCreate, &stream, 1);
  MUST(cuEventCreate, &event, 0);
  MUST(cuEventCreate, &marked, 0);
  must(launch(kernel, stream, 0), "cuLaunchKernel");
  MUST(cuEventRecord, marked, stream);
  MUST(cuStreamSynchronize, stream);
  latency();
  calls();
  captures();
  recorded();
  return 0;
}
