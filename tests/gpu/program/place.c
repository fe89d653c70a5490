/* What this machine's kernel shows, of what the limiter has to find out about processes; a sandbox may show less. */
#define _GNU_SOURCE
#include "checks.h"
#include "driver.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static int lacking;

static void told(const char *what, int there) {
  printf("%s: %s\n", what, there ? "yes" : "NO");
  lacking |= !there;
}

static int starts(void) {
  char text[2048] = "";
  int file = open("/proc/self/stat", O_RDONLY);
  ssize_t got = file < 0 ? 0 : read(file, text, sizeof text - 1);
  char *rest = got > 0 ? strrchr(text, ')') : NULL;
  /* fields 3 to 22, counted from 1 */
  for (int field = 2; rest && field < 22; field++) rest = strchr(rest + 1, ' ');
  return rest && strtoull(rest, NULL, 10) > 0;
}

static int in_maps(unsigned long long inode) {
  char text[4096];
  unsigned long long found;
  int seen = 0;
  FILE *maps = fopen("/proc/self/maps", "r");
  while (maps && fgets(text, sizeof text, maps))
    seen |= sscanf(text, "%*s %*s %*s %*s %llu", &found) == 1 && found == inode;
  return seen;
}

/* whether another process sees what this one writes, and its record lock, until it ends */
static void between(int file, volatile int *shared) {
  int ready[2], go[2];
  char byte;
  if (pipe(ready) || pipe(go)) exit(1);
  pid_t child = fork();
  if (child == 0) {
    close(go[1]);
    struct flock mine = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 7, .l_len = 1};
    *shared = fcntl(file, F_SETLK, &mine) == 0 ? 42 : 1;
    byte = (char)write(ready[1], "r", 1);
    byte = (char)read(go[0], &byte, 1);
    _exit(0);
  }
  close(go[0]);
  close(ready[1]);
  int complete = read(ready[0], &byte, 1) == 1;
  struct flock other = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 7, .l_len = 1};
  int asked = fcntl(file, F_GETLK, &other) == 0;
  told("a mapping that processes share", complete && *shared == 42);
  told("another process' record lock", asked && other.l_type == F_WRLCK && other.l_pid == child);
  close(go[1]);
  waitpid(child, NULL, 0);
  struct flock gone = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 7, .l_len = 1};
  told("the lock ends with its process", fcntl(file, F_GETLK, &gone) == 0 && gone.l_type == F_UNLCK);
}

int place(void) {
  struct stat of;
  char name[] = "/tmp/kerf-place-XXXXXX";
  int file = mkstemp(name);
  if (file < 0 || ftruncate(file, 4096) || fstat(file, &of)) return 1;
  unlink(name);
  volatile int *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (shared == MAP_FAILED) return 1;
  told("/proc/self/stat: when the process started", starts());
  told("/proc/self/ns/pid", stat("/proc/self/ns/pid", &of) == 0 && of.st_ino != 0);
  fstat(file, &of);
  told("/proc/self/maps: the inodes of mapped files", in_maps(of.st_ino));
  between(file, shared);
  return lacking;
}
