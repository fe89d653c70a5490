/* A stand-in for NVIDIA's management library (libnvidia-ml.so.1): two cards, the second cut into two MIG instances of which
 * the second place is empty in between, and memory limits for control groups, which it appends to the file "<its own
 * path>.limits" as "<uuid> <group> <bytes>". Structures are those of NVIDIA's documentation. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6 };

typedef struct handle {
    const char *uuid, *name;
    unsigned long long mib;
    int card, instance; /* -1: it is a card */
} *device;

static struct handle all[] = {
    {"GPU-0", "Stand-in", 81920, 0, -1},
    {"GPU-1", "Stand-in", 81920, 1, -1},
    {"MIG-a", "Stand-in MIG 3g.40gb", 40448, 1, 0},
    {"MIG-b", "Stand-in MIG 1g.10gb", 9984, 1, 2},
};

int nvmlInit_v2(void) { return SUCCESS; }
int nvmlShutdown(void) { return SUCCESS; }

int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = 2;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, device *out) {
    if (index > 1)
        return INVALID_ARGUMENT;
    *out = &all[index];
    return SUCCESS;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, device *out) {
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (strcmp(all[i].uuid, uuid) == 0) {
            *out = &all[i];
            return SUCCESS;
        }
    return NOT_FOUND;
}

int nvmlDeviceGetUUID(device d, char *text, unsigned length) {
    snprintf(text, length, "%s", d->uuid);
    return SUCCESS;
}

int nvmlDeviceGetName(device d, char *text, unsigned length) {
    snprintf(text, length, "%s", d->name);
    return SUCCESS;
}

int nvmlSystemGetDriverVersion(char *text, unsigned length) {
    snprintf(text, length, "%s", "550.90.07");
    return SUCCESS;
}

int nvmlSystemGetCudaDriverVersion_v2(int *version) {
    *version = 12040;
    return SUCCESS;
}

int nvmlDeviceGetCudaComputeCapability(device d, int *major, int *minor) {
    *major = 8;
    *minor = 0;
    return d->instance < 0 ? SUCCESS : NOT_SUPPORTED;
}

int nvmlDeviceGetAttributes_v2(device d, unsigned *attributes) {
    /* unsigned multiprocessors, copy, decoder, encoder, jpeg, ofa, gpuSlices, computeSlices; unsigned long long memory */
    const unsigned of_3g[] = {42, 3, 2, 0, 0, 0, 3, 3}, of_1g[] = {14, 1, 0, 0, 0, 0, 1, 1};
    if (d->instance < 0)
        return NOT_SUPPORTED;
    memset(attributes, 0, 8 * sizeof *attributes + sizeof(unsigned long long));
    memcpy(attributes, d->instance == 0 ? of_3g : of_1g, sizeof of_3g);
    return SUCCESS;
}

/* as the library: these are asked of cards, not of instances */
int nvmlDeviceGetMinorNumber(device d, unsigned *minor) {
    *minor = d->card;
    return d->instance < 0 ? SUCCESS : INVALID_ARGUMENT;
}

int nvmlDeviceGetPciInfo_v3(device d, char *info) {
    if (d->instance >= 0)
        return INVALID_ARGUMENT;
    /* char busIdLegacy[16]; unsigned domain, bus, device, pciDeviceId, pciSubSystemId; char busId[32] */
    memset(info, 0, 16 + 5 * 4 + 32);
    sprintf(info + 36, "00000000:%02X:00.0", 0x3b + d->card);
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo_v2(device d, unsigned long long *info) {
    /* unsigned version; then total, reserved, free, used */
    info[1] = d->mib << 20;
    info[2] = 0;
    info[3] = d->mib << 20;
    info[4] = 0;
    return SUCCESS;
}

int nvmlDeviceGetMigMode(device d, unsigned *current, unsigned *pending) {
    *current = *pending = d->card == 1;
    return d->card == 1 ? SUCCESS : NOT_SUPPORTED;
}

int nvmlDeviceGetMaxMigDeviceCount(device d, unsigned *count) {
    *count = d->card == 1 ? 7 : 0;
    return SUCCESS;
}

int nvmlDeviceGetMigDeviceHandleByIndex(device d, unsigned place, device *out) {
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i].card == d->card && all[i].instance == (int)place) {
            *out = &all[i];
            return SUCCESS;
        }
    return NOT_FOUND;
}

int nvmlDeviceGetGpuInstanceId(device d, unsigned *id) {
    *id = d->instance + 1;
    return d->instance < 0 ? NOT_SUPPORTED : SUCCESS;
}

int nvmlDeviceGetComputeInstanceId(device d, unsigned *id) {
    *id = 0;
    return d->instance < 0 ? NOT_SUPPORTED : SUCCESS;
}

struct limits {
    const char *group;
    unsigned long long soft, hard, used;
};

int nvmlDeviceGetMemoryLimits_v1(device d, struct limits *limits) {
    if (d->instance >= 0 || d->card == 1)
        return NOT_SUPPORTED;
    limits->soft = limits->used = 0;
    limits->hard = ~0ULL;
    return SUCCESS;
}

int nvmlDeviceSetMemoryLimits_v1(device d, struct limits *limits) {
    Dl_info own;
    char path[4096];
    if (d->instance >= 0 || limits->soft != 0 || !dladdr((void *)nvmlDeviceSetMemoryLimits_v1, &own))
        return INVALID_ARGUMENT;
    snprintf(path, sizeof path, "%s.refuses", own.dli_fname);
    if (access(path, F_OK) == 0)
        return NO_PERMISSION;
    snprintf(path, sizeof path, "%s.limits", own.dli_fname);
    FILE *file = fopen(path, "a");
    if (!file)
        return NOT_SUPPORTED;
    fprintf(file, "%s %s %llu\n", d->uuid, limits->group, limits->hard);
    fclose(file);
    return SUCCESS;
}
