/* eval_html.c - reports as one HTML file: cards, charts as inline SVG, tables. Every text that
 * comes from a file is escaped. Knows no evaluation. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval_cmd.h"

enum { CHART_W = 920, CHART_H = 260, LEFT = 64, RIGHT = 12, TOP = 14, BOTTOM = 46 };

static const char style[] =
    ":root{color-scheme:light dark;--bg:#fff;--fg:#1b1f24;--dim:#5c6570;--line:#d9dee4;"
    "--card:#f5f7f9;--bar:#3b78c3;--mark:#d1422f}\n"
    "@media(prefers-color-scheme:dark){:root{--bg:#15181c;--fg:#e6e9ed;--dim:#98a2ad;"
    "--line:#343b43;--card:#1e2329;--bar:#6ea8f0;--mark:#ff7a66}}\n"
    "body{background:var(--bg);color:var(--fg);font:15px/1.45 system-ui,sans-serif;"
    "max-width:960px;margin:2em auto;padding:0 1em}\n"
    "h1{font-size:1.5em;margin:0}h2{font-size:1.1em;margin:2em 0 .4em}p{color:var(--dim)}\n"
    ".cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(170px,1fr));gap:10px}\n"
    ".card{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:10px}\n"
    ".card b{display:block;font-size:1.3em}.card span{color:var(--dim);font-size:.85em}\n"
    "table{border-collapse:collapse;width:100%;font-size:.92em}\n"
    "th,td{text-align:left;padding:4px 8px;border-bottom:1px solid var(--line);"
    "overflow-wrap:anywhere}\n"
    "td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;overflow-wrap:normal}\n"
    "tr.m td{color:var(--mark);font-weight:600}\n"
    "svg{width:100%;height:auto}svg text{fill:var(--dim);font-size:11px}\n"
    ".b{fill:var(--bar)}.k{fill:var(--mark)}.g{stroke:var(--line)}.e{stroke:var(--fg)}\n";

static void append(struct html *h, const char *bytes, size_t len)
{
    if (h->failed)
        return;
    if (h->cap - h->len <= len) {
        const size_t cap = (h->cap + len) * 2 + 4096;
        char *const more = realloc(h->text, cap);

        if (!more) {
            h->failed = true;
            return;
        }
        h->text = more;
        h->cap = cap;
    }
    memcpy(h->text + h->len, bytes, len);
    h->len += len;
    h->text[h->len] = '\0';
}

void html_raw(struct html *h, const char *markup)
{
    append(h, markup, strlen(markup));
}

EW_PRINTF(2, 0) static void print_args(struct html *h, const char *fmt, va_list args)
{
    char text[1024];
    const int n = vsnprintf(text, sizeof(text), fmt, args);

    if (n < 0 || (size_t)n >= sizeof(text))
        h->failed = true;
    else
        append(h, text, (size_t)n);
}

void html_printf(struct html *h, const char *markup, ...)
{
    va_list args;

    va_start(args, markup);
    print_args(h, markup, args);
    va_end(args);
}

void html_text(struct html *h, const char *text)
{
    for (; *text; text++) {
        switch (*text) {
        case '<':
            html_raw(h, "&lt;");
            break;
        case '>':
            html_raw(h, "&gt;");
            break;
        case '&':
            html_raw(h, "&amp;");
            break;
        case '"':
            html_raw(h, "&quot;");
            break;
        case '\'':
            html_raw(h, "&#39;");
            break;
        default:
            append(h, text, 1);
        }
    }
}

void html_begin(struct html *h, const char *title, const char *subject)
{
    *h = (struct html){ 0 };
    html_raw(h, "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
                "<meta name=\"viewport\" content=\"width=device-width\">\n<title>");
    html_text(h, title);
    html_raw(h, "</title>\n<style>\n");
    html_raw(h, style);
    html_raw(h, "</style></head><body>\n<h1>");
    html_text(h, title);
    html_raw(h, "</h1>\n<p>");
    html_text(h, subject);
    html_raw(h, "</p>\n");
}

void html_cards(struct html *h, const struct html_card *cards, size_t n)
{
    html_raw(h, "<div class=\"cards\">\n");
    for (size_t i = 0; i < n; i++) {
        html_raw(h, "<div class=\"card\"><span>");
        html_text(h, cards[i].name);
        html_raw(h, "</span><b>");
        html_text(h, cards[i].value);
        html_raw(h, "</b><span>");
        html_text(h, cards[i].note);
        html_raw(h, "</span></div>\n");
    }
    html_raw(h, "</div>\n");
}

/* ---- charts ---- */

struct scale {
    double low, high;
};

static double y_of(const struct scale *s, double v)
{
    const double share = s->high > s->low ? (v - s->low) / (s->high - s->low) : 0;

    return TOP + (1 - share) * (CHART_H - TOP - BOTTOM);
}

static struct scale find_scale(const struct html_chart *c, const struct html_bar *bars, size_t n)
{
    struct scale s = { c->dots ? INFINITY : 0, c->dots ? -INFINITY : 0 };

    for (size_t i = 0; i < n; i++) {
        if (!isfinite(bars[i].value))
            continue;
        s.low = fmin(s.low, c->dots ? bars[i].value - bars[i].error : 0);
        s.high = fmax(s.high, bars[i].value + bars[i].error);
    }
    if (!(s.high > s.low)) {
        const double at = isfinite(s.low) ? s.low : 0;
        const double half = c->dots ? fmax(fabs(at) * 0.01, 1e-9) : 1;

        s.low = c->dots ? at - half : 0;
        s.high = at + half;
    } else if (c->dots) {
        const double room = 0.06 * (s.high - s.low);

        s.low -= room;
        s.high += room;
    }
    return s;
}

static void draw_axis(struct html *h, const struct html_chart *c, const struct scale *s)
{
    enum { N_TICKS = 4 };
    const double shown = c->percent ? 100 : 1;

    for (int i = 0; i <= N_TICKS; i++) {
        const double v = s->low + (s->high - s->low) * i / N_TICKS, y = y_of(s, v);

        html_printf(h, "<line class=\"g\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>", LEFT,
                    CHART_W - RIGHT, y, y);
        html_printf(h, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.4g%s</text>\n", LEFT - 6,
                    y + 4, v * shown, c->percent ? " %" : "");
    }
    html_printf(h, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">", (LEFT + CHART_W) / 2,
                CHART_H - 6);
    html_text(h, c->x);
    html_printf(h,
                "</text><text transform=\"rotate(-90)\" x=\"%d\" y=\"12\" "
                "text-anchor=\"middle\">",
                -(TOP + CHART_H - BOTTOM) / 2);
    html_text(h, c->y);
    html_raw(h, "</text>\n");
}

static void draw_bar(struct html *h, const struct html_chart *c, const struct scale *s,
                     const struct html_bar *bar, double x, double w)
{
    const char *const class = bar->marked ? "k" : "b";
    const double y = y_of(s, bar->value), middle = x + w / 2;

    if (!isfinite(bar->value))
        return;
    if (c->dots)
        html_printf(h, "<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\">", class, middle, y,
                    bar->marked ? 4.5 : 2.5);
    else
        html_printf(h, "<rect class=\"%s\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\">",
                    class, x, y, w, y_of(s, 0) - y);
    html_raw(h, "<title>");
    html_text(h, bar->tip);
    html_raw(h, c->dots ? "</title></circle>" : "</title></rect>");
    if (bar->error > 0)
        html_printf(h, "<line class=\"e\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>",
                    middle, middle, y_of(s, bar->value + bar->error),
                    y_of(s, fmax(bar->value - bar->error, s->low)));
}

void html_chart(struct html *h, const struct html_chart *c, const struct html_bar *bars, size_t n)
{
    const struct scale s = find_scale(c, bars, n);
    const double step = (double)(CHART_W - LEFT - RIGHT) / (double)(n ? n : 1);
    const size_t every = n / 16 + 1;

    html_raw(h, "<h2>");
    html_text(h, c->title);
    html_printf(h, "</h2>\n<svg viewBox=\"0 0 %d %d\" role=\"img\">\n", CHART_W, CHART_H);
    draw_axis(h, c, &s);
    for (size_t i = 0; i < n; i++) {
        const double x = LEFT + step * (double)i;

        draw_bar(h, c, &s, &bars[i], x + 0.1 * step, 0.8 * step);
        if (bars[i].label[0] && i % every == 0) {
            html_printf(h, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">", x + step / 2,
                        CHART_H - BOTTOM + 16);
            html_text(h, bars[i].label);
            html_raw(h, "</text>");
        }
        html_raw(h, "\n");
    }
    html_raw(h, "</svg>\n");
    if (c->note) {
        html_raw(h, "<p>");
        html_text(h, c->note);
        html_raw(h, "</p>\n");
    }
}

/* ---- tables ---- */

void html_table_begin(struct html *h, const char *title, const char *const *heads)
{
    html_raw(h, "<h2>");
    html_text(h, title);
    html_raw(h, "</h2>\n<table><tr>");
    for (; *heads; heads++) {
        const bool number = (*heads)[0] == '#'; /* a column of numbers */

        html_raw(h, number ? "<th class=\"n\">" : "<th>");
        html_text(h, *heads + number);
        html_raw(h, "</th>");
    }
    html_raw(h, "</tr>");
}

static void close_row(struct html *h)
{
    if (h->row_open)
        html_raw(h, "</tr>");
    h->row_open = false;
}

void html_row(struct html *h, bool marked)
{
    close_row(h);
    h->row_open = true;
    html_raw(h, marked ? "\n<tr class=\"m\">" : "\n<tr>");
}

void html_cell(struct html *h, const char *text)
{
    html_raw(h, "<td>");
    html_text(h, text);
    html_raw(h, "</td>");
}

void html_cell_f(struct html *h, const char *fmt, ...)
{
    va_list args;

    html_raw(h, "<td class=\"n\">");
    va_start(args, fmt);
    print_args(h, fmt, args);
    va_end(args);
    html_raw(h, "</td>");
}

void html_table_end(struct html *h)
{
    close_row(h);
    html_raw(h, "\n</table>\n");
}

bool html_end(struct html *h, const char *path)
{
    bool ok;

    html_raw(h, "</body></html>\n");
    if (h->failed)
        cli_fail_text("%s: out of memory, or a figure too long", path);
    ok = !h->failed && cli_write_file(path, h->text, h->len);
    free(h->text);
    *h = (struct html){ 0 };
    return ok;
}
