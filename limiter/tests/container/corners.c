/* Programs that do what few do. The first argument is what; each step prints a word and the driver's answer. Linked with the
 * driver. -DFORKS: with an open64 of its own. -DAGAIN: a driver that calls the real one, and gives the handle of released memory
 * to the next, as NVIDIA's may. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

typedef unsigned long long ptr;
typedef void *handle;
typedef struct { int type, handles, location, id; void *meta; unsigned char flags[8]; } mem_prop;
typedef struct { handle f; unsigned sizes[7]; void **params; void **extra; } kernel_node;
typedef struct { int type, handles, location, id; void *security; size_t max; unsigned short usage; unsigned char r[54]; } pool_props;
typedef struct { pool_props pool; const void *access; size_t count, bytes; ptr dptr; } alloc_node;

#if defined(AGAIN)
static void *real(const char *name) { return dlsym(dlopen(getenv("REAL_DRIVER"), RTLD_NOW | RTLD_LOCAL), name); }
#define FORWARD(name, parameters, arguments) \
    int name parameters { return ((int (*) parameters)real(#name)) arguments; }
FORWARD(cuInit, (unsigned flags), (flags))
FORWARD(cuDeviceGetCount, (int *count), (count))
FORWARD(cuDeviceGetUuid_v2, (void *uuid, int device), (uuid, device))
FORWARD(cuDevicePrimaryCtxRetain, (handle *context, int device), (context, device))
FORWARD(cuCtxSetCurrent, (handle context), (context))
FORWARD(cuCtxGetCurrent, (handle *context), (context))
FORWARD(cuMemAlloc_v2, (ptr *pointer, size_t bytes), (pointer, bytes))
FORWARD(cuMemFree_v2, (ptr pointer), (pointer))
static ptr released, given, meant;
int cuMemCreate(ptr *object, size_t bytes, const mem_prop *properties, ptr flags) {
    int status = ((int (*)(ptr *, size_t, const mem_prop *, ptr))real("cuMemCreate"))(object, bytes, properties, flags);
    if (!status && released) {
        given = released;
        meant = *object;
        *object = released;
        released = 0;
    }
    return status;
}
int cuMemRelease(ptr object) {
    int status = ((int (*)(ptr))real("cuMemRelease"))(object == given ? meant : object);
    if (!status) released = object;
    void (**between)(void) = dlsym(RTLD_DEFAULT, "between");
    if (*between) (*between)();
    return status;
}
#else
extern int cuInit(unsigned);
extern int cuDevicePrimaryCtxRetain(handle *, int);
extern int cuCtxSetCurrent(handle);
extern int cuCtxCreate_v2(handle *, unsigned, int);
extern int cuCtxAttach(handle *, unsigned);
extern int cuCtxDetach(handle);
extern int cuMemAlloc_v2(ptr *, size_t);
extern int cuMemFree_v2(ptr);
extern int cuMemAllocAsync(ptr *, size_t, handle);
extern int cuMemFreeAsync(ptr, handle);
extern int cuMemAllocFromPoolAsync(ptr *, size_t, handle, handle);
extern int cuMemPoolCreate(handle *, const pool_props *);
extern int cuMemCreate(ptr *, size_t, const mem_prop *, ptr);
extern int cuMemRelease(ptr);
extern int cuMemAddressReserve(ptr *, size_t, size_t, ptr, ptr);
extern int cuMemMap(ptr, size_t, size_t, ptr, ptr);
extern int cuMemUnmap(ptr, size_t);
extern int cuMemRetainAllocationHandle(ptr *, void *);
extern int cuMemExportToShareableHandle(void *, ptr, int, ptr);
extern int cuStreamCreate(handle *, unsigned);
extern int cuGraphCreate(handle *, unsigned);
extern int cuGraphAddMemAllocNode(handle *, handle, const handle *, size_t, alloc_node *);
extern int cuGraphAddKernelNode_v2(handle *, handle, const handle *, size_t, const kernel_node *);
extern int cuGraphInstantiateWithFlags(handle *, handle, ptr);
extern int cuGraphLaunch(handle, handle);
extern int cuModuleLoadData(handle *, const void *);
extern int cuModuleGetFunction(handle *, handle, const char *);
extern int cuLaunchKernel(handle, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, handle, void **, void **);
extern int cuStreamDestroy_v2(handle);
extern int cuStreamSynchronize(handle);
extern int cuCtxSynchronize(void);
extern int cuStreamBeginCapture_v2(handle, int);
extern int cuStreamEndCapture(handle, handle *);

#define ALL (256ul << 20)
#define HALF (128ul << 20)

static handle context;

static int start(void) {
    int status = cuInit(0);
    if (!status) status = cuDevicePrimaryCtxRetain(&context, 0);
    return status ? status : cuCtxSetCurrent(context);
}

static void say(const char *what, int answer) {
    printf("%s %d\n", what, answer);
    fflush(stdout);
}

/* says whether so much can still be allocated, and leaves nothing */
static void room(size_t bytes) {
    ptr p;
    int status = cuMemAlloc_v2(&p, bytes);
    say("room", status);
    if (!status) cuMemFree_v2(p);
}

static void hold(void) {
    char c;
    printf("ready\n");
    fflush(stdout);
    if (read(0, &c, 1) < 0) exit(1);
}

static ptr now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

/* called within a call of the driver that is compiled with -DAGAIN */
void (*between)(void);
static ptr made;

static void *making(void *unused) {
    mem_prop gpu = {1, 0, 1, 0, 0, {0}};
    cuCtxSetCurrent(context);
    say("create", cuMemCreate(&made, HALF, &gpu, 0));
    return 0;
}

static void make(void) {
    pthread_t thread;
    between = 0;
    pthread_create(&thread, 0, making, 0);
    pthread_join(thread, 0);
}

static volatile int go;

/* a thread that was cancelled goes on to the next point where a cancellation is due, which no call of the driver is */
static void *cancelled(void *how) {
    ptr p;
    while (!go) {}
    if (!strcmp(how, "init")) {
        say("init", start());
    } else {
        cuCtxSetCurrent(context);
        say("alloc", cuMemAlloc_v2(&p, ALL));
    }
    pthread_testcancel();
    return 0;
}

static void *alone(void *unused) {
    /* until the first thread is gone */
    char text[256], *end;
    do {
        int file = open("/proc/self/stat", O_RDONLY);
        ssize_t n = read(file, text, sizeof text - 1);
        close(file);
        text[n > 0 ? n : 0] = 0;
        end = strrchr(text, ')');
    } while (!end || end[2] != 'Z');
    say("init", start());
    room(ALL);
    exit(0);
}

#if defined(FORKS)
/* a fork by another thread while the limiter reads its files in this one */
static pthread_barrier_t reading, forked;
static int forks;

static void *forking(void *unused) {
    int status;
    pthread_barrier_wait(&reading);
    pid_t child = fork();
    if (!child) {
        alarm(20);
        say("child", start());
        _exit(0);
    }
    waitpid(child, &status, 0);
    say("ended", status);
    pthread_barrier_wait(&forked);
    return 0;
}

int open64(const char *path, int flags, ...) {
    static int (*next)(const char *, int, ...);
    static int once;
    if (!next) *(void **)&next = dlsym(RTLD_NEXT, "open64");
    if (forks && !strcmp(path, "/etc/kerf/limits") && !once++) {
        pthread_barrier_wait(&reading);
        pthread_barrier_wait(&forked);
    }
    va_list rest;
    va_start(rest, flags);
    int mode = va_arg(rest, int);
    va_end(rest);
    return next(path, flags, mode);
}
#endif

int main(int argc, char **argv) {
    const char *way = argv[1];
    ptr p = 0, q = 0, range = 0, other = 0;
    handle s, graph, pool;
    pthread_t thread;
    void *result;
    alarm(120);
#define IS(word) (!strcmp(way, word))
    if (IS("silent") || IS("full")) {
        /* standard error is a pipe that nobody reads, or a file that must not grow */
        struct rlimit none = {0, 0};
        hold();
        if (IS("full")) setrlimit(RLIMIT_FSIZE, &none);
        int status = cuInit(0);
        _exit(status == 802 ? 0 : 1);
    }
    if (IS("leader")) {
        pthread_create(&thread, 0, alone, 0);
        pthread_exit(0);
    }
    if (IS("cancel") && !strcmp(argv[2], "init")) {
        pthread_create(&thread, 0, cancelled, argv[2]);
        pthread_cancel(thread);
        go = 1;
        pthread_join(thread, &result);
        say("joined", result == PTHREAD_CANCELED);
        return 0;
    }
#if defined(FORKS)
    if (IS("forks")) {
        forks = 1;
        pthread_barrier_init(&reading, 0, 2);
        pthread_barrier_init(&forked, 0, 2);
        pthread_create(&thread, 0, forking, 0);
        say("parent", start());
        pthread_join(thread, &result);
        return 0;
    }
#endif
    int status = start();
    if (status) {
        say("start", status);
        return 1;
    }
    if (IS("cancel")) {
        pthread_create(&thread, 0, cancelled, argv[2]);
        pthread_cancel(thread);
        go = 1;
        pthread_join(thread, &result);
        say("joined", result == PTHREAD_CANCELED);
    }
    if (IS("captured")) {
        /* memory that a graph would free, if it ran */
        int pooled = !strcmp(argv[2], "pool");
        say("alloc", pooled ? cuMemAllocAsync(&p, ALL, 0) : cuMemAlloc_v2(&p, ALL));
        cuStreamCreate(&s, 1);
        cuStreamBeginCapture_v2(s, 2);
        say("free", cuMemFreeAsync(p, s));
        cuStreamEndCapture(s, &graph);
        room(1);
    }
    if (IS("later")) {
        /* memory of no pool, freed in the order of a stream */
        int flags = atoi(argv[3]);
        cuStreamCreate(&s, flags);
        if (!strcmp(argv[2], "busy")) {
            handle module, spin;
            ptr minutes = 600000000000ull;
            void *parameters[] = {&minutes};
            cuModuleLoadData(&module, "");
            cuModuleGetFunction(&spin, module, "spin");
            say("launch", cuLaunchKernel(spin, 1, 1, 1, 1, 1, 1, 0, s, parameters, 0));
        }
        for (int i = 0; i < 3; i++) {
            status = cuMemAlloc_v2(&p, ALL);
            say("alloc", status);
            if (status) break;
            say("free", cuMemFreeAsync(p, s));
            if (!strcmp(argv[2], "wait")) say("wait", cuStreamSynchronize(s));
            if (!strcmp(argv[2], "all")) say("wait", cuCtxSynchronize());
            if (!strcmp(argv[2], "destroy")) { say("destroy", cuStreamDestroy_v2(s)); cuStreamCreate(&s, flags); }
        }
        hold();
    }
    if (IS("nopool")) {
        /* handles that are no pools */
        for (int i = 1; i <= 3; i++) say("alloc", cuMemAllocFromPoolAsync(&p, HALF, (handle)(uintptr_t)(i << 4), 0));
        room(ALL);
    }
    if (IS("retain")) {
        /* memory of the host at a higher address than memory of the GPU */
        mem_prop gpu = {1, 0, 1, 0, 0, {0}}, host = {1, 0, 3, 0, 0, {0}};
        cuMemCreate(&p, ALL, &gpu, 0);
        cuMemAddressReserve(&range, ALL, 0, 0, 0);
        say("map", cuMemMap(range, ALL, 0, p, 0));
        cuMemCreate(&q, ALL, &host, 0);
        cuMemAddressReserve(&other, ALL, 0, 0, 0);
        say("map", cuMemMap(other, ALL, 0, q, 0));
        say("retain", cuMemRetainAllocationHandle(&q, (void *)(uintptr_t)other));
        say("unmap", cuMemUnmap(range, ALL));
        say("release", cuMemRelease(p));
        room(ALL);
    }
    if (IS("place")) {
        /* memory of a kind (1: pinned, 2: managed) at a location of a type */
        mem_prop m = {atoi(argv[3]), 0, atoi(argv[4]), 0, 0, {0}};
        pool_props n = {atoi(argv[3]), 0, atoi(argv[4]), 0, 0, 0, 0, {0}};
        if (!strcmp(argv[2], "create")) say("create", cuMemCreate(&p, ALL, &m, 0));
        else if (cuMemPoolCreate(&pool, &n) == 0) say("pool", cuMemAllocFromPoolAsync(&p, ALL, pool, 0));
        room(1);
    }
    if (IS("exports")) {
        /* one piece, again and again */
        mem_prop gpu = {1, 1, 1, 0, 0, {0}};
        int file;
        cuMemCreate(&p, HALF, &gpu, 0);
        for (int i = 0; i < 600 && !status; i++) {
            status = cuMemExportToShareableHandle(&file, p, 1, 0);
            close(file);
        }
        say("export", status);
        hold();
    }
    if (IS("graphs")) {
        /* graphs that allocate, first one after the other on one stream, then at the same time */
        handle executables[4], streams[4], node, module, spin;
        ptr minutes = 600000000000ull, short_ = 1000;
        void *parameters[] = {&short_}, *long_[] = {&minutes};
        cuModuleLoadData(&module, "");
        cuModuleGetFunction(&spin, module, "spin");
        for (int i = 0; i < 4; i++) {
            alloc_node n = {{1, 0, 1, 0, 0, 0, 0, {0}}, 0, 0, ALL / 4, 0};
            kernel_node k = {spin, {1, 1, 1, 1, 1, 1, 0}, parameters, 0};
            cuStreamCreate(&streams[i], 1);
            cuGraphCreate(&graph, 0);
            cuGraphAddMemAllocNode(&node, graph, 0, 0, &n);
            cuGraphAddKernelNode_v2(&node, graph, 0, 0, &k);
            cuGraphInstantiateWithFlags(&executables[i], graph, 0);
            say("first", cuGraphLaunch(executables[i], streams[0]));
            cuStreamSynchronize(streams[0]);
        }
        say("alloc", cuMemAlloc_v2(&p, HALF));
        for (int i = 0; i < 4; i++) {
            cuLaunchKernel(spin, 1, 1, 1, 1, 1, 1, 0, streams[i], long_, 0);
            say("then", cuGraphLaunch(executables[i], streams[i]));
        }
        hold();
    }
    if (IS("streams")) {
        /* one kernel on each of many streams, and each is waited for */
        handle streams[400], module, spin;
        ptr each = 1000, began = now();
        void *parameters[] = {&each};
        cuModuleLoadData(&module, "");
        cuModuleGetFunction(&spin, module, "spin");
        for (int i = 0; i < 400; i++) status += cuStreamCreate(&streams[i], 1);
        for (int i = 0; i < 400; i++) status += cuLaunchKernel(spin, 1, 1, 1, 1, 1, 1, 0, streams[i], parameters, 0);
        for (int i = 0; i < 400; i++) status += cuStreamSynchronize(streams[i]);
        printf("took %llu\n", now() - began);
        return status;
    }
    if (IS("small")) {
        /* a page of small pieces, of which one has left */
        say("alloc", cuMemAlloc_v2(&q, ALL - (2 << 20)));
        for (int i = 0; i < 4; i++) say("alloc", cuMemAlloc_v2(&p, 512 << 10));
        say("free", cuMemFreeAsync(p, 0));
        say("alloc", cuMemAlloc_v2(&p, 512 << 10));
        room(1);
    }
    if (IS("uncharged")) {
        /* says that nothing was charged, before each launch */
        unsigned long *state = mmap(0, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, open64("/run/kerf/state", O_RDWR), 0);
        handle module, spin;
        ptr each = strtoull(argv[3], 0, 0), began = now();
        void *parameters[] = {&each};
        cuModuleLoadData(&module, "");
        cuModuleGetFunction(&spin, module, "spin");
        for (int i = 0; i < 100; i++) {
            state[atoi(argv[2]) / 8] = 0;
            status = cuLaunchKernel(spin, 1, 1, 1, 1, 1, 1, 0, 0, parameters, 0);
            if (!status) status = cuCtxSynchronize();
            if (status) return status;
        }
        printf("took %llu\n", now() - began);
    }
    if (IS("hidden")) {
        /* what it maps is shown to root alone, and it has lost its lock */
        say("alloc", cuMemAlloc_v2(&p, ALL));
        prctl(PR_SET_DUMPABLE, 0);
        close(open64("/run/kerf/state", O_RDONLY));
        hold();
    }
    if (IS("kept")) {
        /* another descriptor of exported memory than the one that was exported */
        mem_prop gpu = {1, 1, 1, 0, 0, {0}};
        int file;
        say("create", cuMemCreate(&p, ALL, &gpu, 0));
        say("export", cuMemExportToShareableHandle(&file, p, 1, 0));
        if (dup(file) < 0) return 1;
        close(file);
        say("release", cuMemRelease(p));
        room(ALL);
    }
    if (IS("again")) {
        /* another thread gets a handle again before the call is back that gave it up */
        mem_prop gpu = {1, 0, 1, 0, 0, {0}};
        cuMemCreate(&p, HALF, &gpu, 0);
        between = make;
        say("release", cuMemRelease(p));
        say("same", p == made);
        room(HALF + 1);
        say("release", cuMemRelease(made));
        room(ALL);
    }
    if (IS("detach")) {
        handle mine, again;
        for (int i = 0; i < 4; i++) {
            say("create", cuCtxCreate_v2(&mine, 0, 0));
            say("alloc", cuMemAlloc_v2(&p, HALF));
            say("attach", cuCtxAttach(&again, 0));
            cuCtxSetCurrent(context);
            say("other", cuCtxDetach(mine));
            cuCtxSetCurrent(mine);
            say("detach", cuCtxDetach(mine));
            if (i == 0) room(HALF + 1);
            say("detach", cuCtxDetach(mine));
        }
        cuCtxSetCurrent(context);
        room(ALL - (2 << 20));
    }
    return 0;
}
#endif
