/* engine/device_impl.h - what a context has on a device, for device.c and device_ahead.c. */
#ifndef EW_ENGINE_DEVICE_IMPL_H
#define EW_ENGINE_DEVICE_IMPL_H

#include "engine/engine_impl.h"

struct buffer {
    void *data;
    size_t cap;
};

struct place {     /* of an input with a host address, or of one that is looked up */
    void *address; /* on the device, now */
    size_t bytes, n_ids;
    size_t small_at; /* in the small block: of a small one, and of ids */
    bool small;
    struct buffer own; /* of a large one, and of rows that are looked up */
};

struct ew_on_device {
    struct ew_device *device;
    struct ew_stream *stream;
    void *block, *scratch, *counters;
    size_t counters_bytes;
    /* What one copy brings to the device, and pinned memory that it comes from: draws of outputs at
     * fixed places, then small inputs. */
    struct buffer small, small_host;
    size_t draws_bytes, small_used;
    struct place *in;
    struct buffer *held, *host_out; /* outputs: on the device, and read back */
    struct buffer *tokens;          /* picked from outputs, on the device */
    struct buffer lead_tokens;      /* pinned, i32 [2][n]: of runs that lead on, in turn */
    const struct ew_launch *begun;  /* whose next run is under way; NULL: nothing is */
    struct draws {
        size_t at, rows; /* in the small block; rows 0: none may be drawn */
    } * draws;
};

/* Grown, contents lost. */
ew_status ew_buffer_grow(struct ew_on_device *d, struct buffer *b, size_t bytes, const char *what,
                         bool on_host, ew_error *err);
/* Inputs to the device; outputs and tokens back; the list, as the context's flags say. */
ew_status ew_context_device_copy_in(struct ew_context *c, const struct ew_launch *l);
ew_status ew_context_device_copy_out(struct ew_context *c, const struct ew_launch *l);
ew_status ew_context_device_issue(struct ew_context *c, struct ew_launch *l);
/* Whether the host gets nothing of a run but tokens. */
bool ew_context_device_keeps_outputs(const struct ew_context *c);

/* device_ahead.c. Where a step of one token a row is one kernel that finds the likeliest tokens
 * itself, it leaves what the next step reads, and that step may begin before the host knows them.
 */
/* Output o, of n rows, of the list that was just made: its tokens by the list itself. False: it
 * cannot. */
ew_status ew_launch_lead_on(struct ew_context *c, struct ew_launch *l, uint32_t o, size_t n,
                            bool *can);
/* A run of such a list. */
ew_status ew_launch_run_leading(struct ew_context *c, struct ew_launch *l, bool ahead);

#endif
