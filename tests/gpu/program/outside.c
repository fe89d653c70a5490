/* The card as it is seen from outside of a container, by NVIDIA's management library. */
#define _GNU_SOURCE
#include "checks.h"
#include "driver.h"

#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct { unsigned long long total, free, used; } memory;
typedef struct { unsigned gpu, memory; } utilization;

static int (*p_init)(void);
static int (*p_by_index)(unsigned, handle *);
static int (*p_uuid)(handle, char *, unsigned);
static int (*p_name)(handle, char *, unsigned);
static int (*p_driver)(char *, unsigned);
static int (*p_memory)(handle, memory *);
static int (*p_utilization)(handle, utilization *);
static handle device;

static void open_nvml(unsigned index) {
  void *library = dlopen("libnvidia-ml.so.1", RTLD_NOW);
  if (!library) {
    printf("%s\n", dlerror());
    exit(1);
  }
  *(void **)&p_init = dlsym(library, "nvmlInit_v2");
  *(void **)&p_by_index = dlsym(library, "nvmlDeviceGetHandleByIndex_v2");
  *(void **)&p_uuid = dlsym(library, "nvmlDeviceGetUUID");
  *(void **)&p_name = dlsym(library, "nvmlDeviceGetName");
  *(void **)&p_driver = dlsym(library, "nvmlSystemGetDriverVersion");
  *(void **)&p_memory = dlsym(library, "nvmlDeviceGetMemoryInfo");
  *(void **)&p_utilization = dlsym(library, "nvmlDeviceGetUtilizationRates");
  must(p_init(), "nvmlInit");
  must(p_by_index(index, &device), "nvmlDeviceGetHandleByIndex");
}

static memory in_use(void) {
  memory m;
  must(p_memory(device, &m), "nvmlDeviceGetMemoryInfo");
  return m;
}

int card(unsigned index) {
  char name[100] = "unknown", driver[100] = "unknown", uuid[100];
  open_nvml(index);
  if (p_name) p_name(device, name, sizeof name);
  if (p_driver) p_driver(driver, sizeof driver);
  must(p_uuid(device, uuid, sizeof uuid), "nvmlDeviceGetUUID");
  printf("%s\n%s\n%s\n%llu\n%llu\n", name, driver, uuid, in_use().total / MIB, in_use().used / MIB);
  return 0;
}

/* MiB of the card that a context takes, with a module as all programs have one */
int of_context(unsigned index) {
  open_driver();
  open_nvml(index);
  unsigned long long before = in_use().used;
  open_context();
  spin_kernel();
  unsigned long long after = in_use().used;
  printf("%llu\n", after < before ? 0 : (after - before) / MIB);
  return 0;
}

/* what the card and the container said at the last look */
typedef struct {
  long long used, counted;
  /* percent of the time, summed up, and how often it was asked for; asked while `measuring` */
  unsigned long busy, asked;
  int measuring, failed;
} view;

static double mib(long long bytes) { return bytes / (double)MIB; }

/* Compares what came since the look before. Beyond what counts the card may give a page of 2 MiB or two; what counts
 * beyond what the card gave is a share that nobody can use. */
static void compare(view *v, const char *how, const char *what, long long counted_now) {
  long long used_now = in_use().used;
  long long used = used_now - v->used, counted = counted_now - v->counted;
  v->used = used_now;
  v->counted = counted_now;
  const char *verdict = "";
  if (!strcmp(how, "look") && used > counted + 4 * (long long)MIB) verdict = "  <-- the card gives more";
  if (!strcmp(how, "look") && counted > used + 64 * (long long)MIB) verdict = "  <-- more counts";
  if (!strcmp(how, "context") && used > counted + 64 * (long long)MIB) verdict = "  <-- the card gives more";
  if (*verdict) v->failed = 1;
  printf("%s: counts %.1f MiB, takes %.1f MiB of the card%s\n", what, mib(counted), mib(used), verdict);
}

/* NVML tells how busy the card was in the last part of a second: a coarse witness */
static void measured(view *v, double percent) {
  v->measuring = 0;
  if (v->asked < 10) {
    printf("NVML does not tell how busy the card was\n");
    return;
  }
  double busy = (double)v->busy / v->asked;
  int apart = busy < percent - 10 || busy > percent + 10;
  printf("NVML: the card was busy %.0f %% of the time%s\n", busy, apart ? "  <-- not as the share is" : "");
  v->failed |= apart;
}

/* whether the container waits to go on */
static int line(view *v, char *text) {
  char *what = strchr(text, '\t'), *bytes = what ? strchr(what + 1, '\t') : NULL;
  if (what && !bytes) *what++ = 0;
  if (bytes) {
    *what++ = *bytes++ = 0;
    compare(v, text, what, atoll(bytes));
    return 1;
  }
  if (!strcmp(text, "begin")) v->measuring = 1;
  else if (!strcmp(text, "end")) measured(v, what ? atof(what) : 0);
  else printf("%s\n", text);
  return 0;
}

static void ask(view *v) {
  utilization u;
  if (v->measuring && p_utilization && p_utilization(device, &u) == 0) {
    v->busy += u.gpu;
    v->asked++;
  }
}

/* reads what the container says until it ends */
static void follow(view *v, int from, int to) {
  char text[4096];
  size_t length = 0;
  for (;;) {
    struct pollfd ready = {from, POLLIN, 0};
    if (poll(&ready, 1, v->measuring ? 100 : -1) == 0) {
      ask(v);
      continue;
    }
    ssize_t got = read(from, text + length, sizeof text - 1 - length);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return;
    length += got;
    char *end;
    while ((end = memchr(text, '\n', length))) {
      *end++ = 0;
      if (line(v, text) && write(to, "g", 1) != 1) return;
      length -= end - text;
      memmove(text, end, length);
    }
    if (length == sizeof text - 1) length = 0;
  }
}

/* runs a command in a container, and compares what it says with what the card says */
int seen(char **command) {
  int in[2], out[2], status;
  open_nvml(atoi(command[0]));
  if (pipe(in) || pipe(out)) return 1;
  setvbuf(stdout, NULL, _IOLBF, 0);
  signal(SIGPIPE, SIG_IGN);
  view v = {.used = in_use().used};
  pid_t child = fork();
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGPIPE, SIG_DFL);
    setenv("KERF_SEEN", "1", 1);
    dup2(in[0], 0);
    dup2(out[1], 1);
    close(in[1]);
    close(out[0]);
    execvp(command[1], command + 1);
    _exit(127);
  }
  close(in[0]);
  close(out[1]);
  follow(&v, out[0], in[1]);
  waitpid(child, &status, 0);
  if (!WIFEXITED(status)) {
    printf("ended by signal %d\n", WTERMSIG(status));
    return 1;
  }
  return WEXITSTATUS(status) ? WEXITSTATUS(status) : v.failed;
}
