/* checkpoint/torch_pickle.h - a pickle machine for what torch.save writes of a dict of tensors, and
 * for nothing else. Nothing is ever imported, called or constructed: the handful of globals that
 * such a file names are words of this machine, any other one ends the reading with its name.
 *
 * The result is flat: values are 16 bytes and refer to strings in the pickle and to ranges of one
 * pool. What a call of a tensor function means is torch_tensors.c's business.
 *
 * Protocols 2 to 5 (the opcodes that 5 adds are not among those read). Format: CPython's
 * Lib/pickletools.py. */
#ifndef EW_CHECKPOINT_TORCH_PICKLE_H
#define EW_CHECKPOINT_TORCH_PICKLE_H

#include "base/buf.h"
#include "base/error.h"

enum ew_pickle_kind {
    EW_PICKLE_NONE,
    EW_PICKLE_BOOL,    /* number */
    EW_PICKLE_INT,     /* number */
    EW_PICKLE_FLOAT,   /* contents dropped */
    EW_PICKLE_STR,     /* n bytes at `number` of the pickle */
    EW_PICKLE_TUPLE,   /* n values at `number` of the pool */
    EW_PICKLE_LIST,    /* contents dropped */
    EW_PICKLE_DICT,    /* its number: entries have it */
    EW_PICKLE_STORAGE, /* a persistent id: its tuple's n values at `number` of the pool */
    EW_PICKLE_TENSOR,  /* n arguments of `global` at `number` of the pool */
    EW_PICKLE_DTYPE,   /* torch.float32, or the storage class torch.FloatStorage: a dtype */
    EW_PICKLE_BYTES,   /* the class torch.storage.UntypedStorage */
    EW_PICKLE_FUNC,    /* number: which ew_pickle_func */
    EW_PICKLE_MARK,    /* never in a result */
};

enum ew_pickle_func {
    EW_PICKLE_ORDERED_DICT,
    EW_PICKLE_REBUILD_V2,        /* (storage, offset, size, stride, grad, hooks[, metadata]) */
    EW_PICKLE_REBUILD_V3,        /* (storage, offset, size, stride, grad, hooks, dtype[, ...]) */
    EW_PICKLE_REBUILD_PARAMETER, /* (tensor, grad, hooks) */
};

struct ew_pickle_value {
    uint16_t kind;
    uint16_t func; /* of a tensor: V2 or V3 */
    uint32_t n;
    int64_t number;
};

struct ew_pickle_entry { /* one item of one dict, in the order of the pickle */
    int64_t dict;
    struct ew_pickle_value key, value;
};

struct ew_pickle {
    struct ew_str text; /* the pickle itself: borrowed, for strings */
    struct ew_pickle_value *pool;
    size_t n_pool, cap_pool;
    struct ew_pickle_entry *entries;
    size_t n_entries, cap_entries;
    struct ew_pickle_value result;
};

/* Reads one pickle that fills `text`, which must outlive *p. `what` names it in errors. Time and
 * memory are bounded by a multiple of its length. UNSUPPORTED names the global or the opcode that
 * is not read; LIMIT above 64 MiB. */
ew_status ew_pickle_read(struct ew_str text, const char *what, struct ew_pickle *p, ew_error *err);
/* A zeroed *p is fine. */
void ew_pickle_deinit(struct ew_pickle *p);

/* Of a STR. */
struct ew_str ew_pickle_str(const struct ew_pickle *p, struct ew_pickle_value v);
/* "a float": for messages. */
const char *ew_pickle_kind_text(unsigned kind);

#endif
