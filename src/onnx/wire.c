/* onnx/wire.c - from bytes of an untrusted protobuf to an unpacked message, with bounded stack and
 * memory.
 *
 * protobuf-c recurses once per nested message and allocates as it reads. The scan walks the same
 * bytes first with a stack of its own, so that nesting is at most MAX_DEPTH and every length lies
 * inside its parent; the allocator then stops at a multiple of the file's length. Owns neither the
 * file nor what the message means. */
#include <string.h>

#include "onnx/onnx_int.h"

#define MAX_DEPTH  64
#define MEM_FACTOR 32u
#define MEM_SLACK  ((size_t)1 << 20)

struct frame {
    size_t end;
    const ProtobufCMessageDescriptor *desc; /* NULL never */
    uint64_t seen;                          /* singular message fields so far */
};

struct scan {
    const uint8_t *bytes;
    size_t pos;
    struct frame frame[MAX_DEPTH];
    int depth;
    ew_error *err;
};

static bool read_varint(struct scan *s, size_t end, uint64_t *out)
{
    uint64_t v = 0;

    for (unsigned shift = 0; shift < 70; shift += 7) {
        if (s->pos >= end)
            return false;
        const uint8_t b = s->bytes[s->pos++];
        if (shift < 64)
            v |= (uint64_t)(b & 0x7fu) << shift;
        if (!(b & 0x80u)) {
            *out = v;
            return true;
        }
    }
    return false;
}

/* A singular message given twice is legal protobuf (the parts are merged); no writer does it, and
 * merging is where unpackers go wrong, so it is refused. */
static ew_status enter(struct scan *s, const ProtobufCFieldDescriptor *field, size_t len)
{
    struct frame *f = &s->frame[s->depth - 1];

    if (field->label != PROTOBUF_C_LABEL_REPEATED) {
        const size_t i = (size_t)(field - f->desc->fields);
        if (i < 64 && (f->seen >> i & 1u))
            return ew_fail(s->err, EW_STATUS_MALFORMED, "protobuf field %s.%s given twice",
                           f->desc->short_name, field->name);
        if (i < 64)
            f->seen |= (uint64_t)1 << i;
    }
    if (s->depth == MAX_DEPTH)
        return ew_fail(s->err, EW_STATUS_LIMIT, "protobuf messages nested more than %d deep",
                       MAX_DEPTH);
    s->frame[s->depth++] =
        (struct frame){ s->pos + len, (const ProtobufCMessageDescriptor *)field->descriptor, 0 };
    return EW_STATUS_OK;
}

static ew_status bad(const struct scan *s, const char *what)
{
    return ew_fail(s->err, EW_STATUS_MALFORMED, "protobuf %s at byte %zu (inside %s)", what, s->pos,
                   s->frame[s->depth - 1].desc->short_name);
}

static ew_status scan_field(struct scan *s)
{
    const struct frame *f = &s->frame[s->depth - 1];
    uint64_t tag, len;

    if (!read_varint(s, f->end, &tag) || tag >> 3 == 0 || tag >> 32 != 0)
        return bad(s, "field tag broken");
    switch (tag & 7u) {
    case 0:
        return read_varint(s, f->end, &len) ? EW_STATUS_OK : bad(s, "varint cut off");
    case 1:
    case 5: {
        const size_t n = (tag & 7u) == 1 ? 8 : 4;
        if (f->end - s->pos < n)
            return bad(s, "fixed-width value cut off");
        s->pos += n;
        return EW_STATUS_OK;
    }
    case 2: {
        if (!read_varint(s, f->end, &len) || len > f->end - s->pos)
            return bad(s, "length past the end");
        const ProtobufCFieldDescriptor *field =
            protobuf_c_message_descriptor_get_field(f->desc, (unsigned)(tag >> 3));
        if (field && field->type == PROTOBUF_C_TYPE_MESSAGE)
            return enter(s, field, (size_t)len);
        s->pos += (size_t)len;
        return EW_STATUS_OK;
    }
    default:
        return bad(s, "wire type not known");
    }
}

ew_status ew_onnx_scan(const uint8_t *bytes, size_t len, const ProtobufCMessageDescriptor *root,
                       ew_error *err)
{
    struct scan s = { .bytes = bytes, .depth = 1, .err = err };

    s.frame[0] = (struct frame){ len, root, 0 };
    while (s.depth > 0) {
        if (s.pos == s.frame[s.depth - 1].end) {
            s.depth--;
            continue;
        }
        EW_TRY(scan_field(&s));
    }
    return EW_STATUS_OK;
}

/* ---- unpacking ---- */

struct budget {
    size_t left;
    bool no_memory;
};

static void *budget_alloc(void *ctx, size_t bytes)
{
    struct budget *b = ctx;

    if (bytes > b->left)
        return NULL;
    b->left -= bytes;
    void *const p = ew_mem_alloc(EW_MEM_ONNX, bytes);
    b->no_memory = b->no_memory || !p;
    return p;
}

static void plain_free(void *ctx, void *p)
{
    (void)ctx;
    ew_mem_free(p);
}

ew_status ew_onnx_unpack(const uint8_t *bytes, size_t len, const ProtobufCMessageDescriptor *root,
                         const char *what, ProtobufCMessage **out, ew_error *err)
{
    struct budget budget = { 0 };
    ProtobufCAllocator allocator = { budget_alloc, plain_free, &budget };

    EW_TRY(ew_onnx_scan(bytes, len, root, err));
    if (!ew_size_mul(len, MEM_FACTOR, &budget.left) ||
        !ew_size_add(budget.left, MEM_SLACK, &budget.left))
        return ew_fail(err, EW_STATUS_LIMIT, "%s of %zu bytes is too large", what, len);
    *out = protobuf_c_message_unpack(root, &allocator, len, bytes);
    if (!*out && budget.no_memory)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "no memory to unpack %s of %zu bytes", what, len);
    if (!*out)
        return ew_fail(err, EW_STATUS_MALFORMED,
                       "not a well-formed %s (or it unpacks to more than %u times its %zu bytes)",
                       what, MEM_FACTOR, len);
    return EW_STATUS_OK;
}

void ew_onnx_message_free(void *message)
{
    ProtobufCAllocator allocator = { budget_alloc, plain_free, NULL };

    if (message)
        protobuf_c_message_free_unpacked(message, &allocator);
}
