/* text/tokenizer.c - the questions one can ask of a loaded tokenizer, and its end. */
#include "text/tokenizer_internal.h"

void ew_tokenizer_destroy(ew_tokenizer *t)
{
    if (!t)
        return;
    ew_norm_deinit(&t->norm);
    ew_pre_deinit(&t->pre);
    ew_bpe_deinit(&t->bpe);
    ew_added_deinit(&t->added);
    ew_dec_deinit(&t->dec);
    ew_map_deinit(&t->vocab);
    ew_map_deinit(&t->all);
    ew_buf_deinit(&t->bytes);
    ew_mem_free(t->tokens);
    ew_mem_free(t->names);
    ew_mem_free(t);
}

void ew_tokens_free(int32_t *ids)
{
    ew_mem_free(ids);
}

void ew_string_free(char *text)
{
    ew_mem_free(text);
}

uint32_t ew_tokenizer_vocab_len(const ew_tokenizer *t)
{
    return t->n_tokens;
}

int32_t ew_tokenizer_find(const ew_tokenizer *t, const char *token)
{
    uint32_t id;

    return ew_map_find(&t->all, token, strlen(token), &id) ? (int32_t)id : -1;
}

const char *ew_tokenizer_token(const ew_tokenizer *t, int32_t id)
{
    return id >= 0 && (uint32_t)id < t->n_tokens ? t->tokens[id].text : NULL;
}

bool ew_tokenizer_is_special(const ew_tokenizer *t, int32_t id)
{
    return id >= 0 && (uint32_t)id < t->n_tokens && t->tokens[id].is_special;
}

int32_t ew_tokenizer_bos(const ew_tokenizer *t)
{
    return t->bos;
}

int32_t ew_tokenizer_eos(const ew_tokenizer *t)
{
    return t->eos;
}

int32_t ew_tokenizer_pad(const ew_tokenizer *t)
{
    return t->pad;
}

bool ew_tokenizer_token_bytes(const ew_tokenizer *t, int32_t id, const char **bytes, size_t *len)
{
    if (!ew_tokenizer_token(t, id))
        return false;
    *bytes = t->bytes.data + t->tokens[id].bytes_off;
    *len = t->tokens[id].bytes_len;
    return true;
}
