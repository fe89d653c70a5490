/* A stand-in for NVIDIA's management library (libnvidia-ml.so.1): two cards, the second cut into two MIG instances of which
 * the second place is empty in between, and memory limits for control groups, which it appends to the file "<its own
 * path>.limits" as "<uuid> <group> <bytes>". Structures are those of NVIDIA's documentation.
 *
 * Other files beside it, read at each call, make it another machine:
 *   .answers  lines "<function> <uuid, index or *> <error>": what that function answers instead
 *   .says     lines "<function> <uuid or *> <value>": what that function says instead; of text, "-" is the empty one
 *   .events   one line "<uuid or -> <xid>": the next event; the file is then removed
 *   .recut    the second card is cut into one other instance
 *   .single   there is no second card
 * It appends a line to ".inits" for each initialization. A function that the library is not to have is renamed by the
 * compiler (-D<function>=<other name>). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, TIMEOUT = 10 };

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
    {"MIG-c", "Stand-in MIG 7g.80gb", 80896, 1, 1},
};

/* the card of an event that names none */
static struct handle nobody = {"-", "", 0, 0, -1};

/* the path of a file beside the library */
static char *beside(char *path, size_t size, const char *end) {
    Dl_info own;
    if (!dladdr((void *)all, &own))
        own.dli_fname = "";
    snprintf(path, size, "%s%s", own.dli_fname, end);
    return path;
}

static int there(const char *end) {
    char path[4096];
    return access(beside(path, sizeof path, end), F_OK) == 0;
}

/* what the function answers for the card of this name, if the file says so */
static int said(const char *function, const char *name) {
    char path[4096], of[128], card[128];
    int code, found = SUCCESS;
    FILE *file = fopen(beside(path, sizeof path, ".answers"), "r");
    if (!file)
        return SUCCESS;
    while (found == SUCCESS && fscanf(file, "%127s %127s %d", of, card, &code) == 3)
        if (strcmp(of, function) == 0 && (strcmp(card, "*") == 0 || strcmp(card, name) == 0))
            found = code;
    fclose(file);
    return found;
}

/* what the function says of the card of this name, if the file has it */
static int value(const char *function, const char *name, char *text, size_t size) {
    char path[4096], of[128], card[128], is[128];
    int found = 0;
    FILE *file = fopen(beside(path, sizeof path, ".says"), "r");
    if (!file)
        return 0;
    while (!found && fscanf(file, "%127s %127s %127s", of, card, is) == 3)
        if (strcmp(of, function) == 0 && strcmp(card, name) == 0) {
            snprintf(text, size, "%s", strcmp(is, "-") == 0 ? "" : is);
            found = 1;
        }
    fclose(file);
    return found;
}

static unsigned number(const char *function, const char *name, unsigned usual) {
    char text[128];
    return value(function, name, text, sizeof text) ? (unsigned)strtoul(text, NULL, 10) : usual;
}

#define ANSWER(name)                                                                                                         \
    do {                                                                                                                     \
        int code = said(__func__, name);                                                                                     \
        if (code != SUCCESS)                                                                                                 \
            return code;                                                                                                     \
    } while (0)

int nvmlInit_v2(void) {
    char path[4096];
    FILE *file = fopen(beside(path, sizeof path, ".inits"), "a");
    if (file) {
        fputs("init\n", file);
        fclose(file);
    }
    ANSWER("*");
    return SUCCESS;
}

int nvmlShutdown(void) { return SUCCESS; }

int nvmlDeviceGetCount_v2(unsigned *count) {
    ANSWER("*");
    *count = number(__func__, "*", there(".single") ? 1 : 2);
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, device *out) {
    char name[16];
    snprintf(name, sizeof name, "%u", index);
    ANSWER(name);
    if (index > 1)
        return INVALID_ARGUMENT;
    *out = &all[index];
    return SUCCESS;
}

int nvmlDeviceGetHandleByPciBusId_v2(const char *address, device *out) {
    ANSWER(address);
    for (int card = 0; card < 2; card++) {
        char own[32];
        snprintf(own, sizeof own, "0000:%02x:00.0", 0x3b + card);
        if (strcasecmp(own, address) == 0) {
            *out = &all[card];
            return SUCCESS;
        }
    }
    return NOT_FOUND;
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
    ANSWER(d->uuid);
    if (d == &nobody)
        return NOT_FOUND;
    if (!value(__func__, d->uuid, text, length))
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
    ANSWER(d->uuid);
    *minor = number(__func__, d->uuid, d->card);
    return d->instance < 0 ? SUCCESS : INVALID_ARGUMENT;
}

int nvmlDeviceGetPciInfo_v3(device d, char *info) {
    ANSWER(d->uuid);
    if (d->instance >= 0)
        return INVALID_ARGUMENT;
    /* char busIdLegacy[16]; unsigned domain, bus, device, pciDeviceId, pciSubSystemId; char busId[32] */
    memset(info, 0, 16 + 5 * 4 + 32);
    if (!value(__func__, d->uuid, info + 36, 32))
        sprintf(info + 36, "00000000:%02X:00.0", 0x3b + d->card);
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo_v2(device d, unsigned long long *info) {
    ANSWER(d->uuid);
    /* unsigned version; then total, reserved, free, used */
    info[1] = d->mib << 20;
    info[2] = 0;
    info[3] = d->mib << 20;
    info[4] = 0;
    return SUCCESS;
}

/* as drivers before 510 have it, too */
int nvmlDeviceGetMemoryInfo(device d, unsigned long long *info) {
    ANSWER(d->uuid);
    /* total, free, used */
    info[0] = d->mib << 20;
    info[1] = (d->mib << 20) - 4096;
    info[2] = 4096;
    return SUCCESS;
}

struct process {
    unsigned pid;
    unsigned long long used;
    unsigned gpu_instance, compute_instance;
};

struct old_process {
    unsigned pid;
    unsigned long long used;
};

/* each card has one process; that of the second does not say what it holds */
#define PROCESSES(kind)                                                                                                      \
    ANSWER(d->uuid);                                                                                                         \
    if (*count < 1 || !list) {                                                                                               \
        *count = 1;                                                                                                          \
        return INSUFFICIENT_SIZE;                                                                                            \
    }                                                                                                                        \
    memset(list, 0, sizeof(kind));                                                                                           \
    *count = 1;                                                                                                              \
    list->pid = 40 + d->card;                                                                                                \
    list->used = d->card == 0 ? 8192 : ~0ULL;                                                                                \
    return SUCCESS

int nvmlDeviceGetComputeRunningProcesses_v3(device d, unsigned *count, struct process *list) { PROCESSES(struct process); }
int nvmlDeviceGetComputeRunningProcesses_v2(device d, unsigned *count, struct process *list) { PROCESSES(struct process); }
int nvmlDeviceGetComputeRunningProcesses(device d, unsigned *count, struct old_process *list) {
    PROCESSES(struct old_process);
}

struct event {
    device card;
    unsigned long long type, data;
    unsigned gpu_instance, compute_instance;
};

enum { DOUBLE_BIT = 2, XID = 8 };

int nvmlEventSetCreate(void **set) {
    ANSWER("*");
    *set = all;
    return SUCCESS;
}

int nvmlEventSetFree(void *set) { return set ? SUCCESS : INVALID_ARGUMENT; }

int nvmlDeviceGetSupportedEventTypes(device d, unsigned long long *types) {
    int code = said(__func__, d->uuid);
    *types = code == SUCCESS ? DOUBLE_BIT | XID : 0;
    /* a card that has no events says so and succeeds */
    return code == NOT_SUPPORTED ? SUCCESS : code;
}

int nvmlDeviceRegisterEvents(device d, unsigned long long types, void *set) {
    ANSWER(d->uuid);
    return types && set ? SUCCESS : INVALID_ARGUMENT;
}

int nvmlEventSetWait_v2(void *set, struct event *event, unsigned millis) {
    char path[4096], uuid[128];
    unsigned long long xid;
    beside(path, sizeof path, ".events");
    for (unsigned waited = 0; waited < millis; waited += 5) {
        ANSWER("*");
        FILE *file = fopen(path, "r");
        if (file) {
            int read = fscanf(file, "%127s %llu", uuid, &xid);
            fclose(file);
            remove(path);
            if (read == 2) {
                memset(event, 0, sizeof *event);
                event->type = XID;
                event->data = xid;
                if (nvmlDeviceGetHandleByUUID(uuid, &event->card) != SUCCESS)
                    event->card = &nobody;
                return SUCCESS;
            }
        }
        usleep(5000);
    }
    return TIMEOUT;
}

int nvmlDeviceGetMigMode(device d, unsigned *current, unsigned *pending) {
    ANSWER(d->uuid);
    *current = *pending = d->card == 1;
    return d->card == 1 ? SUCCESS : NOT_SUPPORTED;
}

int nvmlDeviceGetMaxMigDeviceCount(device d, unsigned *count) {
    *count = number(__func__, d->uuid, d->card == 1 ? 7 : 0);
    return SUCCESS;
}

int nvmlDeviceGetMigDeviceHandleByIndex(device d, unsigned place, device *out) {
    ANSWER(d->uuid);
    int second_cut = there(".recut");
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i].card == d->card && all[i].instance == (int)place && (all[i].instance == 1) == second_cut) {
            *out = &all[i];
            return SUCCESS;
        }
    return NOT_FOUND;
}

int nvmlDeviceGetGpuInstanceId(device d, unsigned *id) {
    ANSWER(d->uuid);
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
    char path[4096];
    if (d->instance >= 0 || limits->soft != 0)
        return INVALID_ARGUMENT;
    if (there(".refuses"))
        return NO_PERMISSION;
    FILE *file = fopen(beside(path, sizeof path, ".limits"), "a");
    if (!file)
        return NOT_SUPPORTED;
    fprintf(file, "%s %s %llu\n", d->uuid, limits->group, limits->hard);
    fclose(file);
    return SUCCESS;
}
