#define _GNU_SOURCE
#include "driver.h"

#include <dlfcn.h>
#include <time.h>

#define DEFINE_FUNCTION(name, arguments) int(*p_##name) arguments;
DRIVER_FUNCTIONS(DEFINE_FUNCTION)

/* By the card's own clock in nanoseconds: no toolkit is needed, the driver compiles it. */
static const char SPIN[] =
    ".version 6.0\n"
    ".target sm_50\n"
    ".address_size 64\n"
    ".visible .entry spin(.param .u64 nanoseconds)\n"
    "{\n"
    "  .reg .pred %again;\n"
    "  .reg .b64 %want, %began, %now;\n"
    "  ld.param.u64 %want, [nanoseconds];\n"
    "  mov.u64 %began, %globaltimer;\n"
    "turn:\n"
    "  mov.u64 %now, %globaltimer;\n"
    "  sub.u64 %now, %now, %began;\n"
    "  setp.lt.u64 %again, %now, %want;\n"
    "  @%again bra turn;\n"
    "  ret;\n"
    "}\n";

void *available(void *function, const char *name) {
  if (!function) {
    printf("this driver has no %s\n", name);
    exit(NOT_RUN);
  }
  return function;
}

void must(int status, const char *name) {
  if (status) {
    printf("%s: %d\n", name, status);
    exit(1);
  }
}

void open_driver(void) {
  void *library = dlopen("libcuda.so.1", RTLD_NOW);
  if (!library) {
    printf("%s\n", dlerror());
    exit(SHUT);
  }
#define FIND_FUNCTION(name, arguments) *(void **)&p_##name = dlsym(library, #name);
  DRIVER_FUNCTIONS(FIND_FUNCTION)
  int status = DO(cuInit, 0);
  if (status) {
    printf("cuInit: %d\n", status);
    exit(SHUT);
  }
}

handle open_context(void) {
  handle context;
  open_driver();
  MUST(cuDevicePrimaryCtxRetain, &context, 0);
  MUST(cuCtxSetCurrent, context);
  return context;
}

handle spin_kernel(void) {
  handle module, function;
  MUST(cuModuleLoadData, &module, SPIN);
  MUST(cuModuleGetFunction, &function, module, "spin");
  return function;
}

int launch(handle kernel, handle stream, uint64_t nanoseconds) {
  void *parameters[] = {&nanoseconds};
  return DO(cuLaunchKernel, kernel, 1, 1, 1, 32, 1, 1, 0, stream, parameters, NULL);
}

size_t counted(void) {
  size_t left, total;
  MUST(cuMemGetInfo_v2, &left, &total);
  return total - left;
}

uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * SECOND + t.tv_nsec;
}

void pause_for(uint64_t nanoseconds) {
  uint64_t until = now() + nanoseconds;
  struct timespec t = {until / SECOND, until % SECOND};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL)) {
  }
}
