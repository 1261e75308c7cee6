/* os/system_linux.c - clocks, pages, threads, futexes, dynamic loading. */
#include "os/os.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "base/mem.h"
#include "base/size.h"

uint64_t ew_clock_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int64_t ew_wall_clock_s(void)
{
    return (int64_t)time(NULL);
}

uint64_t ew_os_rss_bytes(void)
{
    unsigned long total = 0;
    unsigned long resident = 0;
    FILE *const f = fopen("/proc/self/statm", "re");

    if (!f)
        return 0;
    if (fscanf(f, "%lu %lu", &total, &resident) != 2)
        resident = 0;
    fclose(f);
    return (uint64_t)resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t ew_os_peak_rss_bytes(void)
{
    struct rusage u;

    return getrusage(RUSAGE_SELF, &u) == 0 ? (uint64_t)u.ru_maxrss * 1024 : 0;
}

uint64_t ew_os_physical_bytes(void)
{
    return (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
}

size_t ew_os_page_bytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

#define HUGE_PAGE ((size_t)2 << 20)

void *ew_os_pages_alloc(size_t bytes, bool huge)
{
    const size_t slack = huge && bytes >= 2 * HUGE_PAGE ? HUGE_PAGE : 0;
    size_t total;
    char *p;

    if (!bytes || !ew_size_add(bytes, slack, &total))
        return NULL;
    p = mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    if (slack) { /* trim to a huge-page boundary, so that freeing needs the address and bytes alone
                  */
        const size_t head = (size_t)(-(uintptr_t)p & (HUGE_PAGE - 1));
        const size_t page = ew_os_page_bytes();
        const size_t kept = ew_align_up(bytes, page);
        if (head)
            munmap(p, head);
        if (total - head > kept)
            munmap(p + head + kept, ew_align_up(total, page) - head - kept);
        p += head;
        madvise(p, bytes, MADV_HUGEPAGE);
    }
    return p;
}

void ew_os_pages_free(void *p, size_t bytes)
{
    if (p)
        munmap(p, bytes);
}

struct ew_thread {
    pthread_t id;
    void (*fn)(void *);
    void *arg;
};

static void *thread_main(void *p)
{
    struct ew_thread *const t = p;

    t->fn(t->arg);
    return NULL;
}

ew_status ew_thread_create(struct ew_thread **out, void (*fn)(void *), void *arg, ew_error *err)
{
    struct ew_thread *t = ew_mem_calloc(EW_MEM_MISC, 1, sizeof(*t));

    *out = NULL;
    if (!t)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "thread object");
    t->fn = fn;
    t->arg = arg;
    const int e = pthread_create(&t->id, NULL, thread_main, t);
    if (e) {
        ew_mem_free(t);
        return ew_fail(err, EW_STATUS_DEVICE, "cannot start a thread: %s", strerror(e));
    }
    *out = t;
    return EW_STATUS_OK;
}

void ew_thread_join(struct ew_thread *t)
{
    if (!t)
        return;
    pthread_join(t->id, NULL);
    ew_mem_free(t);
}

struct ew_mutex {
    pthread_mutex_t m;
};

struct ew_mutex *ew_mutex_create(void)
{
    struct ew_mutex *const m = ew_mem_calloc(EW_MEM_MISC, 1, sizeof(*m));

    if (m && pthread_mutex_init(&m->m, NULL) != 0) {
        ew_mem_free(m);
        return NULL;
    }
    return m;
}

void ew_mutex_destroy(struct ew_mutex *m)
{
    if (!m)
        return;
    pthread_mutex_destroy(&m->m);
    ew_mem_free(m);
}

void ew_mutex_lock(struct ew_mutex *m)
{
    pthread_mutex_lock(&m->m);
}

void ew_mutex_unlock(struct ew_mutex *m)
{
    pthread_mutex_unlock(&m->m);
}

void ew_wait_word(const uint32_t *word, uint32_t expect)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expect, NULL, NULL, 0);
}

void ew_wake_word(const uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

void ew_thread_yield(void)
{
    sched_yield();
}

uint32_t ew_os_pid(void)
{
    return (uint32_t)getpid();
}

void *ew_lib_open(const char *path, ew_error *err)
{
    void *const lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);

    if (!lib)
        ew_fail(err, EW_STATUS_NOT_FOUND, "%s: cannot load: %s", path, dlerror());
    return lib;
}

void *ew_lib_symbol(void *lib, const char *name)
{
    return dlsym(lib, name);
}

void ew_lib_close(void *lib)
{
    if (lib)
        dlclose(lib);
}
