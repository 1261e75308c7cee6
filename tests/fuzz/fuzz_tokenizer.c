/* fuzz_tokenizer - bytes as tokenizer.json; what loads must encode and decode a fixed text. */
#include "text/tokenizer_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    static const char text[] =
        "<s> Hello w\xC3\xB6rld,  it's 2024!\n\xE4\xB8\xAD\xE6\x96\x87 a\xCC\x81 "
        "\xF0\x9F\x98\x80 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa </s>\xFF";
    const ew_text_span user = { 4, 12 };
    ew_tokenizer *t;
    int32_t *ids;
    size_t n_ids;
    char *out;
    size_t out_len;

    if (ew_tokenizer_parse((const char *)bytes, len, NULL, 0, &t, NULL))
        return 0;
    if (!ew_tokenizer_encode_spans(t, text, sizeof(text) - 1, EW_ENCODE_ADD_BOS, &user, 1, &ids,
                                   &n_ids, NULL)) {
        if (!ew_tokenizer_decode(t, ids, n_ids, true, &out, &out_len, NULL))
            ew_string_free(out);
        ew_tokens_free(ids);
    }
    ew_tokenizer_destroy(t);
    return 0;
}
