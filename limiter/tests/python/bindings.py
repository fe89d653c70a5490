"""NVIDIA's cuda-bindings: the driver's functions themselves. Prints a line for each thing that it saw; the argument is the cap in
bytes, of which nothing is used yet."""

import sys

from cuda.bindings import driver

MIB = 1 << 20
CAP = int(sys.argv[1])


def ok(answer):
    status, *values = answer
    if status != driver.CUresult.CUDA_SUCCESS:
        raise SystemExit(f"{status!r}")
    return values[0] if len(values) == 1 else values


def say(what, answer):
    print(what, int(answer[0]), answer[0].name)
    return answer[1] if len(answer) > 1 else None


ok(driver.cuInit(0))
device = ok(driver.cuDeviceGet(0))
context = ok(driver.cuDevicePrimaryCtxRetain(device))
ok(driver.cuCtxSetCurrent(context))
print("total", ok(driver.cuDeviceTotalMem(device)), "of", ok(driver.cuMemGetInfo()))

# memory: to the byte, by each way
say("cuMemAlloc", driver.cuMemAlloc(CAP + 1))
pointer = say("cuMemAlloc", driver.cuMemAlloc(CAP))
say("cuMemAlloc", driver.cuMemAlloc(1))
ok(driver.cuMemFree(pointer))
attach = driver.CUmemAttach_flags.CU_MEM_ATTACH_GLOBAL.value
say("cuMemAllocManaged", driver.cuMemAllocManaged(CAP + 1, attach))
ok(driver.cuMemFree(say("cuMemAllocManaged", driver.cuMemAllocManaged(CAP, attach))))
stream = ok(driver.cuStreamCreate(driver.CUstream_flags.CU_STREAM_NON_BLOCKING.value))
say("cuMemAllocAsync", driver.cuMemAllocAsync(CAP + 1, stream))
pointer = say("cuMemAllocAsync", driver.cuMemAllocAsync(CAP // 2, stream))
ok(driver.cuMemFreeAsync(pointer, stream))
ok(driver.cuStreamSynchronize(stream))
properties = driver.CUmemAllocationProp()
properties.type = driver.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
properties.location.type = driver.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
granularity = ok(
    driver.cuMemGetAllocationGranularity(
        properties, driver.CUmemAllocationGranularity_flags.CU_MEM_ALLOC_GRANULARITY_MINIMUM
    )
)
say("cuMemCreate", driver.cuMemCreate(CAP + granularity, properties, 0))
ok(driver.cuMemRelease(say("cuMemCreate", driver.cuMemCreate(CAP, properties, 0))))

# a kernel by a module and by a library, between events
image = b"not looked at\0"
module = ok(driver.cuModuleLoadData(image))
function = ok(driver.cuModuleGetFunction(module, b"kernel"))
library = ok(driver.cuLibraryLoadData(image, [], [], 0, [], [], 0))
kernel = ok(driver.cuLibraryGetKernel(library, b"kernel"))
start, end = (ok(driver.cuEventCreate(0)) for _ in range(2))
ok(driver.cuEventRecord(start, stream))
for launched in function, ok(driver.cuKernelGetFunction(kernel)):
    say("cuLaunchKernel", driver.cuLaunchKernel(launched, 1, 1, 1, 32, 1, 1, 0, stream, 0, 0))
configuration = driver.CUlaunchConfig()
configuration.gridDimX = configuration.gridDimY = configuration.gridDimZ = 1
configuration.blockDimX, configuration.blockDimY, configuration.blockDimZ = 32, 1, 1
configuration.hStream = stream
say("cuLaunchKernelEx", driver.cuLaunchKernelEx(configuration, function, 0, 0))
ok(driver.cuEventRecord(end, stream))
ok(driver.cuEventSynchronize(end))
print("elapsed", ok(driver.cuEventElapsedTime(start, end)) > 0)

# a graph: captured with memory of its own, launched twice
mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_GLOBAL
ok(driver.cuStreamBeginCapture(stream, mode))
pointer = ok(driver.cuMemAllocAsync(64 * MIB, stream))
say("captured", driver.cuLaunchKernel(function, 1, 1, 1, 32, 1, 1, 0, stream, 0, 0))
ok(driver.cuMemFreeAsync(pointer, stream))
graph = ok(driver.cuStreamEndCapture(stream))
executable = say("cuGraphInstantiate", driver.cuGraphInstantiate(graph, 0))
for _ in range(2):
    say("cuGraphLaunch", driver.cuGraphLaunch(executable, stream))
ok(driver.cuStreamSynchronize(stream))
print("the graph has", CAP - ok(driver.cuMemGetInfo())[0])
# it is idle, so that its memory is given back for others
say("after the graph", driver.cuMemAlloc(CAP))
