/* What a hostile container does, one argument after another; then it says "ready" and stays until its input ends.
   Linked statically: in its own root there is nothing but what the container was given. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static void must(int done, const char *step)
{
	if (!done) {
		printf("cannot %s: %s\n", step, strerror(errno));
		exit(3);
	}
}

static void write_file(const char *path, const char *text)
{
	int file = open(path, O_WRONLY | O_CREAT, 0644);
	must(file >= 0 && write(file, text, strlen(text)) == (ssize_t)strlen(text), path);
	close(file);
}

/* Makes `path` and what is above it; the last part is a directory or an empty file. */
static void make(char *path, int directory)
{
	for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = 0;
		must(mkdir(path, 0755) == 0 || errno == EEXIST, path);
		*slash = '/';
	}
	if (directory)
		must(mkdir(path, 0755) == 0 || errno == EEXIST, path);
	else
		write_file(path, "");
}

/* A mount namespace of its own; as another user than root, in a user namespace of its own. */
static void separate(void)
{
	char map[64];
	unsigned uid = geteuid(), gid = getegid();
	if (unshare(CLONE_NEWNS) != 0) {
		if (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) {
			puts("refused");
			exit(0);
		}
		write_file("/proc/self/setgroups", "deny");
		snprintf(map, sizeof map, "0 %u 1", uid);
		write_file("/proc/self/uid_map", map);
		snprintf(map, sizeof map, "0 %u 1", gid);
		write_file("/proc/self/gid_map", map);
	}
	if (mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) {
		puts("refused");
		exit(0);
	}
}

static void bind(const char *host, const char *inside, int read_only)
{
	char target[4096];
	struct stat found;
	must(stat(host, &found) == 0, host);
	snprintf(target, sizeof target, ".%s", inside);
	make(target, S_ISDIR(found.st_mode));
	must(mount(host, target, NULL, MS_BIND | MS_REC, NULL) == 0, "bind");
	if (read_only)
		must(mount(NULL, target, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV, NULL) == 0, "read-only");
}

static void cover(const char *place)
{
	struct stat found;
	must(stat(place, &found) == 0, place);
	if (S_ISDIR(found.st_mode))
		must(mount("tmpfs", place, "tmpfs", 0, NULL) == 0, "cover");
	else
		must(mount("/own", place, NULL, MS_BIND, NULL) == 0, "cover");
}

static void lease(const char *path)
{
	int file = open(path, O_RDONLY);
	must(file >= 0, path);
	signal(SIGIO, SIG_IGN);
	/* not while another has it open */
	while (fcntl(file, F_SETLEASE, F_WRLCK) != 0)
		must(errno == EAGAIN && sched_yield() == 0, "lease");
}

int main(int count, char **step)
{
	setvbuf(stdout, NULL, _IONBF, 0);
	for (int at = 1; at < count; at++) {
		const char *name = step[at];
		if (!strcmp(name, "container")) {
			separate();
			const char *root = step[++at];
			must(mount("tmpfs", root, "tmpfs", 0, NULL) == 0 && chdir(root) == 0, "root");
			write_file("own", "the tenant's own");
		} else if (!strcmp(name, "bind")) {
			bind(step[at + 1], step[at + 2], !strcmp(step[at + 3], "ro"));
			at += 3;
		} else if (!strcmp(name, "enter")) {
			must(syscall(SYS_pivot_root, ".", ".") == 0 && umount2(".", MNT_DETACH) == 0 && chdir("/") == 0, "enter");
		} else if (!strcmp(name, "cover")) {
			cover(step[++at]);
		} else if (!strcmp(name, "userns")) {
			/* some kernels forbid these to all, or to all but root */
			if (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) {
				puts("refused");
				return 0;
			}
		} else if (!strcmp(name, "rename")) {
			must(rename(step[at + 1], step[at + 2]) == 0 && mkdir(step[at + 1], 0755) == 0, "rename");
			at += 2;
		} else if (!strcmp(name, "chroot")) {
			must(mkdir(step[at + 1], 0755) == 0 && chroot(step[at + 1]) == 0 && chdir("/") == 0, "chroot");
			at++;
		} else if (!strcmp(name, "map")) {
			int file = open(step[++at], O_RDONLY);
			must(file >= 0 && mmap(NULL, 1, PROT_READ | PROT_EXEC, MAP_PRIVATE, file, 0) != MAP_FAILED, "map");
		} else if (!strcmp(name, "lease")) {
			lease(step[++at]);
		} else if (!strcmp(name, "reserve")) {
			int file = open(step[at + 1], O_RDWR);
			must(file >= 0 && fallocate(file, FALLOC_FL_KEEP_SIZE, 0, atol(step[at + 2])) == 0, "reserve");
			close(file);
			at += 2;
		} else {
			must(0, name);
		}
	}
	puts("ready");
	while (getchar() != EOF)
		;
	return 0;
}
