/* fuzz_template - bytes as a chat template and, after a NUL, as the JSON it is rendered with. What
 * parses renders within its caps or fails with one line; spans lie in the text, in order. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "edgewise/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static const char fixed[] =
    "{\"messages\":[{\"role\":\"system\",\"content\":\"be kind\"},{\"role\":\"user\",\"content\":"
    "[{\"type\":\"text\",\"text\":\"hi\"}]},{\"role\":\"assistant\",\"content\":null,\"tool_"
    "calls\":"
    "[{\"function\":{\"name\":\"f\",\"arguments\":{\"a\":1.5,\"b\":[true,null]}}}]}],\"tools\":[{"
    "\"type\":\"function\",\"function\":{\"name\":\"f\"}}],\"add_generation_prompt\":true,"
    "\"bos_token\":\"<s>\"}";

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    const ew_template_caps caps = { 20000, 60, 1u << 16, 2000 };
    const uint8_t *const nul = memchr(bytes, 0, len);
    const size_t n_source = nul ? (size_t)(nul - bytes) : len;
    char *input = NULL, *text;
    ew_text_span *spans;
    ew_template *t;
    ew_error err = { 0 };
    size_t n, n_spans, at = 0;

    if (ew_template_parse((const char *)bytes, n_source, "fuzz", &t, &err)) {
        if (!err.text[0])
            abort();
        return 0;
    }
    if (nul) {
        input = calloc(1, len - n_source);
        if (!input)
            abort();
        memcpy(input, nul + 1, len - n_source - 1);
    }
    if (!ew_template_render(t, input ? input : fixed, &caps, 1768478400, &text, &n, &spans,
                            &n_spans, &err)) {
        if (n > caps.max_out_bytes || text[n] != '\0')
            abort();
        for (size_t i = 0; i < n_spans; i++) {
            if (spans[i].begin < at || spans[i].end < spans[i].begin || spans[i].end > n)
                abort();
            at = spans[i].end;
        }
        ew_spans_free(spans);
        ew_string_free(text);
    } else if (!err.text[0]) {
        abort();
    }
    free(input);
    ew_template_destroy(t);
    return 0;
}
