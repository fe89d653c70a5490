// Checks of the limiter against NVIDIA's driver; see README.md. Each subcommand prints figures and ends with 0 where they are
// as they should be. The driver's interface is reached as the runtime reaches it, through cuGetProcAddress, and directly.
#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <signal.h>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

static const size_t MIB = 1 << 20;
// what the driver may keep for a context besides allocations, and the step that memory is asked for in
static const size_t SLACK = 64 * MIB;

#define MUST(call)                                                                 \
  do {                                                                             \
    int status_ = (int)(call);                                                     \
    if (status_ != 0) {                                                            \
      printf("%s: %d\n", #call, status_);                                          \
      exit(1);                                                                     \
    }                                                                              \
  } while (0)

static uint64_t now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000ull + t.tv_nsec;
}

// busy for so many ticks of the card's clock
__global__ void spin(long long ticks) {
  long long began = clock64();
  while (clock64() - began < ticks) {
  }
}

static void context() {
  MUST(cuInit(0));
  MUST(cudaFree(0));
}

static CUresult take(const std::string &way, size_t bytes) {
  static CUmemoryPool pool = nullptr;
  CUdeviceptr p;
  size_t pitch;
  if (way == "alloc") return cuMemAlloc(&p, bytes);
  if (way == "managed") return cuMemAllocManaged(&p, bytes, CU_MEM_ATTACH_GLOBAL);
  if (way == "pitch") return cuMemAllocPitch(&p, &pitch, 1 << 16, bytes >> 16, 4);
  if (way == "array") {
    CUarray array;
    CUDA_ARRAY_DESCRIPTOR d = {};
    d.Width = 4096;
    d.Height = bytes / 4096 / 16;
    d.Format = CU_AD_FORMAT_FLOAT;
    d.NumChannels = 4;
    return cuArrayCreate(&array, &d);
  }
  if (way == "create") {
    CUmemAllocationProp prop = {};
    prop.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    prop.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    CUmemGenericAllocationHandle handle;
    return cuMemCreate(&handle, bytes, &prop, 0);
  }
  if (way == "async") return cuMemAllocAsync(&p, bytes, 0);
  if (way == "pool") {
    if (!pool) {
      CUmemPoolProps props = {};
      props.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
      props.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
      MUST(cuMemPoolCreate(&pool, &props));
    }
    return cuMemAllocFromPoolAsync(&p, bytes, pool, 0);
  }
  // a graph that keeps its memory
  CUgraph graph;
  CUgraphNode node;
  CUgraphExec executable;
  MUST(cuGraphCreate(&graph, 0));
  CUDA_MEM_ALLOC_NODE_PARAMS params = {};
  params.poolProps.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
  params.poolProps.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  params.bytesize = bytes;
  CUresult status = cuGraphAddMemAllocNode(&node, graph, nullptr, 0, &params);
  if (status) return status;
  status = cuGraphInstantiateWithFlags(&executable, graph, 0);
  return status ? status : cuGraphLaunch(executable, 0);
}

// bytes that could be taken in steps
static size_t fill(const std::string &way, size_t step) {
  size_t taken = 0;
  CUresult status;
  while ((status = take(way, step)) == CUDA_SUCCESS) taken += step;
  if (status != CUDA_ERROR_OUT_OF_MEMORY) {
    printf("expected out of memory, not %d\n", (int)status);
    exit(1);
  }
  return taken;
}

static int memory(const std::string &way, size_t cap) {
  context();
  size_t taken = fill(way, 32 * MIB);
  printf("%s: %zu of %zu MiB\n", way.c_str(), taken / MIB, cap / MIB);
  return taken <= cap && taken + SLACK >= cap ? 0 : 1;
}

static int race(size_t cap) {
  int out[2];
  MUST(pipe(out));
  for (int i = 0; i < 8; i++) {
    if (fork() == 0) {
      context();
      size_t taken = fill("alloc", 8 * MIB);
      if (write(out[1], &taken, sizeof taken) < 0) _exit(1);
      pause();  // holds it until all have told
    }
  }
  size_t sum = 0, one;
  for (int i = 0; i < 8 && read(out[0], &one, sizeof one) == sizeof one; i++) sum += one;
  signal(SIGTERM, SIG_IGN);
  kill(0, SIGTERM);
  printf("together: %zu of %zu MiB\n", sum / MIB, cap / MIB);
  return sum <= cap && sum + SLACK >= cap ? 0 : 1;
}

static int killed(size_t cap) {
  int out[2];
  MUST(pipe(out));
  pid_t child = fork();
  if (child == 0) {
    context();
    size_t taken = fill("alloc", 32 * MIB);
    if (write(out[1], &taken, sizeof taken) < 0) _exit(1);
    pause();
  }
  size_t before = 0;
  if (read(out[0], &before, sizeof before) != sizeof before) return 1;
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  context();
  size_t after = fill("alloc", 32 * MIB);
  printf("before %zu, after %zu of %zu MiB\n", before / MIB, after / MIB, cap / MIB);
  return before == after ? 0 : 1;
}

static int info(size_t cap) {
  context();
  size_t free_bytes, total, device_total;
  MUST(cuMemGetInfo(&free_bytes, &total));
  MUST(cuDeviceTotalMem(&device_total, 0));
  printf("free %zu, total %zu, device %zu, cap %zu MiB\n", free_bytes / MIB, total / MIB, device_total / MIB, cap / MIB);
  return total == cap && device_total == cap && free_bytes <= cap ? 0 : 1;
}

// how much more the card itself has in use than was asked for: told, for the rules of memory/size.rs
static int account(size_t) {
  context();
  for (size_t bytes : {(size_t)1, (size_t)513, MIB, MIB + 1, 3 * MIB, 33 * MIB}) {
    size_t seen = 0, total;
    size_t before, after;
    const int count = 64;
    MUST(cuMemGetInfo(&before, &total));
    for (int i = 0; i < count; i++) MUST(take("alloc", bytes));
    MUST(cuMemGetInfo(&after, &total));
    seen = before - after;
    printf("%d times %zu bytes: counted %zu bytes each\n", count, bytes, seen / count);
    if (seen < bytes * count) return 1;
  }
  return 0;
}

static long long ticks(double milliseconds) {
  int khz;
  MUST(cudaDeviceGetAttribute(&khz, cudaDevAttrClockRate, 0));
  return (long long)(khz * milliseconds);
}

static int share(const std::string &how, double percent) {
  context();
  int processors;
  MUST(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, 0));
  long long each = ticks(how == "large" ? 30 : 0.1);
  cudaStream_t stream;
  cudaGraphExec_t executable = nullptr;
  MUST(cudaStreamCreate(&stream));
  if (how == "graph") {
    cudaGraph_t graph;
    MUST(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    for (int i = 0; i < 20; i++) spin<<<processors, 256, 0, stream>>>(each);
    MUST(cudaStreamEndCapture(stream, &graph));
    MUST(cudaGraphInstantiateWithFlags(&executable, graph, 0));
  }
  // how long one launch takes alone: the clock's nominal rate is not the real one. The first ones are within the burst
  cudaEvent_t a, b;
  MUST(cudaEventCreate(&a));
  MUST(cudaEventCreate(&b));
  float milliseconds = 0;
  for (int warm = 0; warm < 2; warm++) {
    sleep(1);
    MUST(cudaEventRecord(a, stream));
    if (executable) MUST(cudaGraphLaunch(executable, stream));
    else spin<<<processors, 256, 0, stream>>>(each);
    MUST(cudaEventRecord(b, stream));
    MUST(cudaEventSynchronize(b));
    MUST(cudaEventElapsedTime(&milliseconds, a, b));
  }
  sleep(1);
  uint64_t began = now(), launches = 0;
  while (now() - began < 10000000000ull) {
    if (executable) MUST(cudaGraphLaunch(executable, stream));
    else spin<<<processors, 256, 0, stream>>>(each);
    launches++;
  }
  MUST(cudaStreamSynchronize(stream));
  double got = 100.0 * launches * milliseconds * 1e6 / (double)(now() - began);
  printf("%s: %.1f of %.0f %% (%llu launches of %.3f ms)\n", how.c_str(), got, percent, (unsigned long long)launches, milliseconds);
  return got >= percent - 3 && got <= percent + 3 ? 0 : 1;
}

static int overhead(const std::string &what) {
  context();
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  MUST(cudaStreamCreate(&stream));
  MUST(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  spin<<<1, 1, 0, stream>>>(0);
  MUST(cudaStreamEndCapture(stream, &graph));
  MUST(cudaGraphInstantiateWithFlags(&executable, graph, 0));
  const int batches = 200, calls = 100;
  uint64_t best = ~0ull;
  for (int batch = 0; batch < batches; batch++) {
    uint64_t began = now();
    for (int i = 0; i < calls; i++) {
      CUdeviceptr p;
      if (what == "launch") spin<<<1, 1, 0, stream>>>(0);
      else if (what == "graphlaunch") MUST(cudaGraphLaunch(executable, stream));
      else {
        MUST(cuMemAlloc(&p, 4 * MIB));
        MUST(cuMemFree(p));
      }
    }
    uint64_t each = (now() - began) / calls;
    MUST(cudaStreamSynchronize(stream));
    best = each < best ? each : best;
  }
  printf("%llu\n", (unsigned long long)best);
  return 0;
}

int main(int argc, char **argv) {
  std::string what = argc > 1 ? argv[1] : "", how = argc > 2 ? argv[2] : "";
  size_t last = argc > 2 ? strtoull(argv[argc - 1], nullptr, 10) : 0;
  if (what == "memory") return memory(how, last * MIB);
  if (what == "race") return race(last * MIB);
  if (what == "killed") return killed(last * MIB);
  if (what == "info") return info(last * MIB);
  if (what == "account") return account(last * MIB);
  if (what == "share") return share(how, (double)last);
  if (what == "overhead") return overhead(how);
  fprintf(stderr, "usage: program memory WAY MIB | race MIB | killed MIB | info MIB | account MIB | share HOW PERCENT | overhead WHAT\n");
  return 2;
}
