/* runtime/stop.c - byte matching of stop strings. */
#include "runtime/stop.h"

#include <string.h>

bool ew_stop_find(const struct ew_stop *s, const char *text, size_t len, size_t seen, size_t *at)
{
    bool found = false;

    for (uint32_t i = 0; i < s->n; i++) {
        const size_t n = strlen(s->strings[i]);
        size_t p = seen >= n ? seen - n + 1 : 0;

        for (; n > 0 && p + n <= len && (!found || p < *at); p++) {
            if (memcmp(text + p, s->strings[i], n) != 0)
                continue;
            *at = p;
            found = true;
        }
    }
    return found;
}

size_t ew_stop_held(const struct ew_stop *s, const char *text, size_t len)
{
    size_t held = 0;

    for (uint32_t i = 0; i < s->n; i++) {
        const size_t n = strlen(s->strings[i]);

        for (size_t k = n > 0 ? n - 1 : 0; k > held; k--)
            if (k <= len && memcmp(text + len - k, s->strings[i], k) == 0)
                held = k;
    }
    return held;
}
