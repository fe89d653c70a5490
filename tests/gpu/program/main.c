/* Checks of the limiter against a card; see ../README.md. */
#include "checks.h"
#include "driver.h"

#include <string.h>

static const char USAGE[] =
    "usage: program CHECK\n"
    "in a container:      memory WAY MIB CONTEXT_MIB | race MIB CONTEXT_MIB | killed MIB | info MIB\n"
    "                     share HOW PERCENT SECONDS | idle WAY SECONDS | capture MODE SECONDS | cost WHAT [NANOSECONDS]\n"
    "  below seen:        held MIB | sizes | ipc | export | local\n"
    "outside of it:       seen INDEX COMMAND... | card INDEX | context INDEX | facts | place\n";

int main(int count, char **words) {
#define IS(name, arguments) (count >= 2 + (arguments) && !strcmp(words[1], name))
  double a = count > 2 ? strtod(words[2], NULL) : 0, b = count > 3 ? strtod(words[3], NULL) : 0, c = count > 4 ? strtod(words[4], NULL) : 0;
  if (IS("memory", 3)) return fills(words[2], b * MIB, c * MIB);
  if (IS("race", 2)) return race(a * MIB, b * MIB);
  if (IS("killed", 1)) return killed(a * MIB);
  if (IS("info", 1)) return info(a * MIB);
  if (IS("share", 3)) return share(words[2], b, c);
  if (IS("idle", 2)) return idle(words[2], b);
  if (IS("capture", 2)) return capture((int)a, b);
  if (IS("cost", 1)) return cost(words[2], b);
  if (IS("held", 1)) return held(a * MIB);
  if (IS("sizes", 0)) return sizes();
  if (IS("ipc", 0)) return ipc();
  if (IS("export", 0)) return export();
  if (IS("local", 0)) return local();
  if (IS("seen", 2)) return seen(words + 2);
  if (IS("card", 1)) return card((unsigned)a);
  if (IS("context", 1)) return of_context((unsigned)a);
  if (IS("facts", 0)) return facts();
  if (IS("place", 0)) return place();
  fputs(USAGE, stderr);
  return 2;
}
