/* A CUDA program, as far as the card's memory goes: asks how much there is, takes it piece by piece until the driver has
 * no more, says what it saw, and with "hold" keeps it. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef unsigned long long pointer;
int cuInit(unsigned flags);
int cuDeviceGet(int *device, int ordinal);
int cuDeviceTotalMem_v2(size_t *bytes, int device);
int cuCtxCreate_v2(void **context, unsigned flags, int device);
int cuMemGetInfo_v2(size_t *free, size_t *total);
int cuMemAlloc_v2(pointer *address, size_t bytes);

enum { MIB = 1 << 20, PIECE = 64 * MIB };

static int failed(const char *call, int status) {
    if (status != 0)
        printf("%s: error %d\n", call, status);
    return status != 0;
}

int main(int argc, char **argv) {
    int device, status;
    size_t total, left, shown, taken = 0;
    void *context;
    pointer address;
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (failed("cuInit", cuInit(0)) || failed("cuDeviceGet", cuDeviceGet(&device, 0)) ||
        failed("cuDeviceTotalMem", cuDeviceTotalMem_v2(&total, device)) ||
        failed("cuCtxCreate", cuCtxCreate_v2(&context, 0, device)) ||
        failed("cuMemGetInfo", cuMemGetInfo_v2(&left, &shown)))
        return 1;
    printf("total %zu MiB\nshown %zu MiB\n", total / MIB, shown / MIB);
    while ((status = cuMemAlloc_v2(&address, PIECE)) == 0)
        taken += PIECE;
    printf("taken %zu MiB\nthen error %d\n", taken / MIB, status);
    while (argc > 1 && strcmp(argv[1], "hold") == 0)
        pause();
    return 0;
}
