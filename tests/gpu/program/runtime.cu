// A program of CUDA's runtime, as nvcc makes it, in a container with a share.
#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <unistd.h>

static const size_t MIB = 1 << 20;
static const size_t SLACK = 64 * MIB;

#define MUST(call)                                         \
  do {                                                     \
    cudaError_t status_ = (call);                          \
    if (status_ != cudaSuccess) {                          \
      printf("%s: %s\n", #call, cudaGetErrorName(status_)); \
      exit(1);                                             \
    }                                                      \
  } while (0)

static double seconds() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

// by the card's clock of nanoseconds: the multiprocessors' are slow on an idle card
__device__ static unsigned long long globaltimer() {
  unsigned long long t;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(t));
  return t;
}
__global__ void spin(unsigned long long nanoseconds) {
  unsigned long long began = globaltimer();
  while (globaltimer() - began < nanoseconds) {
  }
}

// up to the cap, and one step more at most
static int memory(size_t cap) {
  size_t left, total;
  MUST(cudaFree(nullptr));
  MUST(cudaMemGetInfo(&left, &total));
  for (int way = 0; way < 2; way++) {
    size_t taken = 0, step = 32 * MIB, count = 0;
    static void *pieces[1 << 14];
    cudaError_t status = cudaSuccess;
    while (taken <= cap && count < sizeof pieces / sizeof *pieces) {
      status = way ? cudaMallocAsync(&pieces[count], step, 0) : cudaMalloc(&pieces[count], step);
      if (status != cudaSuccess) break;
      taken += step;
      count++;
    }
    cudaGetLastError();
    printf("%s: %zu of %zu MiB, %zu were free\n", way ? "cudaMallocAsync" : "cudaMalloc", taken / MIB, cap / MIB, left / MIB);
    if (taken > cap || taken + SLACK < left || status != cudaErrorMemoryAllocation) return 1;
    while (count) MUST(way ? cudaFreeAsync(pieces[--count], 0) : cudaFree(pieces[--count]));
    MUST(cudaDeviceSynchronize());
  }
  printf("total %zu MiB\n", total / MIB);
  return total == cap ? 0 : 1;
}

static int share(double percent) {
  const int batch = 5;
  cudaStream_t stream;
  cudaEvent_t a, b;
  float least = 1e9f, milliseconds;
  MUST(cudaStreamCreate(&stream));
  MUST(cudaEventCreate(&a));
  MUST(cudaEventCreate(&b));
  for (int round = 0; round < 4; round++) {
    usleep(300000);
    MUST(cudaEventRecord(a, stream));
    for (int i = 0; i < batch; i++) spin<<<1, 32, 0, stream>>>(300000);
    MUST(cudaEventRecord(b, stream));
    MUST(cudaEventSynchronize(b));
    MUST(cudaEventElapsedTime(&milliseconds, a, b));
    if (milliseconds < least) least = milliseconds;
  }
  // the first second uses up what an idle container has saved
  double began = seconds();
  while (seconds() - began < 1) spin<<<1, 32, 0, stream>>>(300000);
  MUST(cudaStreamSynchronize(stream));
  long launches = 0;
  for (began = seconds(); seconds() - began < 5; launches++) spin<<<1, 32, 0, stream>>>(300000);
  MUST(cudaStreamSynchronize(stream));
  MUST(cudaGetLastError());
  double got = 100 * launches * (least / batch / 1000) / (seconds() - began);
  printf("%.1f of %.0f %% (%ld launches of %.3f ms)\n", got, percent, launches, least / batch);
  return got >= percent - 3 && got <= percent + 3 ? 0 : 1;
}

int main(int count, char **words) {
  if (count == 3 && !strcmp(words[1], "memory")) return memory(strtoull(words[2], nullptr, 10) * MIB);
  if (count == 3 && !strcmp(words[1], "share")) return share(strtod(words[2], nullptr));
  fprintf(stderr, "usage: runtime memory MIB | share PERCENT\n");
  return 2;
}
