/* e2e_tool.c - what the end-to-end scripts cannot say in shell: values out of JSON, peak memory of
 * a command, one changed weight, files cut or flipped at many places. No test by itself.
 *
 *   e2e_tool json FILE PATH
 *       value at "responses.0.output_text"; of an array "#", its length
 *   e2e_tool rss LIMIT_BYTES CMD...
 *       runs CMD, fails when its largest resident set was more
 *   e2e_tool add FILE TENSOR I X
 *       adds X to element I of a bf16 or f32 tensor of a safetensors file
 *   e2e_tool scale FILE TENSOR X
 *       multiplies all its elements by X
 *   e2e_tool case FILE I OUT_JSON OUT_EXPECTED
 *       case I of chat-templates/cases.json; prints its template */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <jansson.h>

static int fail(const char *what, const char *why)
{
    fprintf(stderr, "e2e_tool: %s: %s\n", what, why);
    return 125;
}

static const json_t *at(const json_t *v, char *path)
{
    for (char *key = path; v && key && *key;) {
        char *dot = strchr(key, '.');

        if (dot)
            *dot++ = '\0';
        v = json_is_array(v) ? json_array_get(v, (size_t)strtoul(key, NULL, 10))
                             : json_object_get(v, key);
        key = dot;
    }
    return v;
}

static int print_value(const json_t *v)
{
    char *text;

    if (json_is_string(v)) {
        fwrite(json_string_value(v), 1, json_string_length(v), stdout);
        return 0;
    }
    text = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT | JSON_SORT_KEYS);
    printf("%s\n", text ? text : "");
    free(text);
    return text ? 0 : 125;
}

static int cmd_json(int argc, char **argv)
{
    json_error_t err;
    json_t *const root = argc > 1 ? json_load_file(argv[0], JSON_DECODE_ANY, &err) : NULL;
    const json_t *v;
    char *path;
    size_t len;
    int rc = 0;

    if (!root)
        return fail(argv[0], argc > 1 ? err.text : "needs FILE PATH");
    path = strdup(argv[1]);
    len = strlen(path);
    const int count = len && path[len - 1] == '#';
    if (count)
        path[len > 1 ? len - 2 : 0] = '\0';
    v = at(root, path);
    if (!v)
        rc = fail(argv[1], "not in the file");
    else if (count)
        printf("%zu\n", json_is_array(v) ? json_array_size(v) : json_object_size(v));
    else
        rc = print_value(v);
    free(path);
    json_decref(root);
    return rc;
}

static int cmd_rss(int argc, char **argv)
{
    struct rusage use;
    int status;
    pid_t pid;

    if (argc < 2)
        return fail("rss", "needs LIMIT_BYTES CMD...");
    pid = fork();
    if (pid == 0) {
        execvp(argv[1], argv + 1);
        _exit(127);
    }
    if (pid < 0 || wait4(pid, &status, 0, &use) != pid)
        return fail("rss", strerror(errno));
    if (!WIFEXITED(status) || WEXITSTATUS(status))
        return fail(argv[1], "did not end well");
    const double peak = 1024.0 * (double)use.ru_maxrss, limit = strtod(argv[0], NULL);
    printf("peak %.1f MB of %.1f MB allowed\n", peak / 1e6, limit / 1e6);
    return peak <= limit ? 0 : 1;
}

/* Where the elements of a bf16 or f32 tensor lie in the file. */
struct place {
    long begin, end;
    int wide; /* f32 */
};

static int find_tensor(FILE *f, const char *name, struct place *out)
{
    uint64_t len = 0;
    char *head;
    json_t *root;

    if (fread(&len, 8, 1, f) != 1 || len > (1u << 26))
        return fail(name, "not in a safetensors file");
    head = malloc((size_t)len);
    root = head && fread(head, 1, (size_t)len, f) == len ? json_loadb(head, (size_t)len, 0, NULL)
                                                         : NULL;
    const json_t *tensor = json_object_get(root, name);
    const json_t *range = json_object_get(tensor, "data_offsets");
    const char *dtype = json_string_value(json_object_get(tensor, "dtype"));
    const int ok = dtype && (strcmp(dtype, "F32") == 0 || strcmp(dtype, "BF16") == 0);

    out->wide = ok && dtype[0] == 'F';
    out->begin = (long)len + 8 + (long)json_integer_value(json_array_get(range, 0));
    out->end = (long)len + 8 + (long)json_integer_value(json_array_get(range, 1));
    json_decref(root);
    free(head);
    return ok ? 0 : fail(name, "no bf16 or f32 tensor in the file");
}

/* x = x * mul + add for the element at `off`, in place; the file keeps its length. */
static int change(FILE *f, int wide, long off, float mul, float add)
{
    const size_t size = wide ? 4 : 2;
    uint32_t bits = 0;
    float x;

    if (fseek(f, off, SEEK_SET) || fread((char *)&bits + (wide ? 0 : 2), size, 1, f) != 1)
        return fail("change", "cannot read");
    memcpy(&x, &bits, sizeof(x));
    x = x * mul + add;
    memcpy(&bits, &x, sizeof(x));
    bits += wide || bits > 0xffff0000u ? 0 : 0x8000u; /* bf16: to nearest */
    if (fseek(f, off, SEEK_SET) || fwrite((char *)&bits + (wide ? 0 : 2), size, 1, f) != 1)
        return fail("change", "cannot write");
    return 0;
}

static int cmd_add(int argc, char **argv)
{
    FILE *const f = argc == 4 ? fopen(argv[0], "r+b") : NULL;
    struct place p;
    int rc;

    if (!f)
        return fail("add", "needs FILE TENSOR I X");
    rc = find_tensor(f, argv[1], &p);
    if (!rc) {
        const long size = p.wide ? 4 : 2;
        const long off = p.begin + (long)strtoull(argv[2], NULL, 10) * size;

        rc = off + size <= p.end ? change(f, p.wide, off, 1, strtof(argv[3], NULL))
                                 : fail("add", "no such element");
    }
    return fclose(f) ? fail(argv[0], "cannot write") : rc;
}

static int cmd_scale(int argc, char **argv)
{
    FILE *const f = argc == 3 ? fopen(argv[0], "r+b") : NULL;
    struct place p;
    int rc;

    if (!f)
        return fail("scale", "needs FILE TENSOR X");
    rc = find_tensor(f, argv[1], &p);
    for (long off = p.begin; !rc && off < p.end; off += p.wide ? 4 : 2)
        rc = change(f, p.wide, off, strtof(argv[2], NULL), 0);
    return fclose(f) ? fail(argv[0], "cannot write") : rc;
}

/* Prints "TEMPLATE render" or "TEMPLATE raise"; exit code 1 past the last case. */
static int cmd_case(int argc, char **argv)
{
    json_t *const root = argc == 4 ? json_load_file(argv[0], 0, NULL) : NULL;
    const json_t *c = json_array_get(root, argc == 4 ? strtoul(argv[1], NULL, 10) : 0);
    const json_t *expected = json_object_get(c, "expected");
    FILE *f;
    int rc = 1;

    if (!root)
        return fail("case", "needs FILE I OUT_JSON OUT_EXPECTED");
    f = c ? fopen(argv[3], "wb") : NULL;
    if (f && json_dump_file(json_object_get(c, "input"), argv[2], JSON_COMPACT) == 0) {
        fwrite(expected ? json_string_value(expected) : "", 1, json_string_length(expected), f);
        printf("%s %s\n", json_string_value(json_object_get(c, "template")),
               json_is_string(expected) ? "render" : "raise");
        rc = 0;
    }
    if (f)
        fclose(f);
    json_decref(root);
    return rc;
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "json") == 0)
        return cmd_json(argc - 2, argv + 2);
    if (argc > 1 && strcmp(argv[1], "rss") == 0)
        return cmd_rss(argc - 2, argv + 2);
    if (argc > 1 && strcmp(argv[1], "add") == 0)
        return cmd_add(argc - 2, argv + 2);
    if (argc > 1 && strcmp(argv[1], "scale") == 0)
        return cmd_scale(argc - 2, argv + 2);
    if (argc > 1 && strcmp(argv[1], "case") == 0)
        return cmd_case(argc - 2, argv + 2);
    return fail("usage", "json, rss, add, scale or case");
}
