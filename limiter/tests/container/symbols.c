/* Which function a program gets for each of the driver's names, read from standard input: of the library by `dlsym`, and by
 * `cuGetProcAddress` for every version of CUDA and both default streams. Prints, where it changes with the version,
 *     <name> <version, 0 for dlsym> <flags> <the function's own name> <file it is in>
 * and before that what `cuInit` and `nvmlInit` answer. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static void print(const char *name, int version, int flags, void *function) {
    Dl_info info;
    const char *file = "-", *symbol = "-";
    if (function && dladdr(function, &info) && info.dli_sname) {
        symbol = info.dli_sname;
        file = strrchr(info.dli_fname, '/') ? strrchr(info.dli_fname, '/') + 1 : info.dli_fname;
    }
    printf("%s %d %d %s %s\n", name, version, flags, symbol, file);
}

int main(void) {
    void *cuda = dlopen("libcuda.so.1", RTLD_NOW), *nvml = dlopen("libnvidia-ml.so.1", RTLD_NOW);
    if (!cuda || !nvml) {
        puts(dlerror());
        return 1;
    }
    int (*init)(unsigned) = dlsym(cuda, "cuInit"), (*init_nvml)(void) = dlsym(nvml, "nvmlInit_v2");
    printf("init %d %d\n", init(0), init_nvml());
    int (*get)(const char *, void **, int, uint64_t) = dlsym(cuda, "cuGetProcAddress");
    int (*get2)(const char *, void **, int, uint64_t, int *) = dlsym(cuda, "cuGetProcAddress_v2");
    char name[256];
    while (scanf("%255s", name) == 1) {
        print(name, 0, 0, dlsym(strncmp(name, "nvml", 4) ? cuda : nvml, name));
        /* 1: the legacy default stream, 2: one for each thread */
        for (int flags = 1; flags <= 2; flags++) {
            void *last = NULL;
            for (int version = 2000; version <= 14000; version += 10) {
                void *function = NULL;
                int status, result = get2 ? get2(name, &function, version, flags, &status) : get(name, &function, version, flags);
                if (result != 0)
                    function = NULL;
                if (function != last)
                    print(name, version, flags, function);
                last = function;
            }
        }
    }
    return 0;
}
