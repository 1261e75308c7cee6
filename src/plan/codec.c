/* plan/codec.c - the cursor, the attribute codec. */
#include "plan/codec.h"

const char *ew_plan_section_text(unsigned section)
{
    static const char *const text[] = {
#define EW_PLAN_SECTION_NAME(id, name) name,
        EW_PLAN_SECTION_MAP(EW_PLAN_SECTION_NAME)
#undef EW_PLAN_SECTION_NAME
    };
    return section < EW_PLAN_N_SECTIONS ? text[section] : "?";
}

static uint64_t rd_bytes(struct ew_rd *r, unsigned n)
{
    uint64_t v = 0;

    if (r->bad || (size_t)(r->end - r->at) < n) {
        r->bad = true;
        return 0;
    }
    for (unsigned i = 0; i < n; i++)
        v |= (uint64_t)r->at[i] << (8 * i);
    r->at += n;
    return v;
}

uint8_t ew_rd_u8(struct ew_rd *r)
{
    return (uint8_t)rd_bytes(r, 1);
}

uint32_t ew_rd_u32(struct ew_rd *r)
{
    return (uint32_t)rd_bytes(r, 4);
}

uint64_t ew_rd_u64(struct ew_rd *r)
{
    return rd_bytes(r, 8);
}

uint32_t ew_rd_count(struct ew_rd *r, size_t min_bytes)
{
    const uint32_t n = ew_rd_u32(r);

    if (r->bad || n > (size_t)(r->end - r->at) / min_bytes) {
        r->bad = true;
        return 0;
    }
    return n;
}

const char *ew_rd_str(struct ew_rd *r, struct ew_arena *a)
{
    const uint32_t n = ew_rd_count(r, 1);
    const char *s;

    if (r->bad || memchr(r->at, 0, n)) {
        r->bad = true;
        return NULL;
    }
    s = ew_arena_strndup(a, (const char *)r->at, n);
    r->at += n;
    r->bad = r->bad || !s;
    return s;
}

void ew_put_u32(uint8_t *at, uint32_t v)
{
    for (unsigned i = 0; i < 4; i++)
        at[i] = (uint8_t)(v >> (8 * i));
}

void ew_put_u64(uint8_t *at, uint64_t v)
{
    for (unsigned i = 0; i < 8; i++)
        at[i] = (uint8_t)(v >> (8 * i));
}

bool ew_wr_u8(struct ew_buf *b, uint8_t v)
{
    return ew_buf_append(b, &v, 1);
}

bool ew_wr_u32(struct ew_buf *b, uint32_t v)
{
    uint8_t raw[4];

    ew_put_u32(raw, v);
    return ew_buf_append(b, raw, sizeof(raw));
}

bool ew_wr_u64(struct ew_buf *b, uint64_t v)
{
    uint8_t raw[8];

    ew_put_u64(raw, v);
    return ew_buf_append(b, raw, sizeof(raw));
}

bool ew_wr_str(struct ew_buf *b, const char *s)
{
    const size_t n = strlen(s);

    return ew_wr_u32(b, (uint32_t)n) && ew_buf_append(b, s, n);
}

static void wr_program(struct ew_buf *b, const struct ew_attr_pointwise *p)
{
    ew_wr_u32(b, (uint32_t)p->n_instr);
    for (int32_t i = 0; i < p->n_instr; i++) {
        uint32_t bits;

        ew_wr_u8(b, p->instr[i].op);
        ew_wr_u8(b, p->instr[i].dst);
        ew_wr_u8(b, p->instr[i].a);
        ew_wr_u8(b, p->instr[i].b);
        memcpy(&bits, &p->instr[i].imm, 4);
        ew_wr_u32(b, bits);
    }
}

static bool rd_program(struct ew_rd *r, struct ew_attr_pointwise *p)
{
    const uint32_t n = ew_rd_count(r, 8);

    if (r->bad || n < 1 || n > EW_PW_MAX_INSTR)
        return false;
    p->n_instr = (int32_t)n;
    for (uint32_t i = 0; i < n; i++) {
        struct ew_pw_instr *in = &p->instr[i];
        uint32_t bits;

        in->op = ew_rd_u8(r);
        in->dst = ew_rd_u8(r);
        in->a = ew_rd_u8(r);
        in->b = ew_rd_u8(r);
        bits = ew_rd_u32(r);
        memcpy(&in->imm, &bits, 4);
        if (in->op >= EW_PW_OP_COUNT || in->dst >= EW_PW_MAX_REGS || in->a >= EW_PW_MAX_REGS ||
            in->b >= EW_PW_MAX_REGS)
            return false;
    }
    return !r->bad;
}

void ew_wr_attrs(struct ew_buf *b, ew_op op, const union ew_attrs *attrs)
{
    const struct ew_attr_field *f = ew_op_get(op)->fields;
    struct ew_ints ints;
    uint64_t v64;
    uint32_t v32;

    if (op == EW_OP_POINTWISE) {
        wr_program(b, &attrs->pointwise);
        return;
    }
    for (; f && f->name; f++) {
        const uint8_t *at = (const uint8_t *)attrs + f->offset;

        switch (f->type) {
        case EW_FIELD_I32:
        case EW_FIELD_ENUM:
        case EW_FIELD_DTYPE:
        case EW_FIELD_F32:
            memcpy(&v32, at, 4);
            ew_wr_u32(b, v32);
            break;
        case EW_FIELD_I64:
        case EW_FIELD_F64:
            memcpy(&v64, at, 8);
            ew_wr_u64(b, v64);
            break;
        case EW_FIELD_INTS:
            memcpy(&ints, at, sizeof(ints));
            ew_wr_u32(b, (uint32_t)ints.n);
            for (int32_t i = 0; i < ints.n; i++)
                ew_wr_u64(b, (uint64_t)ints.v[i]);
            break;
        case EW_FIELD_TEXT:
            ew_wr_str(b, (const char *)at);
            break;
        case EW_FIELD_PROGRAM:
            break; /* Pointwise only, above */
        }
    }
}

static bool rd_ints(struct ew_rd *r, uint8_t *at)
{
    struct ew_ints ints = { 0 };
    const uint32_t n = ew_rd_count(r, 8);

    if (n > EW_MAX_INTS)
        return false;
    ints.n = (int32_t)n;
    for (uint32_t i = 0; i < n; i++)
        ints.v[i] = (int64_t)ew_rd_u64(r);
    memcpy(at, &ints, sizeof(ints));
    return !r->bad;
}

static bool rd_text(struct ew_rd *r, uint8_t *at, size_t cap)
{
    const uint32_t n = ew_rd_count(r, 1);

    if (r->bad || n >= cap || memchr(r->at, 0, n))
        return false;
    memcpy(at, r->at, n);
    at[n] = 0;
    r->at += n;
    return true;
}

static bool rd_field(struct ew_rd *r, const struct ew_attr_field *f, uint8_t *at)
{
    uint64_t v64;
    uint32_t v32, n = 0;

    switch (f->type) {
    case EW_FIELD_I32:
    case EW_FIELD_ENUM:
    case EW_FIELD_DTYPE:
    case EW_FIELD_F32:
        v32 = ew_rd_u32(r);
        while (f->type == EW_FIELD_ENUM && f->names && f->names[n])
            n++;
        if ((f->type == EW_FIELD_ENUM && v32 >= n) ||
            (f->type == EW_FIELD_DTYPE && v32 >= EW_DTYPE_COUNT))
            return false;
        memcpy(at, &v32, 4);
        return true;
    case EW_FIELD_I64:
    case EW_FIELD_F64:
        v64 = ew_rd_u64(r);
        memcpy(at, &v64, 8);
        return true;
    case EW_FIELD_INTS:
        return rd_ints(r, at);
    case EW_FIELD_TEXT:
        return rd_text(r, at, f->cap);
    case EW_FIELD_PROGRAM:
        return false;
    }
    return false;
}

bool ew_rd_attrs(struct ew_rd *r, ew_op op, union ew_attrs *attrs)
{
    const struct ew_attr_field *f = ew_op_get(op)->fields;

    ew_op_attrs_init(op, attrs);
    if (op == EW_OP_POINTWISE)
        return rd_program(r, &attrs->pointwise);
    for (; f && f->name; f++)
        if (!rd_field(r, f, (uint8_t *)attrs + f->offset) || r->bad)
            return false;
    return !r->bad;
}

static int append_json(const char *bytes, size_t len, void *ctx)
{
    return ew_buf_append(ctx, bytes, len) ? 0 : -1;
}

char *ew_plan_json_text(const json_t *json, size_t flags, enum ew_mem_tag tag)
{
    struct ew_buf b;
    char *text = NULL;

    ew_buf_init(&b, tag, (size_t)1 << 30);
    if (json && json_dump_callback(json, append_json, &b, flags) == 0)
        text = ew_buf_take(&b);
    ew_buf_deinit(&b);
    return text;
}
