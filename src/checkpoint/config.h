/* checkpoint/config.h - config.json and generation_config.json of a Hugging Face checkpoint: which
 * half of it is the text model, which family that is, and the rule that no key is ignored.
 *
 * A key of the text model is either handled by its family, or known to be harmless, or off (null,
 * false, empty); anything else is an error that names it. What the keys mean is in families/. */
#ifndef EW_CHECKPOINT_CONFIG_H
#define EW_CHECKPOINT_CONFIG_H

#include <jansson.h>

#include "base/error.h"

struct ew_config {
    char *what;         /* path, for messages */
    json_t *root;       /* the file */
    const json_t *text; /* the text model: root, or one of its members */
    json_t *generation; /* generation_config.json, or NULL */
    json_t *hf_quant;   /* hf_quant_config.json (ModelOpt's), or NULL */
    const char *type;   /* model_type of the text model: "qwen3", "gemma3_text"... */
    bool multimodal;    /* other halves exist: tensors outside the text model are none of ours */
};

ew_status ew_config_load(const char *dir, struct ew_config *out, ew_error *err);
/* One file, without those beside it. */
ew_status ew_config_load_file(const char *path, struct ew_config *out, ew_error *err);
/* From memory. generation may be NULL. */
ew_status ew_config_parse(const char *text, size_t len, const char *what, struct ew_config *out,
                          ew_error *err);
void ew_config_deinit(struct ew_config *c);

/* Every key of the text model against: the common keys, `handled` (NULL-terminated), the harmless.
 */
ew_status ew_config_check_keys(const struct ew_config *c, const char *const *handled,
                               ew_error *err);

/* Integer in [min, max]; fallback < min: the key is required. LIMIT past max. */
ew_status ew_config_get_count(const struct ew_config *c, const char *key, int64_t fallback,
                              int64_t min, int64_t max, int64_t *out, ew_error *err);
/* Finite number. */
ew_status ew_config_get_number(const struct ew_config *c, const char *key, double fallback,
                               double *out, ew_error *err);
ew_status ew_config_get_bool(const struct ew_config *c, const char *key, bool fallback, bool *out,
                             ew_error *err);
/* True when the key is there and not null. */
bool ew_config_has(const struct ew_config *c, const char *key);

#endif
