/* What a container can take of the card's memory, and what the card gives for it. */
#define _GNU_SOURCE
#include "checks.h"
#include "driver.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static int take_from_pool(size_t bytes) {
  static handle pool;
  ptr p;
  if (!pool) {
    pool_properties properties = {.type = 1, .location = 1};
    MUST(cuMemPoolCreate, &pool, &properties);
  }
  return DO(cuMemAllocFromPoolAsync, &p, bytes, pool, NULL);
}

/* By a graph that keeps its memory: what the one before has is freed, and the next has as much and `bytes` more. */
static int take_by_graph(size_t bytes) {
  static ptr before;
  static size_t total;
  handle graph, node, executable;
  allocation_node parameters = {.pool = {.type = 1, .location = 1}, .bytes = total += bytes};
  if (before) DO(cuMemFree_v2, before);
  MUST(cuGraphCreate, &graph, 0);
  int status = DO(cuGraphAddMemAllocNode, &node, graph, NULL, 0, &parameters);
  before = parameters.memory;
  if (!status) status = DO(cuGraphInstantiateWithFlags, &executable, graph, 0);
  return status ? status : DO(cuGraphLaunch, executable, NULL);
}

static int take(const char *way, size_t bytes) {
  ptr p;
  size_t pitch;
  handle array;
  if (!strcmp(way, "alloc")) return DO(cuMemAlloc_v2, &p, bytes);
  if (!strcmp(way, "managed")) return DO(cuMemAllocManaged, &p, bytes, 1);
  if (!strcmp(way, "pitch")) return DO(cuMemAllocPitch_v2, &p, &pitch, 1 << 16, bytes >> 16, 4);
  if (!strcmp(way, "array")) {
    array_description four_floats = {4096, bytes / 4096 / 16, 0x20, 4};
    return DO(cuArrayCreate_v2, &array, &four_floats);
  }
  if (!strcmp(way, "create")) {
    memory_properties properties = {.type = 1, .location = 1};
    return DO(cuMemCreate, &p, bytes, &properties, 0);
  }
  if (!strcmp(way, "async")) return DO(cuMemAllocAsync, &p, bytes, NULL);
  if (!strcmp(way, "pool")) return take_from_pool(bytes);
  if (!strcmp(way, "graph")) return take_by_graph(bytes);
  printf("no such way: %s\n", way);
  exit(1);
}

/* Bytes that could be taken in steps: at most one step more than `cap`, since managed memory has no end of its own, and a
 * card that is asked for more than it has can hang. */
static size_t fill(const char *way, size_t cap, size_t step) {
  size_t taken = 0;
  int status = 0;
  while (taken <= cap && !(status = take(way, step))) taken += step;
  if (status && status != OUT_OF_MEMORY) {
    printf("%s: expected out of memory, not %d\n", way, status);
    exit(1);
  }
  return taken;
}

/* contexts may count; what is left beside them has to be given */
static int holds(size_t taken, size_t cap, size_t contexts) {
  if (taken > cap) {
    printf("the cap does not hold: stopped one step beyond it\n");
    return 1;
  }
  return taken + contexts + SLACK >= cap ? 0 : 1;
}

int fills(const char *way, size_t cap, size_t context) {
  open_context();
  size_t taken = fill(way, cap, 32 * MIB);
  printf("%s: %zu of %zu MiB\n", way, taken / MIB, cap / MIB);
  return holds(taken, cap, context);
}

/* Lets several processes begin at once, when each has its context: none has to make one in a full share. */
struct start {
  int ready[2], go[2];
};

/* Starts a process that tells by `told` what it could take, and keeps it until it is killed. `start` may be NULL. */
static pid_t filler(size_t cap, size_t step, struct start *start, int *told) {
  int out[2];
  if (pipe(out)) exit(1);
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    open_context();
    char begun = 0;
    if (start) {
      close(start->go[1]);
      if (write(start->ready[1], &begun, 1) != 1) _exit(1);
      close(start->ready[1]);
      if (read(start->go[0], &begun, 1) != 0) _exit(1);
    }
    size_t taken = fill("alloc", cap, step);
    if (write(out[1], &taken, sizeof taken) != sizeof taken) _exit(1);
    for (;;) pause();
  }
  close(out[1]);
  *told = out[0];
  return child;
}

static void end(pid_t child) {
  kill(child, SIGKILL);
  waitpid(child, NULL, 0);
}

int race(size_t cap, size_t context) {
  enum { PROCESSES = 8 };
  pid_t children[PROCESSES];
  int told[PROCESSES];
  struct start start;
  if (pipe(start.ready) || pipe(start.go)) exit(1);
  for (int i = 0; i < PROCESSES; i++) children[i] = filler(cap, 8 * MIB, &start, &told[i]);
  close(start.ready[1]);
  size_t sum = 0, one;
  int all = 1;
  char begun;
  /* it ends early where a process has no context */
  for (int i = 0; i < PROCESSES; i++) all &= read(start.ready[0], &begun, 1) == 1;
  close(start.ready[0]);
  close(start.go[0]);
  close(start.go[1]);
  for (int i = 0; i < PROCESSES; i++) {
    if (read(told[i], &one, sizeof one) == sizeof one) sum += one;
    else all = 0;
  }
  for (int i = 0; i < PROCESSES; i++) end(children[i]);
  printf("%d processes together: %zu of %zu MiB%s\n", PROCESSES, sum / MIB, cap / MIB, all ? "" : "; some failed");
  int holding = holds(sum, cap, PROCESSES * context);
  return all ? holding : 1;
}

int killed(size_t cap) {
  size_t before, after;
  int told;
  for (int life = 0; life < 2; life++) {
    pid_t child = filler(cap, 32 * MIB, NULL, &told);
    int complete = read(told, life ? &after : &before, sizeof before) == sizeof before;
    end(child);
    close(told);
    if (!complete) return 1;
  }
  printf("before %zu, after %zu of %zu MiB\n", before / MIB, after / MIB, cap / MIB);
  return before && before == after ? 0 : 1;
}

int info(size_t cap) {
  open_context();
  size_t left, total, of_device;
  MUST(cuMemGetInfo_v2, &left, &total);
  MUST(cuDeviceTotalMem_v2, &of_device, 0);
  printf("free %zu, total %zu, device %zu, cap %zu MiB\n", left / MIB, total / MIB, of_device / MIB, cap / MIB);
  return total == cap && of_device == cap && left <= cap ? 0 : 1;
}

/* Has `seen` look at the card, and says how many bytes count in the container at the moment. "look": both have to agree with
 * each other in what came since the look before; "tell": the difference is only told. */
static void look(const char *how, const char *what) {
  printf("%s\t%s\t%zu\n", how, what, counted());
  fflush(stdout);
  char go;
  if (read(0, &go, 1) != 1) exit(1);
}

int held(size_t cap) {
  open_context();
  look("context", "a context");
  spin_kernel();
  look("tell", "a module with one kernel");
  fill("alloc", cap, 32 * MIB);
  look("look", "all that it can take");
  return 0;
}

int sizes(void) {
  enum { PIECES = 64 };
  static const size_t EACH[] = {1, 513, 64 << 10, 1 << 20, (1 << 20) + 1, (1 << 20) + (10 << 10), 3 << 20, (33 << 20) + 1};
  ptr pieces[PIECES];
  char what[100];
  open_context();
  look("tell", "a context");
  for (size_t i = 0; i < sizeof EACH / sizeof *EACH; i++) {
    for (int n = 0; n < PIECES; n++) MUST(cuMemAlloc_v2, &pieces[n], EACH[i]);
    snprintf(what, sizeof what, "%d pieces of %zu bytes", PIECES, EACH[i]);
    look("look", what);
    for (int n = 0; n < PIECES; n++) MUST(cuMemFree_v2, pieces[n]);
    look("look", "gives them back");
  }
  return 0;
}

static void pass(int fd, const void *bytes, size_t length) {
  if (write(fd, bytes, length) != (ssize_t)length) exit(1);
}

static void receive(int fd, void *bytes, size_t length) {
  if (read(fd, bytes, length) != (ssize_t)length) {
    printf("the other process ended\n");
    exit(1);
  }
}

/* the process that opens what the other one has; tells each step's status */
static void open_other(int from, int to) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  ipc_handle shared;
  ptr p = 0;
  open_context();
  int status = 0;
  pass(to, &status, sizeof status);
  receive(from, &shared, sizeof shared);
  status = DO(cuIpcOpenMemHandle_v2, &p, shared, 1);
  pass(to, &status, sizeof status);
  receive(from, &shared, 1);
  status = DO(cuIpcCloseMemHandle, p);
  pass(to, &status, sizeof status);
  /* its context stays until the owner ends */
  if (read(from, &shared, 1) < 0) exit(1);
}

/* what the driver answers where the machine has no such sharing: CUDA_ERROR_OPERATING_SYSTEM, CUDA_ERROR_NOT_SUPPORTED */
static void allowed(int status, const char *name) {
  if (status == 304 || status == 801) {
    printf("this machine's driver refuses %s: %d\n", name, status);
    exit(NOT_RUN);
  }
  must(status, name);
}

int ipc(void) {
  int there[2], back[2], status;
  if (pipe(there) || pipe(back)) return 1;
  fflush(stdout);
  if (fork() == 0) {
    close(there[1]);
    open_other(there[0], back[1]);
    exit(0);
  }
  close(back[1]);
  open_context();
  receive(back[0], &status, sizeof status);
  look("tell", "two contexts");
  ptr p;
  ipc_handle shared;
  MUST(cuMemAlloc_v2, &p, 256 * MIB);
  allowed(DO(cuIpcGetMemHandle, &shared, p), "cuIpcGetMemHandle");
  pass(there[1], &shared, sizeof shared);
  receive(back[0], &status, sizeof status);
  allowed(status, "cuIpcOpenMemHandle");
  look("look", "256 MiB that two processes have open");
  pass(there[1], "c", 1);
  receive(back[0], &status, sizeof status);
  must(status, "cuIpcCloseMemHandle");
  look("look", "the other one closes it");
  MUST(cuMemFree_v2, p);
  look("look", "the owner frees it");
  return 0;
}

int export(void) {
  memory_properties properties = {.type = 1, .handles = 1, .location = 1};
  ptr object;
  int file = -1;
  open_context();
  look("tell", "a context");
  MUST(cuMemCreate, &object, 256 * MIB, &properties, 0);
  allowed(DO(cuMemExportToShareableHandle, &file, object, 1, 0), "cuMemExportToShareableHandle");
  look("look", "256 MiB that are exported");
  if (fcntl(file, F_GETFD) >= 0) close(file);
  MUST(cuMemRelease, object);
  look("look", "nobody holds it any more");
  return 0;
}

/* memory of the card that a program gets without allocating */
int local(void) {
  handle kernel;
  open_context();
  kernel = spin_kernel();
  must(launch(kernel, NULL, 0), "cuLaunchKernel");
  MUST(cuCtxSynchronize);
  look("tell", "a context that has run a kernel");
  MUST(cuCtxSetLimit, 0, 8192);
  must(launch(kernel, NULL, 0), "cuLaunchKernel");
  MUST(cuCtxSynchronize);
  look("tell", "8 KiB of stack for each thread");
  MUST(cuCtxSetLimit, 1, 64 * MIB);
  look("tell", "64 MiB for printf");
  MUST(cuCtxSetLimit, 2, 64 * MIB);
  look("tell", "64 MiB for malloc in kernels");
  return 0;
}
