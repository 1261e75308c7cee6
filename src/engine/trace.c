/* engine/trace.c - the process-wide trace recorder. The one place with global state: a trace covers
 * every context of the process, and an atomic flag is all that runs pay while it is off. */
#include "engine/engine_impl.h"

#include "base/buf.h"

struct trace_event {
    uint64_t begin_ns, end_ns;
    uintptr_t thread;
    char name[64], category[32];
};

static struct trace {
    uint32_t state; /* 0 off, 1 changing, 2 on */
    uint32_t next;
    uint32_t cap;
    uint32_t writers; /* threads inside ew_trace_add */
    uint64_t start_ns;
    struct trace_event *events;
} trace;

bool ew_trace_is_on(void)
{
    return __atomic_load_n(&trace.state, __ATOMIC_ACQUIRE) == 2;
}

static void copy_text(char *to, size_t cap, const char *from)
{
    size_t i = 0;

    for (; from && from[i] && i + 1 < cap; i++)
        to[i] = from[i] == '"' || from[i] == '\\' || (unsigned char)from[i] < 32 ? '_' : from[i];
    to[i] = 0;
}

void ew_trace_add(const char *name, const char *category, uint64_t begin_ns, uint64_t end_ns)
{
    static _Thread_local char here; /* its address tells threads apart */

    __atomic_fetch_add(&trace.writers, 1, __ATOMIC_ACQ_REL);
    if (ew_trace_is_on()) {
        const uint32_t i = __atomic_fetch_add(&trace.next, 1, __ATOMIC_RELAXED);

        if (i < trace.cap) {
            struct trace_event *ev = &trace.events[i];

            ev->begin_ns = begin_ns;
            ev->end_ns = end_ns;
            ev->thread = (uintptr_t)&here;
            copy_text(ev->name, sizeof(ev->name), name);
            copy_text(ev->category, sizeof(ev->category), category);
        } else {
            __atomic_fetch_sub(&trace.next, 1, __ATOMIC_RELAXED);
        }
    }
    __atomic_fetch_sub(&trace.writers, 1, __ATOMIC_ACQ_REL);
}

ew_status ew_trace_start(uint64_t max_events, ew_error *err)
{
    uint32_t off = 0;

    if (!__atomic_compare_exchange_n(&trace.state, &off, 1, false, __ATOMIC_ACQ_REL,
                                     __ATOMIC_ACQUIRE))
        return ew_fail(err, EW_STATUS_BUSY, "a trace is being recorded already");
    trace.cap = max_events == 0         ? 1u << 20
                : max_events > 1u << 28 ? 1u << 28
                                        : (uint32_t)max_events;
    trace.events = ew_mem_alloc(EW_MEM_MISC, (size_t)trace.cap * sizeof(*trace.events));
    if (!trace.events) {
        __atomic_store_n(&trace.state, 0, __ATOMIC_RELEASE);
        return ew_fail(err, EW_STATUS_NO_MEMORY, "trace of %u events", trace.cap);
    }
    trace.next = 0;
    trace.start_ns = ew_clock_ns();
    __atomic_store_n(&trace.state, 2, __ATOMIC_RELEASE);
    return EW_STATUS_OK;
}

static uint64_t since(uint64_t ns)
{
    return ns > trace.start_ns ? ns - trace.start_ns : 0;
}

ew_status ew_trace_write(const char *path, ew_error *err)
{
    uint32_t on = 2, n;
    struct ew_buf b;
    ew_status st;

    if (!__atomic_compare_exchange_n(&trace.state, &on, 1, false, __ATOMIC_ACQ_REL,
                                     __ATOMIC_ACQUIRE))
        return ew_fail(err, EW_STATUS_INVALID_ARG, "no trace is being recorded");
    while (__atomic_load_n(&trace.writers, __ATOMIC_ACQUIRE))
        ew_thread_yield();
    n = trace.next < trace.cap ? trace.next : trace.cap;
    ew_buf_init(&b, EW_MEM_MISC, SIZE_MAX / 2);
    ew_buf_puts(&b, "{\"displayTimeUnit\":\"ns\",\"traceEvents\":[");
    for (uint32_t i = 0; i < n; i++) {
        const struct trace_event *ev = &trace.events[i];
        const uint64_t at = since(ev->begin_ns), len = ev->end_ns - ev->begin_ns;

        ew_buf_printf(&b,
                      "%s\n{\"name\":\"%s\",\"cat\":\"%s\",\"ph\":\"X\",\"pid\":%u,\"tid\":%llu,",
                      i ? "," : "", ev->name, ev->category, ew_os_pid(),
                      (unsigned long long)(ev->thread >> 4 & 0xffffff));
        ew_buf_printf(&b, "\"ts\":%llu.%03u,\"dur\":%llu.%03u}", (unsigned long long)(at / 1000),
                      (unsigned)(at % 1000), (unsigned long long)(len / 1000),
                      (unsigned)(len % 1000));
    }
    ew_buf_puts(&b, "\n]}\n");
    st = b.failed ? ew_fail(err, EW_STATUS_NO_MEMORY, "trace of %u events", n)
                  : ew_file_write(path, b.data, b.len, err);
    ew_buf_deinit(&b);
    ew_mem_free(trace.events);
    trace.events = NULL;
    __atomic_store_n(&trace.state, 0, __ATOMIC_RELEASE);
    return st;
}
