/* roofline.c - the roofline of a run as one SVG: operations a second over operations a byte of
 * weights, both axes logarithmic; the ceilings that were measured, a numbered dot a row of the
 * table. No script, no font, no file beside it; readable on light and dark. */
#include "report.h"

#include <math.h>

enum { W = 1080, H = 620, LEFT = 70, TOP = 40, PLOT_W = 600, PLOT_H = 500, KEY_X = 700 };

struct axes {
    double x0, x1, y0, y1; /* log10 */
};

static double at_x(const struct axes *a, double x)
{
    return LEFT + PLOT_W * (log10(x) - a->x0) / (a->x1 - a->x0);
}

static double at_y(const struct axes *a, double y)
{
    return TOP + PLOT_H * (1 - (log10(y) - a->y0) / (a->y1 - a->y0));
}

static void put_text(FILE *f, const char *s)
{
    for (; *s; s++) {
        if (*s == '&')
            fputs("&amp;", f);
        else if (*s == '<')
            fputs("&lt;", f);
        else if (*s == '>')
            fputs("&gt;", f);
        else if (*s == '"')
            fputs("&quot;", f);
        else if ((unsigned char)*s >= 32)
            fputc(*s, f);
    }
}

static bool on_chart(const struct row *w)
{
    return w->ops > 0 && w->bytes > 0 && w->rate.n > 0;
}

static double best_ceiling(const struct run *r)
{
    double most = 0;

    for (int c = F32; c < N_CEILINGS; c++)
        most = fmax(most, median(&r->ceiling[c]));
    return most;
}

/* Whole decades around everything that is drawn. */
static struct axes find_axes(const struct run *r)
{
    const double top = best_ceiling(r), read = median(&r->ceiling[READ]);
    double x0 = 0.5, x1 = top > 0 && read > 0 ? 4 * top / read : 100, y1 = top > 0 ? top : 1e9;
    double y0 = y1;

    for (size_t i = 0; i < r->n_rows; i++) {
        const struct row *const w = &r->rows[i];

        if (!on_chart(w))
            continue;
        x0 = fmin(x0, w->ops / w->bytes);
        x1 = fmax(x1, w->ops / w->bytes);
        y0 = fmin(y0, median(&w->rate) * w->ops);
        y1 = fmax(y1, median(&w->rate) * w->ops);
    }
    if (read > 0)
        y0 = fmin(y0, read);
    return (struct axes){ floor(log10(x0)), ceil(log10(1.2 * x1)), floor(log10(y0)),
                          ceil(log10(1.2 * y1)) };
}

static void draw_grid(const struct axes *a, FILE *f)
{
    for (double e = a->x0; e <= a->x1 + 1e-9; e++) {
        const double x = at_x(a, pow(10, e));

        fprintf(f,
                "<path class=\"g\" d=\"M%.1f %dV%d\"/><text x=\"%.1f\" y=\"%d\" "
                "text-anchor=\"middle\">%g</text>\n",
                x, TOP, TOP + PLOT_H, x, TOP + PLOT_H + 18, pow(10, e));
    }
    for (double e = a->y0; e <= a->y1 + 1e-9; e++) {
        const double y = at_y(a, pow(10, e));

        fprintf(f,
                "<path class=\"g\" d=\"M%d %.1fH%d\"/><text x=\"%d\" y=\"%.1f\" "
                "text-anchor=\"end\">%g</text>\n",
                LEFT, y, LEFT + PLOT_W, LEFT - 6, y + 4, pow(10, e) / 1e9);
    }
    fprintf(f,
            "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">operations a byte of weights</text>"
            "<text x=\"%d\" y=\"%d\">GOP/s</text>\n",
            LEFT + PLOT_W / 2, TOP + PLOT_H + 40, LEFT - 50, TOP - 12);
}

/* The slope up to the highest ceiling, each ceiling from where the slope meets it. */
static void draw_ceilings(const struct run *r, const struct axes *a, FILE *f)
{
    static const char *const names[N_CEILINGS] = { "read", "f32 FMA", "8-bit dot", "bf16 dot" };
    const double read = median(&r->ceiling[READ]), top = best_ceiling(r);
    const double left = pow(10, a->x0), right = pow(10, a->x1), low = pow(10, a->y0);

    if (read > 0 && top > 0) {
        const double x0 = fmax(left, low / read), x1 = fmin(right, top / read);

        fprintf(f,
                "<path class=\"c\" d=\"M%.1f %.1fL%.1f %.1f\"/><text x=\"%.1f\" y=\"%.1f\">"
                "read %.1f GB/s</text>\n",
                at_x(a, x0), at_y(a, x0 * read), at_x(a, x1), at_y(a, x1 * read), at_x(a, x0) + 14,
                at_y(a, x0 * read) - 2, read / 1e9);
    }
    for (int c = F32; c < N_CEILINGS; c++) {
        const double rate = median(&r->ceiling[c]);

        if (rate > 0)
            fprintf(f,
                    "<path class=\"c\" d=\"M%.1f %.1fH%d\"/><text x=\"%d\" y=\"%.1f\" "
                    "text-anchor=\"end\">%s %.0f</text>\n",
                    at_x(a, fmax(left, read > 0 ? rate / read : left)), at_y(a, rate),
                    LEFT + PLOT_W, LEFT + PLOT_W - 4, at_y(a, rate) - 5, names[c], rate / 1e9);
    }
}

static void draw_dots(const struct run *r, const struct axes *a, FILE *f)
{
    int y = TOP + 10, n = 0;

    for (size_t i = 0; i < r->n_rows; i++) {
        const struct row *const w = &r->rows[i];

        if (!on_chart(w))
            continue;
        const double rate = median(&w->rate), cx = at_x(a, w->ops / w->bytes),
                     cy = at_y(a, rate * w->ops);
        const char *const kind = w->llama ? "l" : "e";
        n++;
        fprintf(f, "<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"4.5\"><title>", kind, cx, cy);
        put_text(f, w->model);
        fprintf(f,
                " %s %ld batch %ld, %s: %.1f tok/s</title></circle>"
                "<text class=\"n\" x=\"%.1f\" y=\"%.1f\">%d</text>\n",
                w->what, w->length, w->batch, engine_name(w), rate, cx + 6, cy - 5, n);
        fprintf(f, "<circle class=\"%s\" cx=\"%d\" cy=\"%d\" r=\"4\"/><text x=\"%d\" y=\"%d\">%d  ",
                kind, KEY_X, y - 4, KEY_X + 10, y, n);
        put_text(f, w->model);
        fprintf(f, ", %s %ld", w->what, w->length);
        if (w->batch > 1)
            fprintf(f, ", batch %ld", w->batch);
        fprintf(f, ", %s: %.1f tok/s</text>\n", engine_name(w), rate);
        y += 17;
    }
}

void write_roofline(const struct run *r, FILE *f)
{
    const struct axes a = find_axes(r);
    size_t n = 0;

    for (size_t i = 0; i < r->n_rows; i++)
        n += on_chart(&r->rows[i]);
    const int height = (int)n * 17 + TOP + 30 > H ? (int)n * 17 + TOP + 30 : H;
    fprintf(f,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" "
            "height=\"%d\" role=\"img\">\n<title>",
            W, height, W, height);
    put_text(f, r->title);
    fprintf(f,
            "</title>\n<style>text{font:12px system-ui,sans-serif;fill:#6b7480}.n{font-size:10px}"
            ".g{stroke:#8a929c;stroke-opacity:.25;fill:none}"
            ".c{stroke:#8a929c;stroke-width:2;fill:none}.e{fill:#3b82d6}.l{fill:#d97a2b}"
            "@media(prefers-color-scheme:dark){text{fill:#a4adb8}}</style>\n"
            "<text x=\"%d\" y=\"18\">",
            LEFT);
    put_text(f, r->machine);
    fprintf(f, ", %ld threads. Blue: edgewise, orange: llama.cpp</text>\n", r->threads);
    draw_grid(&a, f);
    draw_ceilings(r, &a, f);
    draw_dots(r, &a, f);
    fprintf(f, "</svg>\n");
}
