/* eval/journal.c - reading and appending the lines of a resumable evaluation. */
#include "eval/journal.h"

#include <string.h>

#include "base/hash.h"
#include "engine/engine_impl.h"
#include "os/os.h"
#include "runtime/rt.h"

#define MAX_JOURNAL ((size_t)1 << 32)

uint64_t ew_journal_key_bytes(uint64_t key, const void *bytes, size_t len)
{
    return ew_hash64(bytes, len, key);
}

/* An engine file starts with a header that hashes all its contents. */
uint64_t ew_journal_key_runtime(uint64_t key, const ew_runtime *rt)
{
    const size_t head = rt->engine->len < 4096 ? rt->engine->len : 4096;

    return ew_hash64(rt->engine->bytes, head, key);
}

/* n_bytes: of the file, a half line at its end included. */
static ew_status check_head(struct ew_journal *j, const char *head, size_t n_bytes, ew_error *err)
{
    const size_t len = strlen(head);

    if (n_bytes < len && (n_bytes == 0 || memcmp(j->text, head, n_bytes) == 0))
        return ew_file_append(j->path, 0, head, len, err); /* new, or stopped in its first line */
    if (j->len < len || strncmp(j->text, "{\"edgewise_eval\":", 17) != 0)
        return ew_fail(err, EW_STATUS_MALFORMED, "%s: not the state of an evaluation", j->path);
    if (memcmp(j->text, head, len) != 0)
        return ew_fail(err, EW_STATUS_MISMATCH,
                       "%s: the state of another evaluation (other models, options or text)",
                       j->path);
    return EW_STATUS_OK;
}

ew_status ew_journal_open(struct ew_journal *j, const char *path, const char *kind, uint64_t key,
                          ew_error *err)
{
    struct ew_buf head;
    size_t n_bytes = 0;
    ew_status st = EW_STATUS_OK;

    memset(j, 0, sizeof(*j));
    if (!path)
        return EW_STATUS_OK;
    j->path = path;
    ew_buf_init(&head, EW_MEM_EVAL, 1024);
    ew_buf_printf(&head, "{\"edgewise_eval\":1,\"kind\":\"%s\",\"key\":\"%016llx\"}\n", kind,
                  (unsigned long long)key);
    if (head.failed)
        st = ew_fail(err, EW_STATUS_NO_MEMORY, "%s", path);
    if (!st && ew_path_is_file(path))
        st = ew_file_read(path, MAX_JOURNAL, &j->text, &j->len, err);
    n_bytes = j->len;
    while (!st && j->len > 0 && j->text[j->len - 1] != '\n')
        j->len--;
    if (!st)
        st = check_head(j, head.data, n_bytes, err);
    j->at = head.len;
    j->end = j->len ? j->len : head.len;
    ew_buf_deinit(&head);
    if (st)
        ew_journal_close(j);
    return st;
}

void ew_journal_close(struct ew_journal *j)
{
    ew_mem_free(j->text);
    memset(j, 0, sizeof(*j));
}

ew_status ew_journal_next(struct ew_journal *j, json_t **out, ew_error *err)
{
    const char *const line = j->text ? j->text + j->at : NULL;
    size_t len;

    *out = NULL;
    if (!line || j->at >= j->len)
        return EW_STATUS_OK;
    len = (size_t)((const char *)memchr(line, '\n', j->len - j->at) - line);
    j->at += len + 1;
    return ew_json_parse(line, len, j->path, out, err);
}

ew_status ew_journal_add(struct ew_journal *j, struct ew_buf *b, ew_error *err)
{
    ew_status st = EW_STATUS_OK;

    if (j->path) {
        ew_buf_putc(b, '\n');
        if (b->failed)
            return ew_fail(err, EW_STATUS_NO_MEMORY, "%s: a line of the state", j->path);
        st = ew_file_append(j->path, j->end, b->data, b->len, err);
        j->end += b->len;
    }
    ew_buf_reset(b);
    return st;
}

ew_status ew_journal_numbers(const json_t *line, size_t from, double *out, size_t n,
                             const struct ew_journal *j, ew_error *err)
{
    if (json_array_size(line) < from + n)
        return ew_fail(err, EW_STATUS_MALFORMED, "%s: a line of %zu numbers, not %zu", j->path,
                       json_array_size(line), from + n);
    for (size_t i = 0; i < n; i++) {
        const json_t *const v = json_array_get(line, from + i);

        if (!json_is_number(v))
            return ew_fail(err, EW_STATUS_MALFORMED, "%s: entry %zu of a line is no number",
                           j->path, from + i);
        out[i] = json_number_value(v);
    }
    return EW_STATUS_OK;
}
