/* eval_cmd.h - what the sub-commands of `edgewise eval` share: options, the reference model,
 * reports. One file a sub-command. */
#ifndef EDGEWISE_EVAL_CMD_H
#define EDGEWISE_EVAL_CMD_H

#include "cli.h"
#include "edgewise/eval.h"

struct eval_opts {
    const char *file;      /* text or questions */
    const char *reference; /* parity: safetensors */
    const char *against;   /* kld, parity: another model */
    const char *template_name, *resume, *html;
    uint32_t window, stride, chunks, limit;
    uint64_t max_chars;
    double tolerance, max_kl;
    bool json, show_wrong;
};
extern struct eval_opts eval_opts;
/* What differs for the model of --against; the other build options are common to both. */
extern const struct opt eval_against_table[];

/* One a sub-command; exit codes of cli.h. */
int eval_ppl(const char *model);
int eval_kld(const char *model);
int eval_qa(const char *model);
int eval_choice(const char *model);
int eval_parity(const char *model);
int eval_layers(const char *model);

/* Opens `model` for raw passes of one row, with all logits. against: under the options of the
 * reference. */
int eval_open(const char *model, bool against, ew_runtime **out);
/* Build options of the reference; false after a message. */
bool eval_against_opts(ew_build_opts *out);
/* {"value": x, "stderr": e}; numbers that are not finite are null. */
json_t *eval_real(double x);
json_t *eval_estimate(ew_estimate e);

/* ---- reports (eval_html.c): one HTML file, nothing loaded from elsewhere ---- */
struct html {
    char *text;
    size_t len, cap;
    bool failed;   /* out of memory */
    bool row_open; /* of a table */
};
/* A figure a person looks at first. */
struct html_card {
    const char *name;
    char value[64], note[96];
};
struct html_bar {
    char label[32]; /* below the bar */
    char tip[160];  /* when pointed at */
    double value, error;
    bool marked;
};
struct html_chart {
    const char *title, *x, *y; /* captions */
    const char *note;          /* what to look for; may be NULL */
    bool dots;                 /* a dot at each value instead of a bar from 0 */
    bool percent;
};
void html_begin(struct html *h, const char *title, const char *subject);
void html_raw(struct html *h, const char *markup);
void html_printf(struct html *h, const char *markup, ...) EW_PRINTF(2, 3);
void html_text(struct html *h, const char *text); /* escaped */
void html_cards(struct html *h, const struct html_card *cards, size_t n);
void html_chart(struct html *h, const struct html_chart *c, const struct html_bar *bars, size_t n);
void html_table_begin(struct html *h, const char *title, const char *const *heads);
void html_row(struct html *h, bool marked);
void html_cell(struct html *h, const char *text);                       /* escaped */
void html_cell_f(struct html *h, const char *fmt, ...) EW_PRINTF(2, 3); /* a number, to the right */
void html_table_end(struct html *h);
/* Writes the file; false after a message. Releases h. */
bool html_end(struct html *h, const char *path);

#endif
