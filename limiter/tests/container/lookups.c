/* Less usual ways in which programs and libraries look for the driver's functions. The first argument is the way; then an
 * allocation of each number of bytes, which prints the driver's answer. Compiled with -DLIBRARY it is a library that a program
 * of a way loads: its own functions come after the limiter's. -DSTUB: a driver that itself loads the real one (as WSL's does).
 * -DSECOND: another file with a function of the driver's. -DTOOL: a library that is put before the limiter and passes calls on.
 * -DPAST: one that gets past it. -DAUDIT: a library for LD_AUDIT that lets the loader find another one in the limiter's place.
 * -DVARIABLES: a program, or with -DLIBRARY a library for one that has -DFILLED, that keeps the driver's functions in variables
 * of the driver's names. -DHIDDEN: which other libraries do not see. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned long long ptr;
typedef int (*init_function)(unsigned);
typedef int (*retain_function)(void **, int);
typedef int (*set_function)(void *);
typedef int (*alloc_function)(ptr *, size_t);
typedef void *(*look_function)(const char *);

#if defined(STUB)
/* the real driver's file */
static void *real(const char *name) {
    return dlsym(dlopen(getenv("REAL_DRIVER"), RTLD_NOW | RTLD_LOCAL), name);
}
#define FORWARD(name, parameters, arguments) \
    int name parameters { return ((int (*) parameters)real(#name)) arguments; }
FORWARD(cuInit, (unsigned flags), (flags))
FORWARD(cuDevicePrimaryCtxRetain, (void **context, int device), (context, device))
FORWARD(cuCtxSetCurrent, (void *context), (context))
FORWARD(cuCtxGetCurrent, (void **context), (context))
FORWARD(cuCtxGetDevice, (int *device), (device))
FORWARD(cuDeviceGetCount, (int *count), (count))
FORWARD(cuDeviceGetUuid_v2, (void *uuid, int device), (uuid, device))
FORWARD(cuMemAlloc_v2, (ptr *pointer, size_t bytes), (pointer, bytes))
/* a later version of a function, and functions in a table */
int cuMemAlloc_v3(ptr *pointer, size_t bytes) { return ((alloc_function)real("cuMemAlloc_v2"))(pointer, bytes); }
int cuGetProcAddress_v2(const char *name, void **found, int version, unsigned long long flags, int *status) {
    *found = cuMemAlloc_v3;
    return 0;
}
int cuGetExportTable(const void **table, const void *id) {
    static void *functions[1];
    functions[0] = real("cuMemAlloc_v2");
    *table = functions;
    return 0;
}
#elif defined(PAST)
void *dlsym(void *library, const char *name) {
    static void *(*real)(void *, const char *);
    if (!real) *(void **)&real = dlvsym(dlopen("libc.so.6", RTLD_NOW), "dlsym", "GLIBC_2.34");
    return real(library, name);
}
#elif defined(AUDIT)
unsigned la_version(unsigned version) { return version; }
char *la_objsearch(const char *name, unsigned long *library, unsigned how) {
    return strstr(name, "libkerf_limiter") ? "libm.so.6" : (char *)name;
}
#elif defined(TOOL)
int cuMemAlloc_v2(ptr *pointer, size_t bytes) {
    int status = ((alloc_function)dlsym(RTLD_NEXT, "cuMemAlloc_v2"))(pointer, bytes);
    printf("traced %d\n", status);
    return status;
}
#elif defined(SECOND)
int cuMemAlloc_v2(ptr *pointer, size_t bytes) {
    puts("second file");
    return 0;
}
#elif defined(OWN)
/* a program's own function, which passes the call on */
int cuInit(unsigned flags) { return ((init_function)dlsym(dlopen("libcuda.so.1", RTLD_NOW), "cuInit"))(flags); }
#elif defined(LIBRARY) && !defined(VARIABLES)
void *look_next(const char *name) { return dlsym(RTLD_NEXT, name); }
void *look_default(const char *name) { return dlsym(RTLD_DEFAULT, name); }
void *look_opened(const char *name) { return dlsym(dlopen("libcuda.so.1", RTLD_NOW), name); }
#elif defined(FILLED)
void fill(init_function *, retain_function *, set_function *, alloc_function *);
#elif defined(VARIABLES)
/* as loaders do that keep the driver's functions under the driver's names */
#if defined(HIDDEN)
#define SEEN __attribute__((visibility("hidden")))
#else
#define SEEN
#endif
SEEN init_function cuInit;
SEEN retain_function cuDevicePrimaryCtxRetain;
SEEN set_function cuCtxSetCurrent;
SEEN alloc_function cuMemAlloc_v2;
void fill(init_function *init, retain_function *retain, set_function *set, alloc_function *alloc) {
    void *driver = dlopen("libcuda.so.1", RTLD_NOW);
    *(void **)&cuInit = dlsym(driver, "cuInit");
    *(void **)&cuDevicePrimaryCtxRetain = dlsym(driver, "cuDevicePrimaryCtxRetain");
    *(void **)&cuCtxSetCurrent = dlsym(driver, "cuCtxSetCurrent");
    *(void **)&cuMemAlloc_v2 = dlsym(driver, "cuMemAlloc_v2");
    *init = cuInit;
    *retain = cuDevicePrimaryCtxRetain;
    *set = cuCtxSetCurrent;
    *alloc = cuMemAlloc_v2;
}
#endif

#if !defined(STUB) && !defined(LIBRARY) && !defined(TOOL) && !defined(PAST) && !defined(AUDIT) && !defined(SECOND)
#if defined(WEAK)
extern int cuInit(unsigned) __attribute__((weak));
extern int cuMemAlloc_v2(ptr *, size_t) __attribute__((weak));
#endif
static void *opened;
static void *from_opened(const char *name) { return dlsym(opened, name); }
static void *(*other_dlsym)(void *, const char *);
static void *from_other(const char *name) { return other_dlsym(opened, name); }
static void *from_default(const char *name) { return dlsym(RTLD_DEFAULT, name); }

static void *must(void *found, const char *what) {
    if (!found) {
        printf("missing %s\n", what);
        exit(3);
    }
    return found;
}

static void say(const char *when, look_function look, const char *name) {
    printf("%s %s %s\n", when, name, look(name) ? "found" : "missing");
}

int main(int argc, char **argv) {
    const char *way = argv[1];
    look_function look = from_opened;
#define IS(word) (!strcmp(way, word))
    if (IS("default")) {
        say("before", from_default, "cuMemAlloc_v2");
        say("before", from_default, "cuCtxCreate_v4");
        opened = must(dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL), "libcuda.so.1");
        say("after", from_default, "cuMemAlloc_v2");
        say("after", from_default, "cuCtxCreate_v4");
        look = from_default;
#if defined(BEHIND)
    } else if (IS("next")) {
        extern void *look_next(const char *);
        look = look_next;
#endif
#if defined(OWN)
    } else if (IS("own")) {
        int own = from_default("cuInit") == (void *)cuInit;
        printf("before cuInit %s\n", own ? "own" : "other");
        opened = must(dlopen("libcuda.so.1", RTLD_NOW), "libcuda.so.1");
#endif
    } else if (IS("plugin")) {
        void *library = must(dlopen(argv[2], RTLD_NOW | RTLD_LOCAL), argv[2]);
        *(void **)&look = must(dlsym(library, "look_next"), "look_next");
        argv++;
        argc--;
    } else if (IS("path")) {
        opened = must(dlopen(argv[2], RTLD_NOW), argv[2]);
        argv++;
        argc--;
    } else if (IS("dlmopen")) {
        opened = must(dlmopen(LM_ID_NEWLM, "libcuda.so.1", RTLD_NOW), "libcuda.so.1");
    } else if (IS("namespace") || IS("deepbind")) {
        /* a library that looks for itself: in a namespace of its own, or in its own libraries first */
        void *library = IS("namespace") ? dlmopen(LM_ID_NEWLM, argv[2], RTLD_NOW) : dlopen(argv[2], RTLD_NOW | RTLD_DEEPBIND);
        *(void **)&look = must(dlsym(must(library, argv[2]), "look_opened"), "look_opened");
        argv++;
        argc--;
    } else if (IS("dlvsym")) {
        void *(*other)(void *, const char *);
        *(void **)&other = must(dlvsym(dlopen("libc.so.6", RTLD_NOW), "dlsym", "GLIBC_2.34"), "dlsym of glibc 2.34");
        opened = must(dlopen("libcuda.so.1", RTLD_NOW), "libcuda.so.1");
        other_dlsym = other;
        look = from_other;
#if defined(WEAK)
    } else if (IS("weak")) {
        printf("weak %s\n", cuInit ? "found" : "missing");
        for (int i = 2; i < argc && cuInit; i++) printf("%d %d\n", cuInit(0), cuMemAlloc_v2(0, 1));
        return 0;
#endif
    } else {
        opened = must(dlopen("libcuda.so.1", RTLD_NOW), "libcuda.so.1");
    }
#if defined(VARIABLES) || defined(FILLED)
    init_function init;
    retain_function retain;
    set_function set;
    alloc_function alloc;
    fill(&init, &retain, &set, &alloc);
#else
    init_function init = must(look("cuInit"), "cuInit");
    retain_function retain = must(look("cuDevicePrimaryCtxRetain"), "cuDevicePrimaryCtxRetain");
    set_function set = must(look("cuCtxSetCurrent"), "cuCtxSetCurrent");
    alloc_function alloc = must(look("cuMemAlloc_v2"), "cuMemAlloc_v2");
    if (IS("second")) {
        /* another file with the driver's functions */
        void *second = must(dlopen(argv[2], RTLD_NOW), argv[2]);
        *(void **)&alloc = must(dlsym(second, "cuMemAlloc_v2"), "the second cuMemAlloc_v2");
        argv++;
        argc--;
    } else if (IS("table")) {
        int (*get)(const void **, const void *);
        void *const *table;
        *(void **)&get = must(look("cuGetExportTable"), "cuGetExportTable");
        get((const void **)&table, 0);
        *(void **)&alloc = table[0];
    } else if (IS("newer")) {
        int (*get)(const char *, void **, int, unsigned long long, int *), found;
        *(void **)&get = must(look("cuGetProcAddress_v2"), "cuGetProcAddress_v2");
        get("cuMemAlloc", (void **)&alloc, 14000, 0, &found);
    }
#endif
    void *context = 0;
    int status = init(0);
    if (!status) status = retain(&context, 0);
    if (!status) status = set(context);
    printf("%s %d\n", way, status);
    for (int i = 2; i < argc; i++) {
        ptr p = 0;
        printf("%s %d\n", argv[i], alloc(&p, strtoull(argv[i], 0, 0)));
    }
    return 0;
}
#endif
