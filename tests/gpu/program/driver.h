/* NVIDIA's driver as this program uses it. Types and functions are declared here, so that a C compiler alone builds it; the
 * library is opened when the program runs. Layouts and numbers are those of cuda.h of CUDA 13. */
#ifndef DRIVER_H
#define DRIVER_H
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define MIB ((size_t)1 << 20)
/* what the driver may keep besides allocations, and the step that memory is asked for in */
#define SLACK (64 * MIB)

/* a check that this machine or driver does not allow; see check() in run.sh */
#define NOT_RUN 3
/* the driver does not initialise */
#define SHUT 4

#define OUT_OF_MEMORY 2
#define NOT_READY 600

typedef unsigned long long ptr;
typedef void *handle;
typedef struct { size_t width, height; unsigned format, channels; } array_description;
typedef struct { int type, handles, location, id; void *meta; unsigned char flags[8]; } memory_properties;
typedef struct { int type, handles, location, id; void *security; size_t most; unsigned short usage; unsigned char rest[54]; } pool_properties;
typedef struct { pool_properties pool; const void *access; size_t count, bytes; ptr memory; } allocation_node;
typedef struct { handle function; unsigned sizes[7]; void **parameters; void **extra; handle kernel, context; } kernel_node;
typedef struct { char bytes[64]; } ipc_handle;
/* CUdevResource is 144 bytes long; a single one is passed at a time */
typedef union { uint64_t words[64]; struct { int type; unsigned char padding[92]; unsigned count; } sm; } device_resource;

#define DRIVER_FUNCTIONS(X) \
  X(cuInit, (unsigned)) \
  X(cuDriverGetVersion, (int *)) \
  X(cuDeviceGetAttribute, (int *, int, int)) \
  X(cuDeviceTotalMem_v2, (size_t *, int)) \
  X(cuDevicePrimaryCtxRetain, (handle *, int)) \
  X(cuCtxCreate_v2, (handle *, unsigned, int)) \
  X(cuCtxSetCurrent, (handle)) \
  X(cuCtxSynchronize, (void)) \
  X(cuCtxSetLimit, (int, size_t)) \
  X(cuMemGetInfo_v2, (size_t *, size_t *)) \
  X(cuMemAlloc_v2, (ptr *, size_t)) \
  X(cuMemAllocManaged, (ptr *, size_t, unsigned)) \
  X(cuMemAllocPitch_v2, (ptr *, size_t *, size_t, size_t, unsigned)) \
  X(cuMemFree_v2, (ptr)) \
  X(cuMemcpyDtoH_v2, (void *, ptr, size_t)) \
  X(cuArrayCreate_v2, (handle *, const array_description *)) \
  X(cuMemCreate, (ptr *, size_t, const memory_properties *, ptr)) \
  X(cuMemRelease, (ptr)) \
  X(cuMemExportToShareableHandle, (void *, ptr, int, ptr)) \
  X(cuIpcGetMemHandle, (ipc_handle *, ptr)) \
  X(cuIpcOpenMemHandle_v2, (ptr *, ipc_handle, unsigned)) \
  X(cuIpcCloseMemHandle, (ptr)) \
  X(cuMemAllocAsync, (ptr *, size_t, handle)) \
  X(cuMemAllocFromPoolAsync, (ptr *, size_t, handle, handle)) \
  X(cuMemPoolCreate, (handle *, const pool_properties *)) \
  X(cuGraphCreate, (handle *, unsigned)) \
  X(cuGraphDestroy, (handle)) \
  X(cuGraphAddKernelNode_v2, (handle *, handle, const handle *, size_t, const kernel_node *)) \
  X(cuGraphAddMemAllocNode, (handle *, handle, const handle *, size_t, allocation_node *)) \
  X(cuGraphInstantiateWithFlags, (handle *, handle, ptr)) \
  X(cuGraphExecDestroy, (handle)) \
  X(cuGraphLaunch, (handle, handle)) \
  X(cuStreamCreate, (handle *, unsigned)) \
  X(cuStreamDestroy_v2, (handle)) \
  X(cuStreamSynchronize, (handle)) \
  X(cuStreamQuery, (handle)) \
  X(cuStreamBeginCapture_v2, (handle, int)) \
  X(cuStreamEndCapture, (handle, handle *)) \
  X(cuStreamIsCapturing, (handle, int *)) \
  X(cuThreadExchangeStreamCaptureMode, (int *)) \
  X(cuEventCreate, (handle *, unsigned)) \
  X(cuEventRecord, (handle, handle)) \
  X(cuEventQuery, (handle)) \
  X(cuEventSynchronize, (handle)) \
  X(cuEventElapsedTime, (float *, handle, handle)) \
  X(cuModuleLoadData, (handle *, const void *)) \
  X(cuModuleGetFunction, (handle *, handle, const char *)) \
  X(cuLaunchKernel, (handle, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, handle, void **, void **)) \
  X(cuDeviceGetDevResource, (int, device_resource *, int)) \
  X(cuDevSmResourceSplitByCount, (device_resource *, unsigned *, const device_resource *, device_resource *, unsigned, unsigned)) \
  X(cuDevResourceGenerateDesc, (handle *, device_resource *, unsigned)) \
  X(cuGreenCtxCreate, (handle *, handle, int, unsigned)) \
  X(cuGreenCtxStreamCreate, (handle *, handle, unsigned, int))

#define DECLARE_FUNCTION(name, arguments) extern int(*p_##name) arguments;
DRIVER_FUNCTIONS(DECLARE_FUNCTION)

/* ends the program as NOT_RUN where the driver has no such function */
void *available(void *function, const char *name);
/* ends the program as failed where a call of the driver did not succeed */
void must(int status, const char *name);

/* a call whose status is looked at, and one that has to succeed */
#define DO(name, ...) (available((void *)p_##name, #name), p_##name(__VA_ARGS__))
#define MUST(name, ...) must(DO(name, ##__VA_ARGS__), #name)

/* opens the library and initialises it */
void open_driver(void);
/* also makes the device's primary context current */
handle open_context(void);
/* a kernel that is busy for as many nanoseconds as its argument says, in the current context */
handle spin_kernel(void);
/* puts it on a stream; the status */
int launch(handle kernel, handle stream, uint64_t nanoseconds);
/* bytes that are in use as the driver's own query tells, which the limiter answers */
size_t counted(void);

uint64_t now(void);
void pause_for(uint64_t nanoseconds);

#define MS 1000000ull
#define SECOND 1000000000ull
#endif
