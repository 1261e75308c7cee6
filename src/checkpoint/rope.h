/* checkpoint/rope.h - rotary position tables: what a config says of them, and their contents.
 *
 * A spec comes from a Hugging Face dict (`rope_scaling` or `rope_parameters`), from the JSON that
 * ew_rope_to_json() wrote into an engine's config, or from the reference system's config keys. The
 * table has a row per position: cos[rotary_dim / 2], then sin[rotary_dim / 2].
 *
 * Numbers follow transformers: inverse frequencies and angles are rounded to f32 where it rounds
 * them, so that tables agree at long positions too.
 *
 * Tables that depend on the length of the sequence (ew_rope_depends_on_length):
 *   longrope  one set of factors for sequences up to original_max positions, another for longer
 *             ones. transformers chooses by the largest position of each forward call; Phi3 throws
 *             its KV cache away and runs the whole sequence again when generation crosses the
 * border. dynamic   past max_position the base grows with the length. transformers recomputes the
 * table at every call that is longer than all before; keys in the cache keep their old rotation.
 * Here the whole sequence has one table, chosen by its final length (`seq_len_hint`): what
 * transformers computes in one forward call over the finished sequence. */
#ifndef EW_CHECKPOINT_ROPE_H
#define EW_CHECKPOINT_ROPE_H

#include <jansson.h>

#include "base/error.h"

#define EW_ROPE_MAX_HALF 512 /* rotary_dim <= 1024 */

enum ew_rope_type {
    EW_ROPE_DEFAULT = 0,
    EW_ROPE_LINEAR,
    EW_ROPE_DYNAMIC,
    EW_ROPE_LLAMA3,
    EW_ROPE_YARN,
    EW_ROPE_LONGROPE,
};

struct ew_rope_spec { /* plain data */
    enum ew_rope_type type;
    int rotary_dim; /* even */
    double theta;
    double factor;           /* linear, dynamic, llama3, yarn */
    double attention_factor; /* yarn, longrope: multiplies cos and sin; 1 otherwise */
    double low_freq_factor, high_freq_factor; /* llama3 */
    double beta_fast, beta_slow;              /* yarn */
    bool truncate;                            /* yarn */
    int64_t original_max;                     /* llama3, yarn, longrope */
    int64_t max_position;
    float short_factor[EW_ROPE_MAX_HALF], long_factor[EW_ROPE_MAX_HALF]; /* longrope */
};

/* What the config around the dict says. */
struct ew_rope_context {
    int64_t head_dim;
    int64_t max_position;
    double theta;          /* when the dict has no rope_theta */
    double partial;        /* when the dict has no partial_rotary_factor; 1 = all of the head */
    int64_t original_max;  /* the config's own key, which wins over the dict's; 0: none */
    bool yarn_is_longrope; /* phi3's old spelling */
};

/* dict may be NULL or JSON null: the default type. `what` names the file. UNSUPPORTED names a type
 * or a key that is not known. */
ew_status ew_rope_parse(const json_t *dict, const struct ew_rope_context *ctx, const char *what,
                        struct ew_rope_spec *out, ew_error *err);
/* New reference; NULL without memory. Read back by ew_rope_from_json. */
json_t *ew_rope_to_json(const struct ew_rope_spec *spec);
ew_status ew_rope_from_json(const json_t *obj, const char *what, struct ew_rope_spec *out,
                            ew_error *err);
/* From an exported config.json of the reference system: rope_theta, rope_scaling,
 * partial_rotary_factor, head_dim, max_position_embeddings, original_max_position_embeddings. */
ew_status ew_rope_from_llm_config(const json_t *config, const char *what, struct ew_rope_spec *out,
                                  ew_error *err);

/* True when the table depends on seq_len_hint; *threshold (may be NULL) is the length up to which
 * it does not. */
bool ew_rope_depends_on_length(const struct ew_rope_spec *spec, int64_t *threshold);
/* Whether two hints give the same table. */
bool ew_rope_same_table(const struct ew_rope_spec *spec, int64_t hint_a, int64_t hint_b);
/* Rows of positions [pos_begin, pos_begin + n_pos). seq_len_hint: the final length of the sequence,
 * 0 = unknown (as if short). */
void ew_rope_fill(const struct ew_rope_spec *spec, int64_t seq_len_hint, int64_t pos_begin,
                  size_t n_pos, float *out);

#endif
