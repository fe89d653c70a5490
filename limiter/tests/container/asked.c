/* Asks CUDA's runtime, the library that the argument names, how many GPUs there are, and prints its answer. Compiled with
 * -DOBSERVER it is a library that is put before all others and prints each of the driver's functions that the runtime asks for:
 *     <name> <version of CUDA, 0 for dlsym> <flags> <status> <the function's own name> <file it is in> */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#ifdef OBSERVER
typedef int (*get)(const char *, void **, int, uint64_t);
typedef int (*get_v2)(const char *, void **, int, uint64_t, int *);
static get next;
static get_v2 next_v2;

static int observed(const char *, void **, int, uint64_t);
static int observed_v2(const char *, void **, int, uint64_t, int *);

/* prints what was found, and puts the observer in the place of a function that finds others */
static void see(const char *name, int version, uint64_t flags, int status, void **found) {
    Dl_info info;
    const char *file = "-", *symbol = "-";
    if (!status && *found && dladdr(*found, &info) && info.dli_sname) {
        symbol = info.dli_sname;
        file = strrchr(info.dli_fname, '/') ? strrchr(info.dli_fname, '/') + 1 : info.dli_fname;
    }
    if (*name) printf("%s %d %d %d %s %s\n", name, version, (int)flags, status, symbol, file);
    if (!strcmp(symbol, "cuGetProcAddress")) {
        *(void **)&next = *found;
        *found = observed;
    }
    if (!strcmp(symbol, "cuGetProcAddress_v2")) {
        *(void **)&next_v2 = *found;
        *found = observed_v2;
    }
}

static int observed(const char *name, void **found, int version, uint64_t flags) {
    int status = next(name, found, version, flags);
    see(name, version, flags, status, found);
    return status;
}

static int observed_v2(const char *name, void **found, int version, uint64_t flags, int *which) {
    int status = next_v2(name, found, version, flags, which);
    see(name, version, flags, status, found);
    return status;
}

void *dlsym(void *handle, const char *name) {
    static void *(*behind)(void *, const char *);
    if (!behind) {
        /* the C library's own, which finds the one behind this library */
        *(void **)&behind = dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.2.5");
        *(void **)&behind = behind(RTLD_NEXT, "dlsym");
    }
    /* with -O2 a jump: RTLD_NEXT counts from the caller */
    if (strncmp(name, "cu", 2) || !strncmp(name, "cuda", 4)) return behind(handle, name);
    void *found = behind(handle, name);
    see(name, 0, 0, !found, &found);
    return found;
}
#else
int main(int argc, char **argv) {
    void *runtime = argc == 2 ? dlopen(argv[1], RTLD_NOW) : NULL;
    if (!runtime) {
        puts(dlerror());
        return 1;
    }
    int (*count)(int *) = dlsym(runtime, "cudaGetDeviceCount"), devices = 0;
    const char *(*name)(int) = dlsym(runtime, "cudaGetErrorName");
    int status = count(&devices);
    printf("count %d %s %d\n", status, name(status), devices);
    return 0;
}
#endif
