/* os/cores_linux.c - which cores this process may run on, how fast each is, and tying threads to
 * them. Affinity mask, cgroup quota (v2 and v1), sysfs topology. Creating threads is
 * system_linux.c's. */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "os/os.h"

#define SYS_CPU    "/sys/devices/system/cpu"
#define SELF_GROUP "/proc/self/cgroup"
#define GROUP_ROOT "/sys/fs/cgroup"

/* First line of a small file, NULL when there is none; freed with ew_mem_free. */
static char *read_line(const char *dir, const char *name)
{
    char path[1024], *text = NULL;
    size_t len;

    if (!ew_path_join(path, sizeof(path), dir, name) ||
        ew_file_read(path, 65536, &text, &len, NULL))
        return NULL;
    text[strcspn(text, "\n")] = '\0';
    return text;
}

static bool read_number(const char *dir, const char *name, double *out)
{
    char *const text = read_line(dir, name);
    char *end = text;

    if (text)
        *out = strtod(text, &end);
    const bool ok = text && end != text;
    ew_mem_free(text);
    return ok;
}

/* ---- quota ---- */

/* Cores of one group's folder, 0 for no limit. */
static double group_quota(const char *dir)
{
    char *const text = read_line(dir, "cpu.max"); /* "200000 100000", "max 100000" */
    double quota = 0, period = 0;

    if (text) {
        char *end = text;

        quota = strtod(text, &end);
        period = end != text ? strtod(end, NULL) : 0;
        ew_mem_free(text);
    } else if (!read_number(dir, "cpu.cfs_quota_us", &quota) ||
               !read_number(dir, "cpu.cfs_period_us", &period)) {
        return 0;
    }
    return quota > 0 && period > 0 ? quota / period : 0;
}

/* Tightest quota from `dir`/`group` up to `dir`. */
static double path_quota(const char *dir, const char *group)
{
    char path[1024];
    double least = 0;
    const int n = snprintf(path, sizeof(path), "%s%s", dir, group);

    if (n < 0 || (size_t)n >= sizeof(path))
        return 0;
    for (const size_t stop = strlen(dir);;) {
        const double q = group_quota(path);
        char *const slash = strrchr(path, '/');

        least = q > 0 && (least == 0 || q < least) ? q : least;
        if (!slash || (size_t)(slash - path) < stop)
            return least;
        *slash = '\0';
    }
}

/* Lines "0::/path" (v2) and "4:cpu,cpuacct:/path" (v1). A container often shows its group's folder
 * as the root, with a path that is not there: the root is looked at in every case. */
double ew_os_cpu_quota(const char *self, const char *root)
{
    char *text = NULL, v1[256];
    double least = 0;
    size_t len;

    if (ew_file_read(self, 65536, &text, &len, NULL))
        return 0;
    for (char *line = text, *next; line && *line; line = next) {
        char *const names = strchr(line, ':');
        char *const group = names ? strchr(names + 1, ':') : NULL;
        double q = 0;

        next = strchr(line, '\n');
        if (next)
            *next++ = '\0';
        if (!group || (next && group > next))
            continue;
        *group = '\0';
        if (names[1] == '\0')
            q = path_quota(root, group + 1);
        else if (strcmp(names + 1, "cpu") == 0 || strncmp(names + 1, "cpu,", 4) == 0 ||
                 strstr(names + 1, ",cpu,") ||
                 (group - names > 4 && strcmp(group - 4, ",cpu") == 0))
            q = ew_path_join(v1, sizeof(v1), root, "cpu") ? path_quota(v1, group + 1) : 0;
        least = q > 0 && (least == 0 || q < least) ? q : least;
    }
    ew_mem_free(text);
    return least;
}

/* ---- kinds of cores ---- */

void ew_os_core_read(const char *root, struct ew_os_core *core)
{
    char dir[512], *list;
    double v = 0;
    const int n = snprintf(dir, sizeof(dir), "%s/cpu%u", root, core->id);

    core->capacity = 0;
    core->sibling = 0;
    if (n < 0 || (size_t)n >= sizeof(dir))
        return;
    if ((read_number(dir, "cpu_capacity", &v) ||
         read_number(dir, "cpufreq/cpuinfo_max_freq", &v)) &&
        v >= 1 && v < 4e9)
        core->capacity = (unsigned)v;
    list = read_line(dir, "topology/thread_siblings_list"); /* "0,4" or "0-1" */
    for (const char *at = list; at && *at >= '0' && *at <= '9';) {
        char *end;
        const unsigned long lo = strtoul(at, &end, 10);
        const unsigned long hi = *end == '-' ? strtoul(end + 1, &end, 10) : lo;

        for (unsigned long id = lo; id <= hi && id < core->id; id++)
            core->sibling++;
        at = *end == ',' ? end + 1 : NULL;
    }
    ew_mem_free(list);
}

size_t ew_os_fast_cores(const struct ew_os_core *cores, size_t n)
{
    unsigned least = n ? cores[0].capacity : 0, most = least;
    size_t fast = 0;

    for (size_t i = 0; i < n; i++) {
        least = cores[i].capacity < least ? cores[i].capacity : least;
        most = cores[i].capacity > most ? cores[i].capacity : most;
    }
    if (least == 0 || least >= 0.85 * most)
        return n;
    for (size_t i = 0; i < n; i++)
        fast += cores[i].capacity > 1.1 * least;
    return fast;
}

static int by_rank(const void *a, const void *b)
{
    const struct ew_os_core *const x = a, *const y = b;

    if (x->sibling != y->sibling)
        return x->sibling < y->sibling ? -1 : 1;
    if (x->capacity != y->capacity)
        return x->capacity > y->capacity ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

static bool get_mask(struct ew_core_mask *out)
{
    *out = (struct ew_core_mask){ { 0 } };
    return sched_getaffinity(0, sizeof(out->bits), (cpu_set_t *)(void *)out->bits) == 0;
}

static bool has_core(const struct ew_core_mask *m, unsigned core)
{
    return m->bits[core / 64] >> (core % 64) & 1;
}

size_t ew_os_core_list(struct ew_os_core *out, size_t cap)
{
    struct ew_core_mask mask;
    size_t n = 0;

    if (!get_mask(&mask))
        return 0;
    for (unsigned id = 0; id < EW_MAX_CORES && n < cap; id++)
        if (has_core(&mask, id)) {
            out[n].id = id;
            ew_os_core_read(SYS_CPU, &out[n++]);
        }
    qsort(out, n, sizeof(*out), by_rank);
    return n;
}

static unsigned within_quota(size_t n)
{
    const double quota = ew_os_cpu_quota(SELF_GROUP, GROUP_ROOT);

    if (quota > 0 && quota < (double)n) {
        const unsigned whole = (unsigned)quota;

        n = whole + (whole < quota);
    }
    return n ? (unsigned)n : 1;
}

unsigned ew_os_cores(void)
{
    struct ew_core_mask mask;
    size_t n = 0;

    if (!get_mask(&mask))
        return 1;
    for (unsigned id = 0; id < EW_MAX_CORES; id++)
        n += has_core(&mask, id);
    return within_quota(n);
}

unsigned ew_os_threads(void)
{
    struct ew_os_core *const cores = ew_mem_calloc(EW_MEM_MISC, EW_MAX_CORES, sizeof(*cores));
    unsigned n;

    if (!cores)
        return ew_os_cores();
    n = within_quota(ew_os_fast_cores(cores, ew_os_core_list(cores, EW_MAX_CORES)));
    ew_mem_free(cores);
    return n;
}

bool ew_thread_pin(unsigned core, struct ew_core_mask *old)
{
    struct ew_core_mask one = { { 0 } };

    if (core >= EW_MAX_CORES || !get_mask(old))
        return false;
    one.bits[core / 64] = (uint64_t)1 << (core % 64);
    return sched_setaffinity(0, sizeof(one.bits), (const cpu_set_t *)(const void *)one.bits) == 0;
}

void ew_thread_unpin(const struct ew_core_mask *old)
{
    (void)sched_setaffinity(0, sizeof(old->bits), (const cpu_set_t *)(const void *)old->bits);
}
