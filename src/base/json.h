/* base/json.h - jansson behind caps, with getters that name the file and key in their errors.
 *
 * The depth cap is jansson's own (2048); duplicates are refused; the byte cap is the caller's.
 * Objects are jansson's json_t, used read-only after parsing. */
#ifndef EW_BASE_JSON_H
#define EW_BASE_JSON_H

#include <jansson.h>

#include "base/buf.h"
#include "base/error.h"

/* Parses len bytes. `what` names the source in errors ("config.json"). *out is owned by the caller
 * (json_decref). */
ew_status ew_json_parse(const char *bytes, size_t len, const char *what, json_t **out,
                        ew_error *err);
/* Whole file; refuses files over max_bytes. NOT_FOUND when there is none. */
ew_status ew_json_load(const char *path, size_t max_bytes, json_t **out, ew_error *err);

/* Typed lookups in an object. A missing key or null gives `fallback` (for the *_or forms) or
 * MALFORMED; a value of another type is MALFORMED and named. Integers accept 3.0 for 3. */
ew_status ew_json_get_i64(const json_t *obj, const char *key, const char *what, int64_t *out,
                          ew_error *err);
ew_status ew_json_get_i64_or(const json_t *obj, const char *key, const char *what, int64_t fallback,
                             int64_t *out, ew_error *err);
ew_status ew_json_get_f64_or(const json_t *obj, const char *key, const char *what, double fallback,
                             double *out, ew_error *err);
ew_status ew_json_get_bool_or(const json_t *obj, const char *key, const char *what, bool fallback,
                              bool *out, ew_error *err);
/* Borrowed from obj. */
ew_status ew_json_get_str_or(const json_t *obj, const char *key, const char *what,
                             const char *fallback, const char **out, ew_error *err);

#endif
