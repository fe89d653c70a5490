/* The checks: each prints figures, and is 0 where they are as they should be and NOT_RUN where they could not be had. */
#ifndef CHECKS_H
#define CHECKS_H
#include <stddef.h>

/* in a container. cap and context are bytes: what it may use, and what a process' context may take of that */
int fills(const char *way, size_t cap, size_t context);
int race(size_t cap, size_t context);
int killed(size_t cap);
int info(size_t cap);
/* these stop for `seen` to look at the card; see look() */
int held(size_t bytes);
int sizes(void);
int ipc(void);
int export(void);
int local(void);

int share(const char *how, double percent, double seconds);
int idle(const char *way, double seconds);
int capture(int mode, double seconds);
int cost(const char *what, double nanoseconds);
int facts(void);

/* outside of it */
int card(unsigned index);
int of_context(unsigned index);
int place(void);
int seen(char **command);
#endif
