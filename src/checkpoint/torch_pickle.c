/* checkpoint/torch_pickle.c - the machine: a stack, a memo, a pool of tuples' values, and the items
 * of dicts. No recursion: an opcode touches the top of the stack only. */
#include "checkpoint/torch_pickle.h"

#include "base/size.h"

/* A checkpoint's pickle takes some 200 bytes a tensor. */
#define MAX_PICKLE_BYTES ((size_t)64 << 20)

enum opcode { /* pickletools' names */
              OP_MARK = '(',
              OP_EMPTY_TUPLE = ')',
              OP_STOP = '.',
              OP_POP = '0',
              OP_POP_MARK = '1',
              OP_BINFLOAT = 'G',
              OP_BININT = 'J',
              OP_BININT1 = 'K',
              OP_BININT2 = 'M',
              OP_NONE = 'N',
              OP_BINPERSID = 'Q',
              OP_REDUCE = 'R',
              OP_BINUNICODE = 'X',
              OP_EMPTY_LIST = ']',
              OP_APPEND = 'a',
              OP_BUILD = 'b',
              OP_GLOBAL = 'c',
              OP_APPENDS = 'e',
              OP_BINGET = 'h',
              OP_LONG_BINGET = 'j',
              OP_BINPUT = 'q',
              OP_LONG_BINPUT = 'r',
              OP_SETITEM = 's',
              OP_TUPLE = 't',
              OP_SETITEMS = 'u',
              OP_EMPTY_DICT = '}',
              OP_PROTO = 0x80,
              OP_TUPLE1 = 0x85,
              OP_TUPLE2 = 0x86,
              OP_TUPLE3 = 0x87,
              OP_NEWTRUE = 0x88,
              OP_NEWFALSE = 0x89,
              OP_LONG1 = 0x8a,
              OP_SHORT_BINUNICODE = 0x8c,
              OP_BINUNICODE8 = 0x8d,
              OP_STACK_GLOBAL = 0x93,
              OP_MEMOIZE = 0x94,
              OP_FRAME = 0x95,
};

static const struct {
    const char *module, *name;
    enum ew_pickle_kind kind;
    int64_t number; /* ew_pickle_func or ew_dtype */
} globals[] = {
    { "collections", "OrderedDict", EW_PICKLE_FUNC, EW_PICKLE_ORDERED_DICT },
    { "torch._utils", "_rebuild_tensor_v2", EW_PICKLE_FUNC, EW_PICKLE_REBUILD_V2 },
    { "torch._utils", "_rebuild_tensor_v3", EW_PICKLE_FUNC, EW_PICKLE_REBUILD_V3 },
    { "torch._utils", "_rebuild_parameter", EW_PICKLE_FUNC, EW_PICKLE_REBUILD_PARAMETER },
    { "torch.storage", "UntypedStorage", EW_PICKLE_BYTES, 0 },
    { "torch", "FloatStorage", EW_PICKLE_DTYPE, EW_DTYPE_F32 },
    { "torch", "HalfStorage", EW_PICKLE_DTYPE, EW_DTYPE_F16 },
    { "torch", "BFloat16Storage", EW_PICKLE_DTYPE, EW_DTYPE_BF16 },
    { "torch", "DoubleStorage", EW_PICKLE_DTYPE, EW_DTYPE_F64 },
    { "torch", "LongStorage", EW_PICKLE_DTYPE, EW_DTYPE_I64 },
    { "torch", "IntStorage", EW_PICKLE_DTYPE, EW_DTYPE_I32 },
    { "torch", "ShortStorage", EW_PICKLE_DTYPE, EW_DTYPE_I16 },
    { "torch", "CharStorage", EW_PICKLE_DTYPE, EW_DTYPE_I8 },
    { "torch", "ByteStorage", EW_PICKLE_DTYPE, EW_DTYPE_U8 },
    { "torch", "BoolStorage", EW_PICKLE_DTYPE, EW_DTYPE_BOOL },
    /* dtypes without a storage class of their own: the last argument of _rebuild_tensor_v3 */
    { "torch", "uint16", EW_PICKLE_DTYPE, EW_DTYPE_U16 },
    { "torch", "uint32", EW_PICKLE_DTYPE, EW_DTYPE_U32 },
    { "torch", "uint64", EW_PICKLE_DTYPE, EW_DTYPE_U64 },
    { "torch", "float8_e4m3fn", EW_PICKLE_DTYPE, EW_DTYPE_F8E4M3 },
    { "torch", "float8_e5m2", EW_PICKLE_DTYPE, EW_DTYPE_F8E5M2 },
    { "torch", "float8_e4m3fnuz", EW_PICKLE_DTYPE, EW_DTYPE_F8E4M3FNUZ },
    { "torch", "float8_e5m2fnuz", EW_PICKLE_DTYPE, EW_DTYPE_F8E5M2FNUZ },
    { "torch", "float8_e8m0fnu", EW_PICKLE_DTYPE, EW_DTYPE_F8E8M0 },
};

struct machine {
    struct ew_pickle *p;
    const char *what;
    const uint8_t *bytes;
    size_t len, at, op_at;
    struct ew_pickle_value *stack;
    size_t n_stack, cap_stack;
    struct ew_pickle_value *memo; /* kind MARK where nothing was put */
    size_t n_memo, cap_memo;
    int64_t n_dicts;
    bool stopped;
    ew_error *err;
};

static ew_status malformed(const struct machine *m, const char *why)
{
    return ew_fail(m->err, EW_STATUS_MALFORMED, "%s: pickle: opcode 0x%02x at byte %zu %s", m->what,
                   m->op_at < m->len ? m->bytes[m->op_at] : 0, m->op_at, why);
}

static ew_status no_memory(const struct machine *m)
{
    return ew_fail(m->err, EW_STATUS_NO_MEMORY, "%s: no memory for its pickle", m->what);
}

/* Room for `extra` more things of `size` bytes in *array; false when out of memory. */
static bool make_room(void **array, size_t n, size_t *cap, size_t extra, size_t size)
{
    size_t want = *cap ? *cap : 64;
    void *p;

    while (want - n < extra)
        want *= 2; /* n and extra are counts of bytes in memory: no overflow */
    if (want == *cap)
        return true;
    p = ew_mem_resize(EW_MEM_CHECKPOINT, *array, want, size);
    if (!p)
        return false;
    *array = p;
    *cap = want;
    return true;
}

static ew_status push(struct machine *m, enum ew_pickle_kind kind, uint32_t n, int64_t number)
{
    void *stack = m->stack;

    if (!make_room(&stack, m->n_stack, &m->cap_stack, 1, sizeof(*m->stack)))
        return no_memory(m);
    m->stack = stack;
    m->stack[m->n_stack++] =
        (struct ew_pickle_value){ .kind = (uint16_t)kind, .n = n, .number = number };
    return EW_STATUS_OK;
}

/* The top `n` values; none of them is a mark. */
static ew_status need(const struct machine *m, size_t n)
{
    if (m->n_stack < n)
        return malformed(m, "finds too few values on the stack");
    for (size_t i = m->n_stack - n; i < m->n_stack; i++)
        if (m->stack[i].kind == EW_PICKLE_MARK)
            return malformed(m, "finds a mark where a value should be");
    return EW_STATUS_OK;
}

/* How many values lie above the last mark. Every value is counted once before it leaves. */
static ew_status count_to_mark(const struct machine *m, size_t *n)
{
    size_t i = m->n_stack;

    while (i > 0 && m->stack[i - 1].kind != EW_PICKLE_MARK)
        i--;
    if (i == 0)
        return malformed(m, "finds no mark");
    *n = m->n_stack - i;
    return EW_STATUS_OK;
}

/* ---- operands ---- */

static ew_status take(struct machine *m, size_t n, const uint8_t **out)
{
    if (n > m->len - m->at)
        return malformed(m, "is cut short");
    *out = m->bytes + m->at;
    m->at += n;
    return EW_STATUS_OK;
}

/* Little endian, unsigned. */
static ew_status take_number(struct machine *m, size_t n_bytes, uint64_t *out)
{
    const uint8_t *p = NULL;

    EW_TRY(take(m, n_bytes, &p));
    *out = 0;
    for (size_t i = n_bytes; i-- > 0;)
        *out = *out << 8 | p[i];
    return EW_STATUS_OK;
}

static ew_status take_str(struct machine *m, size_t n_bytes)
{
    uint64_t n = 0;
    size_t at;

    EW_TRY(take_number(m, n_bytes, &n));
    if (n > m->len - m->at)
        return malformed(m, "is cut short");
    at = m->at;
    m->at += (size_t)n;
    return push(m, EW_PICKLE_STR, (uint32_t)n, (int64_t)at);
}

/* n_bytes of two's complement. */
static ew_status take_int(struct machine *m, size_t n_bytes)
{
    uint64_t v = 0;

    if (n_bytes > 8)
        return malformed(m, "is an integer of more than 64 bits");
    EW_TRY(take_number(m, n_bytes, &v));
    if (n_bytes > 0 && n_bytes < 8 && v >> (8 * n_bytes - 1))
        v |= UINT64_MAX << (8 * n_bytes);
    return push(m, EW_PICKLE_INT, 0, (int64_t)v);
}

static ew_status take_line(struct machine *m, struct ew_str *line)
{
    const char *begin = (const char *)m->bytes + m->at;
    const char *end = memchr(begin, '\n', m->len - m->at);

    if (!end)
        return malformed(m, "is cut short");
    *line = (struct ew_str){ begin, (size_t)(end - begin) };
    m->at += line->len + 1;
    return EW_STATUS_OK;
}

/* ---- what opcodes do ---- */

static ew_status do_global(struct machine *m, struct ew_str module, struct ew_str name)
{
    for (size_t i = 0; i < EW_COUNT(globals); i++)
        if (ew_str_is(module, globals[i].module) && ew_str_is(name, globals[i].name))
            return push(m, globals[i].kind, 0, globals[i].number);
    return ew_fail(m->err, EW_STATUS_UNSUPPORTED,
                   "%s: pickle asks for '%.*s.%.*s': only tensors are read", m->what,
                   (int)(module.len < 200 ? module.len : 200), module.at,
                   (int)(name.len < 200 ? name.len : 200), name.at);
}

static ew_status do_stack_global(struct machine *m)
{
    const struct ew_pickle_value *top;

    EW_TRY(need(m, 2));
    top = &m->stack[m->n_stack - 2];
    if (top[0].kind != EW_PICKLE_STR || top[1].kind != EW_PICKLE_STR)
        return malformed(m, "names a global by something else than text");
    m->n_stack -= 2;
    return do_global(m, ew_pickle_str(m->p, top[0]), ew_pickle_str(m->p, top[1]));
}

/* The top n values become a tuple; with_mark: the mark below them goes too. */
static ew_status do_tuple(struct machine *m, size_t n, bool with_mark)
{
    struct ew_pickle *p = m->p;
    const size_t at = p->n_pool;
    void *pool = p->pool;

    EW_TRY(need(m, n));
    if (!make_room(&pool, p->n_pool, &p->cap_pool, n, sizeof(*p->pool)))
        return no_memory(m);
    p->pool = pool;
    for (size_t i = 0; i < n; i++)
        p->pool[p->n_pool++] = m->stack[m->n_stack - n + i];
    m->n_stack -= n + with_mark;
    return push(m, EW_PICKLE_TUPLE, (uint32_t)n, (int64_t)at);
}

/* The top n values are keys and values by turns, the dict lies below them (and below a mark). */
static ew_status do_items(struct machine *m, size_t n, bool with_mark)
{
    struct ew_pickle *p = m->p;
    void *entries = p->entries;
    const struct ew_pickle_value *dict;

    if (n % 2)
        return malformed(m, "finds a key without a value");
    EW_TRY(need(m, n));
    if (m->n_stack < n + with_mark + 1 ||
        m->stack[m->n_stack - n - with_mark - 1].kind != EW_PICKLE_DICT)
        return malformed(m, "puts items into something else than a dict");
    dict = &m->stack[m->n_stack - n - with_mark - 1];
    if (!make_room(&entries, p->n_entries, &p->cap_entries, n / 2, sizeof(*p->entries)))
        return no_memory(m);
    p->entries = entries;
    for (size_t i = 0; i < n; i += 2)
        p->entries[p->n_entries++] =
            (struct ew_pickle_entry){ .dict = dict->number,
                                      .key = m->stack[m->n_stack - n + i],
                                      .value = m->stack[m->n_stack - n + i + 1] };
    m->n_stack -= n + with_mark;
    return EW_STATUS_OK;
}

/* Lists are in no file that is read: they are followed so that the refusal can name their key. */
static ew_status do_append(struct machine *m, size_t n, bool with_mark)
{
    EW_TRY(need(m, n));
    if (m->n_stack < n + with_mark + 1 ||
        m->stack[m->n_stack - n - with_mark - 1].kind != EW_PICKLE_LIST)
        return malformed(m, "appends to something else than a list");
    m->n_stack -= n + with_mark;
    return EW_STATUS_OK;
}

static ew_status call_func(struct machine *m, int64_t func, struct ew_pickle_value args)
{
    const struct ew_pickle_value *arg = m->p->pool + args.number;

    if (func == EW_PICKLE_ORDERED_DICT) {
        if (args.n != 0)
            return malformed(m, "makes an OrderedDict of something");
        return push(m, EW_PICKLE_DICT, 0, m->n_dicts++);
    }
    if (func == EW_PICKLE_REBUILD_PARAMETER) {
        if (args.n != 3 || arg[0].kind != EW_PICKLE_TENSOR)
            return malformed(m, "makes a parameter of something else than a tensor");
        EW_TRY(push(m, EW_PICKLE_TENSOR, arg[0].n, arg[0].number));
        m->stack[m->n_stack - 1].func = arg[0].func;
        return EW_STATUS_OK;
    }
    EW_TRY(push(m, EW_PICKLE_TENSOR, args.n, args.number));
    m->stack[m->n_stack - 1].func = (uint16_t)func;
    return EW_STATUS_OK;
}

static ew_status do_reduce(struct machine *m)
{
    struct ew_pickle_value func, args;

    EW_TRY(need(m, 2));
    func = m->stack[m->n_stack - 2];
    args = m->stack[m->n_stack - 1];
    if (func.kind != EW_PICKLE_FUNC || args.kind != EW_PICKLE_TUPLE)
        return malformed(m, "calls something that is no function of tensors");
    m->n_stack -= 2;
    return call_func(m, func.number, args);
}

/* A module's state dict has its attribute _metadata (versions of classes) set this way. Attributes
 * of a dict are none of its items: nothing to keep. */
static ew_status do_build(struct machine *m)
{
    EW_TRY(need(m, 2));
    if (m->stack[m->n_stack - 2].kind != EW_PICKLE_DICT ||
        m->stack[m->n_stack - 1].kind != EW_PICKLE_DICT)
        return malformed(m, "sets the state of something else than a dict");
    m->n_stack--;
    return EW_STATUS_OK;
}

static ew_status do_persistent_id(struct machine *m)
{
    EW_TRY(need(m, 1));
    if (m->stack[m->n_stack - 1].kind != EW_PICKLE_TUPLE)
        return malformed(m, "names a storage by something else than a tuple");
    m->stack[m->n_stack - 1].kind = EW_PICKLE_STORAGE;
    return EW_STATUS_OK;
}

/* Picklers number the memo from 0 up, so a number beyond the pickle's length is a lie. */
static ew_status do_put(struct machine *m, uint64_t i)
{
    void *memo = m->memo;

    EW_TRY(need(m, 1));
    if (i >= m->len)
        return malformed(m, "puts into the memo beyond what the pickle can fill");
    if (i >= m->n_memo) {
        if (!make_room(&memo, m->n_memo, &m->cap_memo, (size_t)i + 1 - m->n_memo, sizeof(*m->memo)))
            return no_memory(m);
        m->memo = memo;
        while (m->n_memo <= i)
            m->memo[m->n_memo++] = (struct ew_pickle_value){ .kind = EW_PICKLE_MARK };
    }
    m->memo[i] = m->stack[m->n_stack - 1];
    return EW_STATUS_OK;
}

static ew_status do_get(struct machine *m, uint64_t i)
{
    if (i >= m->n_memo || m->memo[i].kind == EW_PICKLE_MARK)
        return malformed(m, "gets what was never put into the memo");
    EW_TRY(push(m, EW_PICKLE_NONE, 0, 0));
    m->stack[m->n_stack - 1] = m->memo[i];
    return EW_STATUS_OK;
}

static ew_status do_stop(struct machine *m)
{
    EW_TRY(need(m, 1));
    if (m->n_stack != 1)
        return malformed(m, "leaves values on the stack");
    if (m->at != m->len)
        return malformed(m, "has bytes behind it");
    m->p->result = m->stack[0];
    m->stopped = true;
    return EW_STATUS_OK;
}

/* ---- opcodes by what follows them ---- */

static ew_status step_operand(struct machine *m, uint8_t op)
{
    const size_t width = op == OP_BINPUT || op == OP_BINGET || op == OP_LONG1 || op == OP_PROTO ? 1
                         : op == OP_FRAME                                                       ? 8
                                                                                                : 4;
    uint64_t v = 0;

    EW_TRY(take_number(m, width, &v));
    switch (op) {
    case OP_PROTO:
        return v >= 2 && v <= 5
                   ? EW_STATUS_OK
                   : ew_fail(m->err, EW_STATUS_UNSUPPORTED,
                             "%s: pickle protocol %u, 2 to 5 are read", m->what, (unsigned)v);
    case OP_FRAME: /* a hint for readers of streams */
        return v <= m->len - m->at ? EW_STATUS_OK : malformed(m, "is cut short");
    case OP_LONG1:
        return take_int(m, (size_t)v);
    case OP_BINPUT:
    case OP_LONG_BINPUT:
        return do_put(m, v);
    default:
        return do_get(m, v);
    }
}

static ew_status step_marked(struct machine *m, uint8_t op)
{
    size_t n = 0;

    EW_TRY(count_to_mark(m, &n));
    switch (op) {
    case OP_TUPLE:
        return do_tuple(m, n, true);
    case OP_SETITEMS:
        return do_items(m, n, true);
    case OP_APPENDS:
        return do_append(m, n, true);
    default:
        m->n_stack -= n + 1;
        return EW_STATUS_OK;
    }
}

static ew_status step_global(struct machine *m)
{
    struct ew_str module = { 0 }, name = { 0 };

    EW_TRY(take_line(m, &module));
    EW_TRY(take_line(m, &name));
    return do_global(m, module, name);
}

static ew_status step(struct machine *m)
{
    const uint8_t *p = NULL;
    uint8_t op;

    m->op_at = m->at;
    if (m->at == m->len)
        return malformed(m, "is missing: the pickle has no end");
    op = m->bytes[m->at++];
    switch (op) {
    case OP_MARK:
        return push(m, EW_PICKLE_MARK, 0, 0);
    case OP_NONE:
        return push(m, EW_PICKLE_NONE, 0, 0);
    case OP_NEWTRUE:
    case OP_NEWFALSE:
        return push(m, EW_PICKLE_BOOL, 0, op == OP_NEWTRUE);
    case OP_BININT:
        return take_int(m, 4);
    case OP_BININT1: /* these two are unsigned */
    case OP_BININT2: {
        uint64_t v = 0;

        EW_TRY(take_number(m, op == OP_BININT1 ? 1 : 2, &v));
        return push(m, EW_PICKLE_INT, 0, (int64_t)v);
    }
    case OP_BINFLOAT:
        EW_TRY(take(m, 8, &p));
        return push(m, EW_PICKLE_FLOAT, 0, 0);
    case OP_SHORT_BINUNICODE:
        return take_str(m, 1);
    case OP_BINUNICODE:
        return take_str(m, 4);
    case OP_BINUNICODE8:
        return take_str(m, 8);
    case OP_EMPTY_TUPLE:
        return do_tuple(m, 0, false);
    case OP_TUPLE1:
    case OP_TUPLE2:
    case OP_TUPLE3:
        return do_tuple(m, (size_t)(op - OP_TUPLE1 + 1), false);
    case OP_EMPTY_DICT:
        return push(m, EW_PICKLE_DICT, 0, m->n_dicts++);
    case OP_EMPTY_LIST:
        return push(m, EW_PICKLE_LIST, 0, 0);
    case OP_SETITEM:
        return do_items(m, 2, false);
    case OP_APPEND:
        return do_append(m, 1, false);
    case OP_TUPLE:
    case OP_SETITEMS:
    case OP_APPENDS:
    case OP_POP_MARK:
        return step_marked(m, op);
    case OP_POP:
        EW_TRY(need(m, 1));
        m->n_stack--;
        return EW_STATUS_OK;
    case OP_GLOBAL:
        return step_global(m);
    case OP_STACK_GLOBAL:
        return do_stack_global(m);
    case OP_REDUCE:
        return do_reduce(m);
    case OP_BUILD:
        return do_build(m);
    case OP_BINPERSID:
        return do_persistent_id(m);
    case OP_MEMOIZE:
        return do_put(m, m->n_memo);
    case OP_PROTO:
    case OP_FRAME:
    case OP_LONG1:
    case OP_BINPUT:
    case OP_LONG_BINPUT:
    case OP_BINGET:
    case OP_LONG_BINGET:
        return step_operand(m, op);
    case OP_STOP:
        return do_stop(m);
    default:
        return ew_fail(m->err, EW_STATUS_UNSUPPORTED,
                       "%s: pickle: opcode 0x%02x at byte %zu is in no dict of tensors", m->what,
                       op, m->op_at);
    }
}

ew_status ew_pickle_read(struct ew_str text, const char *what, struct ew_pickle *p, ew_error *err)
{
    struct machine m = { .what = what, .bytes = (const uint8_t *)text.at, .len = text.len };
    ew_status s = EW_STATUS_OK;

    if (text.len > MAX_PICKLE_BYTES)
        return ew_fail(err, EW_STATUS_LIMIT, "%s: its pickle has %zu bytes, at most %zu are read",
                       what, text.len, MAX_PICKLE_BYTES);
    *p = (struct ew_pickle){ .text = text };
    m.p = p;
    m.err = err;
    while (!s && !m.stopped)
        s = step(&m);
    ew_mem_free(m.stack);
    ew_mem_free(m.memo);
    if (s)
        ew_pickle_deinit(p);
    return s;
}

void ew_pickle_deinit(struct ew_pickle *p)
{
    ew_mem_free(p->pool);
    ew_mem_free(p->entries);
    *p = (struct ew_pickle){ 0 };
}

struct ew_str ew_pickle_str(const struct ew_pickle *p, struct ew_pickle_value v)
{
    return (struct ew_str){ p->text.at + v.number, v.n };
}

const char *ew_pickle_kind_text(unsigned kind)
{
    static const char *const texts[] = {
        [EW_PICKLE_NONE] = "None",         [EW_PICKLE_BOOL] = "a bool",
        [EW_PICKLE_INT] = "an int",        [EW_PICKLE_FLOAT] = "a float",
        [EW_PICKLE_STR] = "a string",      [EW_PICKLE_TUPLE] = "a tuple",
        [EW_PICKLE_LIST] = "a list",       [EW_PICKLE_DICT] = "a dict",
        [EW_PICKLE_STORAGE] = "a storage", [EW_PICKLE_TENSOR] = "a tensor",
        [EW_PICKLE_DTYPE] = "a dtype",     [EW_PICKLE_BYTES] = "a storage class",
        [EW_PICKLE_FUNC] = "a function",   [EW_PICKLE_MARK] = "a mark",
    };

    return texts[kind];
}
