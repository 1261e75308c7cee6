/* sample/history.c - the tokens of one request for the penalties: a small hash table made when the
 * request starts. */
#include "base/mem.h"
#include "sample/sampler.h"

static struct ew_history_slot *find_slot(const struct ew_history *h, int32_t id)
{
    uint32_t i = (uint32_t)id * 0x9E3779B1u & (h->n_slots - 1);

    while (h->slots[i].id >= 0 && h->slots[i].id != id)
        i = (i + 1) & (h->n_slots - 1);
    return &h->slots[i];
}

ew_status ew_history_init(struct ew_history *h, const struct ew_sample_params *p,
                          const int32_t *prompt, uint32_t n_prompt, uint32_t max_out, ew_error *err)
{
    uint64_t n = 16;

    *h = (struct ew_history){ 0 };
    if (p->repetition == 1.0 && p->presence == 0.0 && p->frequency == 0.0)
        return EW_STATUS_OK;
    while (n < 2 * ((uint64_t)n_prompt + max_out))
        n *= 2;
    if (n > UINT32_MAX / 2)
        return ew_fail(err, EW_STATUS_LIMIT, "penalties over %u + %u tokens", n_prompt, max_out);
    h->slots = ew_mem_calloc(EW_MEM_SAMPLE, n, sizeof(*h->slots));
    if (!h->slots)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "token history of %u + %u tokens", n_prompt,
                       max_out);
    h->n_slots = (uint32_t)n;
    for (uint32_t i = 0; i < h->n_slots; i++)
        h->slots[i].id = -1;
    for (uint32_t i = 0; i < n_prompt; i++)
        find_slot(h, prompt[i])->id = prompt[i];
    return EW_STATUS_OK;
}

void ew_history_deinit(struct ew_history *h)
{
    ew_mem_free(h->slots);
    *h = (struct ew_history){ 0 };
}

void ew_history_push(struct ew_history *h, int32_t id)
{
    struct ew_history_slot *slot;

    if (!h->slots)
        return;
    slot = find_slot(h, id);
    slot->id = id;
    slot->n_out++;
}
