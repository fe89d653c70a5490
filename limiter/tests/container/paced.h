/* Commands of the tenant's program that launch: how long they are held back, in captures, contexts and threads. */

static unsigned long long now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void sleep_ns(unsigned long long ns) {
  ns += now_ns();
  struct timespec until = {ns / 1000000000ull, ns % 1000000000ull};
  clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, 0);
}

static int kernel(handle s, unsigned long long ns) {
  void *params[] = {&ns};
  return p_cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, s, params, 0);
}

static void called(void *data) { *(int *)data = 1; }

/* waits for all that was launched, in one of the ways that programs have */
static int wait_by(const char *how) {
  if (!strcmp(how, "copy")) { char c; return p_cuMemcpyDtoH(&c, last[0], 1); }
  if (!strcmp(how, "callback")) { int done = 0; return p_cuLaunchHostFunc(stream, called, &done); }
  if (!strcmp(how, "stream")) return p_cuStreamSynchronize(stream);
  int status;
  handle event = 0;
  if (!strcmp(how, "event")) { p_cuEventCreate(&event, 2); p_cuEventRecord(event, stream); }
  do {
    status = event ? p_cuEventQuery(event) : p_cuStreamQuery(stream);
    sleep_ns(20000);
  } while (status == 600);
  if (event) p_cuEventDestroy(event);
  return status;
}

static pthread_barrier_t barrier;

/* a thread that launches while another one captures, or that is ended while it waits */
static void *other(void *argument) {
  p_cuCtxSetCurrent(context);
  pthread_barrier_wait(&barrier);
  return (void *)(uintptr_t)(kernel(*(handle *)argument, 1000) + 1);
}

/* a stream of another context than the current one */
static handle elsewhere(const char *how) {
  handle s = 0, other_context, old = context, green;
  if (!strcmp(how, "green")) {
    p_cuGreenCtxCreate(&green, 0, 0, 1);
    p_cuGreenCtxStreamCreate(&s, green, 1, 0);
  } else {
    p_cuCtxCreate(&other_context, 0, 0);
    p_cuStreamCreate(&s, 1);
    p_cuCtxSetCurrent(old);
  }
  return s;
}

/* bursts of launches with idle time between them; prints the longest that a burst took */
static int bursts(const char *how, unsigned long long ns, int launches, unsigned long long idle) {
  unsigned long long longest = 0;
  ptr p = 0;
  int allocated = p_cuMemAlloc(&p, 512);
  keep(allocated, p);
  for (int i = 0; i < 6; i++) {
    unsigned long long began = now_ns();
    for (int j = 0; j < launches; j++) { int s = kernel(stream, ns); if (s) return s; }
    int s = wait_by(how);
    if (s) return s;
    if (now_ns() - began > longest) longest = now_ns() - began;
    sleep_ns(idle);
  }
  printf("longest %llu\n", longest);
  return 0;
}

/* a capture of one kernel, while the program launches elsewhere as well: prints how it ended */
static int capturing(int mode, const char *begin, int threads) {
  handle s, more, g = 0;
  p_cuStreamCreate(&s, 1);
  p_cuStreamCreate(&more, 1);
  pthread_t t;
  void *launched = (void *)1;
  if (threads) {
    pthread_barrier_init(&barrier, 0, 2);
    pthread_create(&t, 0, other, &more);
  }
  p_cuGraphCreate(&g, 0);
  int status = !strcmp(begin, "again") ? p_cuStreamBeginRecaptureToGraph(s, mode, g, 0, 0)
             : !strcmp(begin, "graph") ? p_cuStreamBeginCaptureToGraph(s, g, 0, 0, 0, mode) : p_cuStreamBeginCapture(s, mode);
  if (status) return status;
  status = kernel(s, 1000);
  if (threads) {
    pthread_barrier_wait(&barrier);
    pthread_join(t, &launched);
  } else {
    launched = (void *)(uintptr_t)(kernel(more, 1000) + 1);
  }
  for (int i = 0; i < 40; i++) kernel(s, 1000);
  int end = p_cuStreamEndCapture(s, &g);
  printf("captured %d, other %d, end %d\n", status, (int)(uintptr_t)launched - 1, end);
  if (end) return end;
  stream = s;
  end = p_cuGraphInstantiateWithFlags(&executable, g, 0);
  return end ? end : p_cuGraphLaunch(executable, s);
}

static int paced(const char *name, char **words, unsigned long long *a) {
  if (IS("bursts")) return bursts(words[0], a[1], a[2], a[3] * 1000000ull);
  if (IS("capturing")) return capturing(a[0], words[1], a[2]);
  if (IS("kernel")) return kernel(stream, a[0]);
  if (IS("wait")) return wait_by(words[0]);
  if (IS("idle")) { sleep_ns(a[0] * 1000000ull); return 0; }
  if (IS("launches")) {
    /* prints how long launching took, and how long what was launched took after that */
    unsigned long long began = now_ns(), launched;
    for (int i = 0; i < (int)a[1]; i++) { int s = kernel(stream, a[0]); if (s) return s; }
    launched = now_ns();
    int s = wait_by("stream");
    printf("launched %llu %llu\n", launched - began, now_ns() - launched);
    return s;
  }
  if (IS("events")) {
    /* as many events as the driver has */
    handle event;
    int made = 0;
    while (made < (int)a[0] && !p_cuEventCreate(&event, 0)) made++;
    printf("made %d\n", made);
    return 0;
  }
  if (IS("function")) { handle module; p_cuModuleLoadData(&module, ""); return p_cuModuleGetFunction(&function, module, words[0]); }
  if (IS("dead")) {
    /* a stream is destroyed while another one is captured, and by a thread without a context */
    handle s[2], g, old = context;
    p_cuStreamCreate(&s[0], 1);
    p_cuStreamCreate(&s[1], 1);
    for (int i = 0; i < (int)a[0]; i++) kernel(s[0], 1000);
    if (a[1]) p_cuStreamBeginCapture(s[1], 2); else p_cuCtxSetCurrent(0);
    int status = p_cuStreamDestroy(s[0]);
    if (a[1]) p_cuStreamEndCapture(s[1], &g); else p_cuCtxSetCurrent(old);
    p_cuCtxSynchronize();
    return status;
  }
  if (IS("cancel")) {
    /* a thread is ended while it is held back */
    pthread_t t;
    void *result;
    handle s = stream;
    kernel(s, a[0] * 1000000ull);
    p_cuStreamSynchronize(s);
    pthread_barrier_init(&barrier, 0, 2);
    pthread_create(&t, 0, other, &s);
    pthread_barrier_wait(&barrier);
    pthread_cancel(t);
    return pthread_join(t, &result);
  }
  return -2;
}
