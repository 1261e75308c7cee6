/* checkpoint/torch_zip.c - end record, zip64 end record, central directory, local headers; then
 * that no two entries share bytes. */
#include "checkpoint/torch_zip.h"

#include <stdlib.h>
#include <string.h>

#include "base/size.h"

#define LOCAL_MAGIC     0x04034b50u
#define CENTRAL_MAGIC   0x02014b50u
#define END_MAGIC       0x06054b50u
#define END64_MAGIC     0x06064b50u
#define LOCATOR64_MAGIC 0x07064b50u

#define LOCAL_BYTES     ((size_t)30)
#define CENTRAL_BYTES   ((size_t)46)
#define END_BYTES       ((size_t)22)
#define END64_BYTES     ((size_t)56)
#define LOCATOR64_BYTES ((size_t)20)
#define MAX_COMMENT     ((size_t)0xffff)

#define FLAG_ENCRYPTED 1u

static uint64_t read_le(const uint8_t *p, int n_bytes)
{
    uint64_t v = 0;

    for (int i = n_bytes - 1; i >= 0; i--)
        v = v << 8 | p[i];
    return v;
}

static uint32_t read_u16(const uint8_t *p)
{
    return (uint32_t)read_le(p, 2);
}

static uint32_t read_u32(const uint8_t *p)
{
    return (uint32_t)read_le(p, 4);
}

/* Of messages: as much of a name as one wants to see. */
static int shown(struct ew_str name)
{
    return name.len < 200 ? (int)name.len : 200;
}

struct directory {
    uint64_t n_entries, bytes, begin; /* as claimed */
    size_t end_at;                    /* where the end records begin: it lies before them */
};

/* The end record is the last thing in the file, but for a comment that it counts. */
static bool find_end(const struct ew_zip *z, size_t *at)
{
    if (z->len < END_BYTES)
        return false;
    for (size_t comment = 0; comment <= MAX_COMMENT && comment <= z->len - END_BYTES; comment++) {
        const size_t i = z->len - END_BYTES - comment;

        if (read_u32(z->bytes + i) == END_MAGIC && read_u16(z->bytes + i + 20) == comment) {
            *at = i;
            return true;
        }
    }
    return false;
}

/* The zip64 end record, if a locator before the end record points at one. */
static ew_status read_end64(const struct ew_zip *z, struct directory *d, ew_error *err)
{
    const uint8_t *locator, *end;
    uint64_t at;

    if (d->end_at < LOCATOR64_BYTES)
        return EW_STATUS_OK;
    locator = z->bytes + d->end_at - LOCATOR64_BYTES;
    if (read_u32(locator) != LOCATOR64_MAGIC)
        return EW_STATUS_OK;
    at = read_le(locator + 8, 8);
    if (d->end_at - LOCATOR64_BYTES < END64_BYTES ||
        at > d->end_at - LOCATOR64_BYTES - END64_BYTES || read_u32(z->bytes + at) != END64_MAGIC)
        return ew_fail(err, EW_STATUS_MALFORMED,
                       "%s: its zip64 locator points at byte %llu, where no end record is", z->what,
                       (unsigned long long)at);
    end = z->bytes + at;
    if (read_u32(end + 16) != 0 || read_u32(end + 20) != 0 ||
        read_le(end + 24, 8) != read_le(end + 32, 8))
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "%s: a zip file of several disks", z->what);
    *d = (struct directory){ .n_entries = read_le(end + 32, 8),
                             .bytes = read_le(end + 40, 8),
                             .begin = read_le(end + 48, 8),
                             .end_at = (size_t)at };
    return EW_STATUS_OK;
}

static ew_status find_directory(const struct ew_zip *z, struct directory *d, ew_error *err)
{
    const uint8_t *end;
    size_t at = 0;

    if (!find_end(z, &at))
        return ew_fail(err, EW_STATUS_MALFORMED,
                       "%s: no end of a zip file in its %zu bytes: not one, or cut short", z->what,
                       z->len);
    end = z->bytes + at;
    *d = (struct directory){ .n_entries = read_u16(end + 10),
                             .bytes = read_u32(end + 12),
                             .begin = read_u32(end + 16),
                             .end_at = at };
    if (read_u16(end + 4) != 0 || read_u16(end + 6) != 0 || read_u16(end + 8) != d->n_entries)
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "%s: a zip file of several disks", z->what);
    EW_TRY(read_end64(z, d, err));
    if (d->begin > d->end_at || d->bytes > d->end_at - d->begin)
        return ew_fail(err, EW_STATUS_MALFORMED,
                       "%s: its directory is %llu bytes at byte %llu, its end record at %zu",
                       z->what, (unsigned long long)d->bytes, (unsigned long long)d->begin,
                       d->end_at);
    if (d->n_entries > d->bytes / CENTRAL_BYTES || d->n_entries > UINT32_MAX)
        return ew_fail(err, EW_STATUS_MALFORMED,
                       "%s: its directory of %llu bytes claims %llu entries", z->what,
                       (unsigned long long)d->bytes, (unsigned long long)d->n_entries);
    return EW_STATUS_OK;
}

struct central {
    struct ew_str name;
    uint64_t packed, bytes, begin;
    uint32_t flags, method, disk;
};

/* The zip64 extra field has those of {bytes, packed, begin} whose 32-bit field is all ones, in
 * that order. */
static bool read_extra64(const uint8_t *p, size_t len, struct central *c)
{
    uint64_t *const fields[3] = { &c->bytes, &c->packed, &c->begin };
    bool wanted = false;

    for (size_t i = 0; i < EW_COUNT(fields); i++)
        wanted = wanted || *fields[i] == UINT32_MAX;
    while (wanted && len >= 4) {
        const uint32_t id = read_u16(p);
        size_t n = read_u16(p + 2);

        if (n > len - 4)
            return false;
        p += 4;
        len -= 4;
        if (id == 1) {
            for (size_t i = 0; i < EW_COUNT(fields); i++) {
                if (*fields[i] != UINT32_MAX)
                    continue;
                if (n < 8)
                    return false;
                *fields[i] = read_le(p, 8);
                p += 8;
                n -= 8;
            }
            return true;
        }
        p += n;
        len -= n;
    }
    return !wanted;
}

/* One record of the directory; *at moves behind it. */
static ew_status read_central(const struct ew_zip *z, size_t *at, size_t end, struct central *c,
                              ew_error *err)
{
    const uint8_t *p = z->bytes + *at;
    size_t n_name, n_extra, n_comment;

    if (end - *at < CENTRAL_BYTES || read_u32(p) != CENTRAL_MAGIC)
        return ew_fail(err, EW_STATUS_MALFORMED,
                       "%s: no record of its directory at byte %zu, where one should be", z->what,
                       *at);
    n_name = read_u16(p + 28);
    n_extra = read_u16(p + 30);
    n_comment = read_u16(p + 32);
    if (n_name + n_extra + n_comment > end - *at - CENTRAL_BYTES)
        return ew_fail(err, EW_STATUS_MALFORMED,
                       "%s: the record at byte %zu leads out of its directory", z->what, *at);
    *c = (struct central){ .name = { (const char *)p + CENTRAL_BYTES, n_name },
                           .packed = read_u32(p + 20),
                           .bytes = read_u32(p + 24),
                           .begin = read_u32(p + 42),
                           .flags = read_u16(p + 8),
                           .method = read_u16(p + 10),
                           .disk = read_u16(p + 34) };
    if (!read_extra64(p + CENTRAL_BYTES + n_name, n_extra, c))
        return ew_fail(err, EW_STATUS_MALFORMED, "%s: '%.*s': its 64-bit sizes are not there",
                       z->what, shown(c->name), c->name.at);
    *at += CENTRAL_BYTES + n_name + n_extra + n_comment;
    return EW_STATUS_OK;
}

/* Where the directory says that an entry is, there must be a local header of the same name. Sizes
 * are the directory's: a local header may leave them to a record behind the data. */
static ew_status place_entry(const struct ew_zip *z, const struct central *c, size_t data_end,
                             struct ew_zip_entry *e, ew_error *err)
{
    const int n = shown(c->name);
    const uint8_t *p;
    size_t n_name, head;

    if (c->flags & FLAG_ENCRYPTED)
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "%s: '%.*s' is encrypted", z->what, n,
                       c->name.at);
    if (c->method != 0)
        return ew_fail(err, EW_STATUS_UNSUPPORTED,
                       "%s: '%.*s' is compressed (method %u): torch.save stores its entries as "
                       "they are",
                       z->what, n, c->name.at, c->method);
    if (c->disk != 0)
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "%s: '%.*s' lies on another disk", z->what, n,
                       c->name.at);
    if (c->packed != c->bytes)
        return ew_fail(err, EW_STATUS_MALFORMED,
                       "%s: '%.*s' is stored, but takes %llu bytes and holds %llu", z->what, n,
                       c->name.at, (unsigned long long)c->packed, (unsigned long long)c->bytes);
    if (data_end < LOCAL_BYTES || c->begin > data_end - LOCAL_BYTES ||
        read_u32(z->bytes + c->begin) != LOCAL_MAGIC)
        return ew_fail(err, EW_STATUS_MALFORMED, "%s: '%.*s' does not begin at byte %llu", z->what,
                       n, c->name.at, (unsigned long long)c->begin);
    p = z->bytes + c->begin;
    n_name = read_u16(p + 26);
    head = LOCAL_BYTES + n_name + read_u16(p + 28);
    if (head > data_end - c->begin || c->bytes > data_end - c->begin - head)
        return ew_fail(err, EW_STATUS_MALFORMED,
                       "%s: '%.*s' is %llu bytes at byte %llu, the directory begins at %zu",
                       z->what, n, c->name.at, (unsigned long long)c->bytes,
                       (unsigned long long)c->begin, data_end);
    if (!ew_str_equal((struct ew_str){ (const char *)p + LOCAL_BYTES, n_name }, c->name))
        return ew_fail(err, EW_STATUS_MALFORMED, "%s: '%.*s' has another name in its own header",
                       z->what, n, c->name.at);
    *e = (struct ew_zip_entry){
        .name = c->name, .data = p + head, .bytes = (size_t)c->bytes, .begin = (size_t)c->begin
    };
    return EW_STATUS_OK;
}

static int compare_begin(const void *a, const void *b)
{
    const struct ew_zip_entry *x = a, *y = b;

    return x->begin < y->begin ? -1 : x->begin > y->begin;
}

static ew_status check_overlap(const struct ew_zip *z, ew_error *err)
{
    for (size_t i = 1; i < z->n_entries; i++) {
        const struct ew_zip_entry *a = &z->entries[i - 1], *b = &z->entries[i];
        const size_t end = (size_t)(a->data - z->bytes) + a->bytes;

        if (end > b->begin)
            return ew_fail(err, EW_STATUS_MALFORMED,
                           "%s: '%.*s' begins at byte %zu, '%.*s' before it ends at %zu", z->what,
                           shown(b->name), b->name.at, b->begin, shown(a->name), a->name.at, end);
    }
    return EW_STATUS_OK;
}

static ew_status read_entries(struct ew_zip *z, const struct directory *d, ew_error *err)
{
    const size_t end = (size_t)(d->begin + d->bytes);
    size_t at = (size_t)d->begin;

    z->entries = ew_mem_calloc(EW_MEM_CHECKPOINT, (size_t)d->n_entries, sizeof(*z->entries));
    if (!z->entries)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "%s: no memory for its entries", z->what);
    for (; z->n_entries < d->n_entries; z->n_entries++) {
        struct central c = { 0 };

        EW_TRY(read_central(z, &at, end, &c, err));
        EW_TRY(place_entry(z, &c, (size_t)d->begin, &z->entries[z->n_entries], err));
    }
    if (at != end)
        return ew_fail(err, EW_STATUS_MALFORMED,
                       "%s: its directory ends at byte %zu, its last record at %zu", z->what, end,
                       at);
    if (z->n_entries)
        qsort(z->entries, z->n_entries, sizeof(*z->entries), compare_begin);
    EW_TRY(check_overlap(z, err));
    for (size_t i = 0; i < z->n_entries; i++) {
        const struct ew_str name = z->entries[i].name;

        if (ew_zip_find(z, name.at, name.len))
            return ew_fail(err, EW_STATUS_MALFORMED, "%s: '%.*s' is there twice", z->what,
                           shown(name), name.at);
        if (!ew_map_put(&z->by_name, name.at, name.len, (uint32_t)i))
            return ew_fail(err, EW_STATUS_NO_MEMORY, "%s: no memory for its entries", z->what);
    }
    return EW_STATUS_OK;
}

ew_status ew_zip_open(const void *bytes, size_t len, const char *what, struct ew_zip *zip,
                      ew_error *err)
{
    struct ew_zip z = { .bytes = bytes, .len = len, .what = what };
    struct directory d = { 0 };
    ew_status s;

    EW_TRY(find_directory(&z, &d, err));
    ew_map_init(&z.by_name, EW_MEM_CHECKPOINT);
    s = read_entries(&z, &d, err);
    if (s) {
        ew_zip_deinit(&z);
        return s;
    }
    *zip = z;
    return EW_STATUS_OK;
}

void ew_zip_deinit(struct ew_zip *zip)
{
    ew_map_deinit(&zip->by_name);
    ew_mem_free(zip->entries);
    *zip = (struct ew_zip){ 0 };
}

const struct ew_zip_entry *ew_zip_find(const struct ew_zip *zip, const char *name, size_t len)
{
    uint32_t i;

    return ew_map_find(&zip->by_name, name, len, &i) ? &zip->entries[i] : NULL;
}
