/* text/stream_decode.c - ids to text, one by one or all at once. The decoder chain is decode.c's.
 */
#include "text/tokenizer_internal.h"

struct ew_decoder {
    const ew_tokenizer *t;
    bool skip_special;
    struct ew_dec_run run;
};

ew_status ew_decoder_create(const ew_tokenizer *t, bool skip_special, ew_decoder **out,
                            ew_error *err)
{
    ew_decoder *d = ew_mem_calloc(EW_MEM_TEXT, 1, sizeof(*d));
    ew_status st;

    *out = NULL;
    if (!d)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "decoder: out of memory");
    d->t = t;
    d->skip_special = skip_special;
    st = ew_dec_run_init(&d->run, &t->dec, err);
    if (st) {
        ew_mem_free(d);
        return st;
    }
    *out = d;
    return EW_STATUS_OK;
}

void ew_decoder_destroy(ew_decoder *d)
{
    if (!d)
        return;
    ew_dec_run_deinit(&d->run);
    ew_mem_free(d);
}

/* Ids that no token has are passed over, as the reference does. */
static void push(ew_decoder *d, int32_t id)
{
    const struct ew_token *token;

    if (!ew_tokenizer_token(d->t, id))
        return;
    token = &d->t->tokens[id];
    if (!d->skip_special || !token->is_special)
        ew_dec_run_push(&d->run, token->text, token->len);
}

static ew_status give(ew_decoder *d, const char **text, size_t *len)
{
    *text = d->run.out.data ? d->run.out.data : "";
    *len = d->run.out.len;
    return d->run.status;
}

ew_status ew_decoder_push(ew_decoder *d, int32_t id, const char **text, size_t *len)
{
    ew_buf_reset(&d->run.out);
    push(d, id);
    return give(d, text, len);
}

ew_status ew_decoder_finish(ew_decoder *d, const char **text, size_t *len)
{
    ew_buf_reset(&d->run.out);
    ew_dec_run_finish(&d->run);
    return give(d, text, len);
}

void ew_decoder_reset(ew_decoder *d)
{
    ew_dec_run_reset(&d->run);
}

ew_status ew_tokenizer_decode(const ew_tokenizer *t, const int32_t *ids, size_t n_ids,
                              bool skip_special, char **text, size_t *len, ew_error *err)
{
    ew_decoder *d;
    ew_status st;

    *text = NULL;
    *len = 0;
    EW_TRY(ew_decoder_create(t, skip_special, &d, err));
    for (size_t i = 0; i < n_ids; i++)
        push(d, ids[i]);
    ew_dec_run_finish(&d->run);
    st = d->run.status;
    if (!st && !ew_buf_reserve(&d->run.out, 1))
        st = EW_STATUS_NO_MEMORY;
    if (!st) {
        d->run.out.data[d->run.out.len] = 0;
        *len = d->run.out.len;
        *text = ew_buf_take(&d->run.out);
    } else {
        ew_fail(err, st, "decoder: no text from %zu ids", n_ids);
    }
    ew_decoder_destroy(d);
    return st;
}
