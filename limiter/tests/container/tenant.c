/* A tenant's program, as C programs use the driver. Each argument is one command, "name:number:number..."; each prints its
 * name and the driver's answer. How it reaches the driver is chosen when it is compiled: -DDIRECT links with it, -DDLSYM
 * opens it, and otherwise it asks cuGetProcAddress as the CUDA runtime does (-DPER_THREAD for per-thread default streams). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

typedef unsigned long long ptr;
typedef void *handle;
typedef struct { size_t w, h; unsigned format, channels; } array_desc;
typedef struct { size_t w, h, d; unsigned format, channels, flags; } array3d_desc;
typedef struct { int type, handles, location, id; void *meta; unsigned char flags[8]; } mem_prop;
typedef struct { int type, handles, location, id; void *security; size_t max; unsigned short usage; unsigned char r[54]; } pool_props;
typedef struct { pool_props pool; const void *access; size_t count, bytes; ptr dptr; } alloc_node;
typedef struct { int type, r0[3]; union { long long pad[29]; alloc_node alloc; } u; long long r2; } node_params;
typedef struct { handle f; unsigned sizes[7]; void **params; void **extra; } kernel_node;
typedef struct { unsigned sizes[7]; handle stream; void *attrs; unsigned count; } launch_config;
typedef struct { int type; union { int fd; void *p[2]; } h; unsigned long long size; unsigned flags, r[16]; } external_desc;
typedef struct { char bytes[64]; } ipc_handle;

/* name for cuGetProcAddress, exported name, version, result and arguments */
#define FUNCTIONS(X) \
  X(cuInit, cuInit, 2000, (unsigned)) \
  X(cuDevicePrimaryCtxRetain, cuDevicePrimaryCtxRetain, 7000, (handle *, int)) \
  X(cuDevicePrimaryCtxReset, cuDevicePrimaryCtxReset_v2, 11000, (int)) \
  X(cuCtxCreate, cuCtxCreate_v2, 3020, (handle *, unsigned, int)) \
  X(cuCtxDestroy, cuCtxDestroy_v2, 4000, (handle)) \
  X(cuCtxSetCurrent, cuCtxSetCurrent, 4000, (handle)) \
  X(cuCtxSynchronize, cuCtxSynchronize, 2000, (void)) \
  X(cuCtxSetLimit, cuCtxSetLimit, 3010, (int, size_t)) \
  X(cuMemGetInfo, cuMemGetInfo_v2, 3020, (size_t *, size_t *)) \
  X(cuDeviceTotalMem, cuDeviceTotalMem_v2, 3020, (size_t *, int)) \
  X(cuMemAlloc, cuMemAlloc_v2, 3020, (ptr *, size_t)) \
  X(cuMemAllocManaged, cuMemAllocManaged, 6000, (ptr *, size_t, unsigned)) \
  X(cuMemAllocPitch, cuMemAllocPitch_v2, 3020, (ptr *, size_t *, size_t, size_t, unsigned)) \
  X(cuMemHostAlloc, cuMemHostAlloc, 2020, (void **, size_t, unsigned)) \
  X(cuMemFree, cuMemFree_v2, 3020, (ptr)) \
  X(cuArrayCreate, cuArrayCreate_v2, 3020, (handle *, const array_desc *)) \
  X(cuArray3DCreate, cuArray3DCreate_v2, 3020, (handle *, const array3d_desc *)) \
  X(cuArrayDestroy, cuArrayDestroy, 2000, (handle)) \
  X(cuMipmappedArrayCreate, cuMipmappedArrayCreate, 5000, (handle *, const array3d_desc *, unsigned)) \
  X(cuMipmappedArrayDestroy, cuMipmappedArrayDestroy, 5000, (handle)) \
  X(cuMemCreate, cuMemCreate, 10020, (ptr *, size_t, const mem_prop *, ptr)) \
  X(cuMemRelease, cuMemRelease, 10020, (ptr)) \
  X(cuMemAddressReserve, cuMemAddressReserve, 10020, (ptr *, size_t, size_t, ptr, ptr)) \
  X(cuMemMap, cuMemMap, 10020, (ptr, size_t, size_t, ptr, ptr)) \
  X(cuMemUnmap, cuMemUnmap, 10020, (ptr, size_t)) \
  X(cuMemRetainAllocationHandle, cuMemRetainAllocationHandle, 11000, (ptr *, void *)) \
  X(cuMemExportToShareableHandle, cuMemExportToShareableHandle, 10020, (void *, ptr, int, ptr)) \
  X(cuMemImportFromShareableHandle, cuMemImportFromShareableHandle, 10020, (ptr *, void *, int)) \
  X(cuIpcGetMemHandle, cuIpcGetMemHandle, 4010, (ipc_handle *, ptr)) \
  X(cuIpcOpenMemHandle, cuIpcOpenMemHandle_v2, 11000, (ptr *, ipc_handle, unsigned)) \
  X(cuIpcCloseMemHandle, cuIpcCloseMemHandle, 4010, (ptr)) \
  X(cuImportExternalMemory, cuImportExternalMemory, 10000, (handle *, const external_desc *)) \
  X(cuDestroyExternalMemory, cuDestroyExternalMemory, 10000, (handle)) \
  X(cuMemAllocAsync, cuMemAllocAsync, 11020, (ptr *, size_t, handle)) \
  X(cuMemAllocFromPoolAsync, cuMemAllocFromPoolAsync, 11020, (ptr *, size_t, handle, handle)) \
  X(cuMemFreeAsync, cuMemFreeAsync, 11020, (ptr, handle)) \
  X(cuDeviceGetDefaultMemPool, cuDeviceGetDefaultMemPool, 11020, (handle *, int)) \
  X(cuMemPoolCreate, cuMemPoolCreate, 11020, (handle *, const pool_props *)) \
  X(cuMemPoolDestroy, cuMemPoolDestroy, 11020, (handle)) \
  X(cuMemPoolTrimTo, cuMemPoolTrimTo, 11020, (handle, size_t)) \
  X(cuMemPoolSetAttribute, cuMemPoolSetAttribute, 11020, (handle, int, void *)) \
  X(cuGraphCreate, cuGraphCreate, 10000, (handle *, unsigned)) \
  X(cuGraphAddKernelNode, cuGraphAddKernelNode_v2, 12000, (handle *, handle, const handle *, size_t, const kernel_node *)) \
  X(cuGraphAddMemAllocNode, cuGraphAddMemAllocNode, 11040, (handle *, handle, const handle *, size_t, alloc_node *)) \
  X(cuGraphAddNode, cuGraphAddNode_v2, 12030, (handle *, handle, const handle *, const void *, size_t, node_params *)) \
  X(cuGraphInstantiateWithFlags, cuGraphInstantiateWithFlags, 11040, (handle *, handle, ptr)) \
  X(cuGraphLaunch, cuGraphLaunch, 10000, (handle, handle)) \
  X(cuDeviceGraphMemTrim, cuDeviceGraphMemTrim, 11040, (int)) \
  X(cuStreamCreate, cuStreamCreate, 2000, (handle *, unsigned)) \
  X(cuStreamDestroy, cuStreamDestroy_v2, 4000, (handle)) \
  X(cuStreamSynchronize, cuStreamSynchronize, 2000, (handle)) \
  X(cuStreamBeginCapture, cuStreamBeginCapture_v2, 10010, (handle, int)) \
  X(cuStreamEndCapture, cuStreamEndCapture, 10000, (handle, handle *)) \
  X(cuStreamBeginCaptureToGraph, cuStreamBeginCaptureToGraph, 12030, (handle, handle, const handle *, const void *, size_t, int)) \
  X(cuStreamBeginRecaptureToGraph, cuStreamBeginRecaptureToGraph, 12090, (handle, int, handle, const void *, const void *)) \
  X(cuStreamQuery, cuStreamQuery, 2000, (handle)) \
  X(cuEventCreate, cuEventCreate, 2000, (handle *, unsigned)) \
  X(cuEventRecord, cuEventRecord, 2000, (handle, handle)) \
  X(cuEventQuery, cuEventQuery, 2000, (handle)) \
  X(cuEventDestroy, cuEventDestroy_v2, 4000, (handle)) \
  X(cuGreenCtxCreate, cuGreenCtxCreate, 12040, (handle *, void *, int, unsigned)) \
  X(cuGreenCtxStreamCreate, cuGreenCtxStreamCreate, 12040, (handle *, handle, unsigned, int)) \
  X(cuMemcpyDtoH, cuMemcpyDtoH_v2, 3020, (void *, ptr, size_t)) \
  X(cuLaunchHostFunc, cuLaunchHostFunc, 10000, (handle, void (*)(void *), void *)) \
  X(cuModuleLoadData, cuModuleLoadData, 2000, (handle *, const void *)) \
  X(cuModuleGetFunction, cuModuleGetFunction, 2000, (handle *, handle, const char *)) \
  X(cuLaunchKernel, cuLaunchKernel, 4000, (handle, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, handle, void **, void **)) \
  X(cuLaunchKernelEx, cuLaunchKernelEx, 11060, (const launch_config *, handle, void **, void **)) \
  X(cuLaunchCooperativeKernel, cuLaunchCooperativeKernel, 9000, (handle, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, handle, void **))

#define DECLARE(name, exported, version, arguments) extern int exported arguments; static int (*p_##name) arguments;
FUNCTIONS(DECLARE)

static void *must(void *p, const char *what) {
  if (!p) { printf("missing %s\n", what); exit(3); }
  return p;
}

static void find(void) {
#if defined(DIRECT)
#define FIND(name, exported, version, arguments) p_##name = exported;
#else
  void *library = must(dlopen("libcuda.so.1", RTLD_NOW), "libcuda.so.1");
#if defined(DLSYM)
#define FIND(name, exported, version, arguments) *(void **)&p_##name = must(dlsym(library, #exported), #exported);
#else
  int (*address)(const char *, void **, int, unsigned long long, int *);
  *(void **)&address = must(dlsym(library, "cuGetProcAddress_v2"), "cuGetProcAddress_v2");
#if defined(PER_THREAD)
#define FLAGS 2
#else
#define FLAGS 0
#endif
#define FIND(name, exported, version, arguments) \
  { void *p = 0; int found; address(#name, &p, 12090, FLAGS, &found); *(void **)&p_##name = must(p, #name); }
#endif
#endif
  FUNCTIONS(FIND)
}

static handle context, stream, function, pool, array, executable, external;
static ptr last[64], object, range;
static size_t range_bytes;
static int count, descriptor;

static void start(void) {
  find();
  int status = p_cuInit(0);
  if (status) { printf("cuInit %d\n", status); exit(2); }
  p_cuDevicePrimaryCtxRetain(&context, 0);
  p_cuCtxSetCurrent(context);
  handle module;
  p_cuModuleLoadData(&module, "");
  p_cuModuleGetFunction(&function, module, "spin");
  p_cuDeviceGetDefaultMemPool(&pool, 0);
}

static int keep(int status, ptr p) {
  if (!status && count < 64) last[count++] = p;
  return status;
}

#define IS(word) (!strcmp(name, word))
#include "paced.h"

/* launches for so long on the clock, and says how much of the card's time that was and how long it took */
static int spin(const char *how, unsigned long long ns, unsigned long long until) {
  void *params[] = {&ns};
  struct timespec t;
  unsigned long long launched = 0, each = 1;
  handle graph_exec = 0, s = stream;
  if (!strcmp(how, "graph")) {
    handle graph, node;
    kernel_node k = {function, {1, 1, 1, 1, 1, 1, 0}, params, 0};
    p_cuGraphCreate(&graph, 0);
    for (each = 0; each < 20; each++) p_cuGraphAddKernelNode(&node, graph, 0, 0, &k);
    p_cuGraphInstantiateWithFlags(&graph_exec, graph, 0);
  }
  if (!strcmp(how, "green") || !strcmp(how, "other")) s = elsewhere(how);
  handle more[2] = {0, 0};
  if (!strcmp(how, "streams")) { p_cuStreamCreate(&more[0], 0); p_cuStreamCreate(&more[1], 0); }
  clock_gettime(CLOCK_MONOTONIC, &t);
  unsigned long long began = t.tv_sec * 1000000000ull + t.tv_nsec, now = began;
  if (!strcmp(how, "later")) {
    struct timespec until = {t.tv_sec + 8, t.tv_nsec};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, 0);
  }
  launch_config config = {{1, 1, 1, 1, 1, 1, 0}, s, 0, 0};
  while (now - began < until) {
    int status;
    if (graph_exec) status = p_cuGraphLaunch(graph_exec, s);
    else if (!strcmp(how, "ex")) status = p_cuLaunchKernelEx(&config, function, params, 0);
    else if (!strcmp(how, "cooperative")) status = p_cuLaunchCooperativeKernel(function, 1, 1, 1, 1, 1, 1, 0, s, params);
    else status = p_cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, more[0] ? more[launched & 1] : s, params, 0);
    if (status) return status;
    launched++;
    if (!strcmp(how, "synced")) p_cuStreamSynchronize(s);
    clock_gettime(CLOCK_MONOTONIC, &t);
    now = t.tv_sec * 1000000000ull + t.tv_nsec;
  }
  p_cuCtxSynchronize();
  clock_gettime(CLOCK_MONOTONIC, &t);
  now = t.tv_sec * 1000000000ull + t.tv_nsec;
  printf("ran %llu %llu\n", launched * each * ns, now - began);
  return 0;
}

/* takes as many pieces as it gets, and gives some back in between */
static unsigned long long greedy(size_t piece, int rounds) {
  unsigned long long got = 0;
  ptr *all = calloc(1 << 20, sizeof(ptr));
  for (int round = 0; round < rounds; round++) {
    unsigned long long n = 0;
    while (n < 200 && !p_cuMemAlloc(&all[n], piece * (1 + n % 3))) n++;
    while (n) p_cuMemFree(all[--n]);
  }
  while (got < 1 << 20 && !p_cuMemAlloc(&all[got], piece)) got++;
  return got;
}

static void *thread(void *argument) {
  p_cuCtxSetCurrent(context);
  *(unsigned long long *)argument = greedy(1 << 20, 20);
  return 0;
}

static int run(char *command) {
  unsigned long long a[6] = {0};
  char *words[8] = {0}, *text = strdup(command), *name = strtok(text, ":");
  for (int i = 0; i < 6 && (words[i] = strtok(0, ":")); i++) a[i] = strtoull(words[i], 0, 0);
  ptr p = 0;
  size_t x = 0, y = 0;
  handle h = 0, g = 0;
  int known = paced(name, words, a);
  if (known != -2) return known;
  if (IS("alloc")) { int s = p_cuMemAlloc(&p, a[0]); return keep(s, p); }
  if (IS("managed")) { int s = p_cuMemAllocManaged(&p, a[0], 1); return keep(s, p); }
  if (IS("pitch")) { int s = p_cuMemAllocPitch(&p, &x, a[0], a[1], 4); return keep(s, p); }
  if (IS("host")) { void *v; return p_cuMemHostAlloc(&v, a[0], 0); }
  if (IS("free")) return count ? p_cuMemFree(last[--count]) : -1;
  if (IS("array")) { array_desc d = {a[0], a[1], a[2], a[3]}; return p_cuArrayCreate(&array, &d); }
  if (IS("array3d")) { array3d_desc d = {a[0], a[1], a[2], a[3], a[4], a[5]}; return p_cuArray3DCreate(&array, &d); }
  if (IS("mipmapped")) { array3d_desc d = {a[0], a[1], 0, a[2], a[3], 0}; return p_cuMipmappedArrayCreate(&array, &d, a[4]); }
  if (IS("freearray")) return p_cuArrayDestroy(array);
  if (IS("create")) { mem_prop q = {1, 0, a[1] ? 3 : 1, 0, 0, {0}}; return p_cuMemCreate(&object, a[0], &q, 0); }
  if (IS("release")) return p_cuMemRelease(object);
  if (IS("map")) { range_bytes = a[0]; p_cuMemAddressReserve(&range, a[0], 0, 0, 0); return p_cuMemMap(range, a[0], 0, object, 0); }
  if (IS("unmap")) return p_cuMemUnmap(range, range_bytes);
  if (IS("retain")) return p_cuMemRetainAllocationHandle(&object, (void *)(uintptr_t)range);
  if (IS("export")) { int s = p_cuMemExportToShareableHandle(&descriptor, object, 1, 0); printf("descriptor %d:%d\n", getpid(), descriptor); return s; }
  if (IS("closefd")) return close(descriptor);
  if (IS("import")) { /* what another process has exported, as if it had sent the descriptor */
    char path[64];
    snprintf(path, sizeof path, "/proc/%llu/fd/%llu", a[0], a[1]);
    int fd = open(path, O_RDONLY), s = p_cuMemImportFromShareableHandle(&object, (void *)(uintptr_t)fd, 1);
    close(fd);
    return s;
  }
  if (IS("ipcget")) {
    union { ipc_handle handle; ptr words[8]; } i;
    int s = p_cuIpcGetMemHandle(&i.handle, last[count - 1]);
    printf("handle %llu:%llu:%llu\n", i.words[0], i.words[1], i.words[2]);
    return s;
  }
  if (IS("ipcopen")) {
    union { ipc_handle handle; ptr words[8]; } i = {{{0}}};
    for (int k = 0; k < 3; k++) i.words[k] = a[k];
    int s = p_cuIpcOpenMemHandle(&p, i.handle, 1);
    return keep(s, p);
  }
  if (IS("ipcclose")) return p_cuIpcCloseMemHandle(last[--count]);
  if (IS("external")) { external_desc d = {1, {0}, a[0], 0, {0}}; return p_cuImportExternalMemory(&external, &d); }
  if (IS("freeexternal")) return p_cuDestroyExternalMemory(external);
  if (IS("heap")) return p_cuCtxSetLimit(2, a[0]);
  if (IS("async")) { int s = p_cuMemAllocAsync(&p, a[0], stream); return keep(s, p); }
  if (IS("frompool")) { int s = p_cuMemAllocFromPoolAsync(&p, a[0], pool, stream); return keep(s, p); }
  if (IS("freeasync")) return p_cuMemFreeAsync(last[--count], stream);
  if (IS("pool")) { pool_props q = {1, 0, 1, 0, 0, 0, 0, {0}}; return p_cuMemPoolCreate(&pool, &q); }
  if (IS("hostpool")) { pool_props q = {1, 0, 2, 0, 0, 0, 0, {0}}; return p_cuMemPoolCreate(&pool, &q); }
  if (IS("dropool")) return p_cuMemPoolDestroy(pool);
  if (IS("trim")) return p_cuMemPoolTrimTo(pool, 0);
  if (IS("keep")) { unsigned long long all = -1; return p_cuMemPoolSetAttribute(pool, 4, &all); }
  if (IS("sync")) return p_cuStreamSynchronize(stream);
  if (IS("graph") || IS("node")) {
    int s = p_cuGraphCreate(&g, 0);
    if (s) return s;
    alloc_node n = {{1, 0, 1, 0, 0, 0, 0, {0}}, 0, 0, a[0], 0};
    node_params q = {10, {0}, {{0}}, 0};
    q.u.alloc = n;
    s = IS("graph") ? p_cuGraphAddMemAllocNode(&h, g, 0, 0, &n) : p_cuGraphAddNode(&h, g, 0, 0, 0, &q);
    return s ? s : p_cuGraphInstantiateWithFlags(&executable, g, 0);
  }
  if (IS("capture")) {
    handle s;
    p_cuStreamCreate(&s, 1);
    p_cuStreamBeginCapture(s, 2);
    int status = p_cuMemAllocAsync(&p, a[0], s);
    p_cuStreamEndCapture(s, &g);
    p_cuStreamDestroy(s);
    return status ? status : p_cuGraphInstantiateWithFlags(&executable, g, 0);
  }
  if (IS("launch")) return p_cuGraphLaunch(executable, stream);
  if (IS("graphtrim")) return p_cuDeviceGraphMemTrim(0);
  if (IS("context")) { int s = p_cuCtxCreate(&context, 0, 0); return s; }
  if (IS("destroy")) return p_cuCtxDestroy(context);
  if (IS("primary")) { int s = p_cuDevicePrimaryCtxRetain(&context, 0); return s ? s : p_cuCtxSetCurrent(context); }
  if (IS("touch")) { int fd = open64("/run/kerf/state", O_RDONLY); return fd < 0 ? fd : close(fd); }
  if (IS("reset")) return p_cuDevicePrimaryCtxReset(0);
  if (IS("info")) { int s = p_cuMemGetInfo(&x, &y); printf("info %zu of %zu\n", x, y); return s; }
  if (IS("total")) { int s = p_cuDeviceTotalMem(&x, 0); printf("total %zu\n", x); return s; }
  if (IS("nvml")) {
    void *nvml = must(dlopen("libnvidia-ml.so.1", RTLD_NOW), "libnvidia-ml.so.1");
    int (*init)(void) = dlsym(nvml, "nvmlInit_v2");
    int (*device)(unsigned, handle *) = dlsym(nvml, "nvmlDeviceGetHandleByIndex_v2");
    int (*memory)(handle, void *) = dlsym(nvml, "nvmlDeviceGetMemoryInfo");
    int (*memory2)(handle, void *) = dlsym(nvml, "nvmlDeviceGetMemoryInfo_v2");
    struct { unsigned long long total, free, used; } m;
    struct { unsigned version; unsigned long long total, reserved, free, used; } m2 = {0x02000028, 0, 0, 0, 0};
    init();
    device(0, &h);
    int s = memory(h, &m);
    if (!s) s = memory2(h, &m2);
    printf("nvml %llu of %llu, %llu of %llu\n", m.used, m.total, m2.used, m2.total);
    return s;
  }
  if (IS("spin")) return spin(words[0], a[1], a[2] * 1000000ull);
  if (IS("greedy")) { printf("got %llu\n", greedy(a[0], a[1])); return 0; }
  if (IS("threads")) {
    pthread_t t[8];
    unsigned long long got[8], sum = 0;
    for (int i = 0; i < 8; i++) pthread_create(&t[i], 0, thread, &got[i]);
    for (int i = 0; i < 8; i++) { pthread_join(t[i], 0); sum += got[i]; }
    printf("got %llu\n", sum);
    return 0;
  }
  if (IS("hold")) { printf("ready\n"); fflush(stdout); char c; return read(0, &c, 1) < 0; }
  if (IS("fork")) {
    /* a child of a process that has used the driver: the driver refuses it, and the parent goes on */
    fflush(stdout);
    pid_t child = fork();
    if (!child) { printf("child %d\n", p_cuMemAlloc(&p, 1)); fflush(stdout); _exit(0); }
    int status;
    waitpid(child, &status, 0);
    return status;
  }
  return -1;
}

int main(int argc, char **argv) {
  int from = 1;
  if (argc > 1 && !strncmp(argv[1], "forks:", 6)) {
    /* children before the driver was used: each is a process of its own */
    from = 2;
    for (int i = atoi(argv[1] + 6); i > 1 && fork(); i--) {}
  }
  alarm(120); /* a test that goes wrong ends */
  if (argc > 1 && !strcmp(argv[1], "nvml")) return run("nvml"); /* a program that only asks */
  start();
  for (int i = from; i < argc; i++) {
    if (!strcmp(argv[i], "become")) { /* another program, which has nothing to do with the driver */
      fflush(stdout);
      execl("/bin/sh", "sh", "-c", "echo ready; exec cat", (char *)0);
    }
    if (!strcmp(argv[i], "exec")) { fflush(stdout); argv[i] = argv[0]; execv("/proc/self/exe", argv + i); }
    int status = run(argv[i]);
    printf("%s %d\n", argv[i], status);
  }
  fflush(stdout);
  return 0;
}
