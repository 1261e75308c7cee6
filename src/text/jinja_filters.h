/* text/jinja_filters.h - the filter table's shape, shared by its two halves. */
#ifndef EW_TEXT_JINJA_FILTERS_H
#define EW_TEXT_JINJA_FILTERS_H

#include "text/jinja_eval.h"

typedef ew_status jinja_filter_fn(struct jinja_run *r, struct jinja_value v,
                                  const struct jinja_call *call, struct jinja_value *out);
struct jinja_filter {
    const char *name;
    jinja_filter_fn *fn;
};
extern const struct jinja_filter jinja_sequence_filters[]; /* terminated by name NULL */

/* The value's text. */
ew_status jinja_filter_str(struct jinja_run *r, struct jinja_value v, const struct jinja_str **out);

#endif
