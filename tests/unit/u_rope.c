/* ew-layers: base os tensor checkpoint op graph kernels cpu
 * Rope tables against those of transformers (tests/golden/families/rope.json), and the round trip
 * of a spec through JSON. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"
#include "base/mem.h"
#include "checkpoint/rope.h"

static json_t *load_cases(void)
{
    json_t *cases;
    ew_error err = { 0 };

    assert_int_equal(
        ew_json_load(EW_SOURCE_DIR "/tests/golden/families/rope.json", 1 << 24, &cases, &err),
        EW_STATUS_OK);
    return cases;
}

static struct ew_rope_spec parse_case(const json_t *c)
{
    struct ew_rope_context ctx = { .theta = 10000, .partial = 1 };
    struct ew_rope_spec spec;
    ew_error err = { 0 };

    ctx.head_dim = json_integer_value(json_object_get(c, "head_dim"));
    ctx.max_position = json_integer_value(json_object_get(c, "max_position"));
    ctx.original_max = json_integer_value(json_object_get(c, "original_max"));
    ctx.yarn_is_longrope = json_is_true(json_object_get(c, "phi3"));
    if (ew_rope_parse(json_object_get(c, "dict"), &ctx, "case", &spec, &err))
        fail_msg("%s", err.text);
    return spec;
}

/* Largest difference, in units of what is allowed: 1e-6, and one f32 rounding of the inverse
 * frequency (transformers' own differs by that between processors) times the position. */
static double table_error(const json_t *c, const struct ew_rope_spec *spec)
{
    const json_t *rows = json_object_get(c, "rows"), *values = json_object_get(c, "values");
    const int64_t hint = json_integer_value(json_object_get(c, "length"));
    const int half = spec->rotary_dim / 2;
    float first[2 * EW_ROPE_MAX_HALF], row[2 * EW_ROPE_MAX_HALF];
    double worst = 0;

    assert_int_equal(spec->rotary_dim, json_integer_value(json_object_get(c, "rotary_dim")));
    ew_rope_fill(spec, hint, 1, 1, first);
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const int64_t pos = json_integer_value(json_array_get(rows, i));
        const json_t *want = json_array_get(values, i);

        ew_rope_fill(spec, hint, pos, 1, row);
        for (int k = 0; k < spec->rotary_dim; k++) {
            const double e = fabs(json_number_value(json_array_get(want, (size_t)k)) - row[k]);
            const double inv_freq = atan2(first[half + k % half], first[k % half]);
            const double units = e / (1e-6 + 1.2e-7 * inv_freq * (double)pos);

            worst = units > worst ? units : worst;
        }
    }
    return worst;
}

static void tables_equal_transformers(void **state)
{
    json_t *cases = load_cases();

    (void)state;
    assert_true(json_array_size(cases) >= 20);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *c = json_array_get(cases, i);
        const struct ew_rope_spec spec = parse_case(c);
        const double e = table_error(c, &spec);

        print_message("%-20s length %-6lld error %.3f of what is allowed\n",
                      json_string_value(json_object_get(c, "name")),
                      json_integer_value(json_object_get(c, "length")), e);
        assert_true(e <= 1.0);
    }
    json_decref(cases);
}

static void specs_survive_json(void **state)
{
    json_t *cases = load_cases();

    (void)state;
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *c = json_array_get(cases, i);
        const struct ew_rope_spec spec = parse_case(c);
        struct ew_rope_spec back;
        json_t *o = ew_rope_to_json(&spec);
        char *text = json_dumps(o, 0);
        json_t *again = json_loads(text, 0, NULL);
        ew_error err = { 0 };

        if (ew_rope_from_json(again, "json", &back, &err))
            fail_msg("%s", err.text);
        assert_float_equal(table_error(c, &back), table_error(c, &spec), 0);
        json_decref(again);
        json_decref(o);
        free(text);
    }
    json_decref(cases);
}

/* One dict, or the error that it must give. */
static void expect(const char *dict, ew_status want, const char *word)
{
    const struct ew_rope_context ctx = {
        .head_dim = 16, .max_position = 64, .theta = 10000, .partial = 1
    };
    struct ew_rope_spec spec;
    json_t *o = json_loads(dict, JSON_DECODE_ANY, NULL);
    ew_error err = { 0 };
    const ew_status s = ew_rope_parse(o, &ctx, "config.json", &spec, &err);

    if (s != want || (word && !strstr(err.text, word)))
        fail_msg("%s: status %d, '%s', wanted %d with '%s'", dict, s, err.text, want, word);
    json_decref(o);
}

static void bad_dicts_are_refused(void **state)
{
    (void)state;
    expect("null", EW_STATUS_OK, NULL);
    expect("{\"type\": \"mrope\", \"mrope_section\": [2, 3, 3]}", EW_STATUS_OK, NULL);
    expect("{\"rope_type\": \"spiral\"}", EW_STATUS_UNSUPPORTED, "spiral");
    expect("{\"rope_type\": \"default\", \"wobble\": 3}", EW_STATUS_UNSUPPORTED, "wobble");
    expect("[]", EW_STATUS_MALFORMED, "object");
    expect("{\"type\": \"linear\"}", EW_STATUS_MALFORMED, "factor");
    expect("{\"type\": \"linear\", \"factor\": \"2\"}", EW_STATUS_MALFORMED, "factor");
    expect("{\"type\": \"linear\", \"factor\": -2}", EW_STATUS_MALFORMED, "factor");
    expect("{\"type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 4, "
           "\"high_freq_factor\": 1}",
           EW_STATUS_MALFORMED, "high_freq_factor");
    expect("{\"type\": \"su\", \"short_factor\": [1, 1], \"long_factor\": [1]}",
           EW_STATUS_MALFORMED, "short_factor");
    expect("{\"type\": \"default\", \"partial_rotary_factor\": 0.2}", EW_STATUS_UNSUPPORTED,
           "rotates");
    expect("{\"type\": \"default\", \"partial_rotary_factor\": 3}", EW_STATUS_UNSUPPORTED,
           "rotates");
    expect("{\"type\": \"default\", \"rope_theta\": 0}", EW_STATUS_MALFORMED, "rope_theta");
}

static void length_decides(void **state)
{
    json_t *cases = load_cases();

    (void)state;
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const struct ew_rope_spec spec = parse_case(json_array_get(cases, i));
        int64_t at = -1;
        const bool depends = ew_rope_depends_on_length(&spec, &at);

        assert_int_equal(depends, spec.type == EW_ROPE_DYNAMIC || spec.type == EW_ROPE_LONGROPE);
        assert_true(ew_rope_same_table(&spec, at, at - 1));
        assert_int_equal(ew_rope_same_table(&spec, at, at + 1), !depends);
        assert_int_equal(ew_rope_same_table(&spec, at + 1, at + 2), spec.type != EW_ROPE_DYNAMIC);
    }
    json_decref(cases);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_equal_transformers),
        cmocka_unit_test(specs_survive_json),
        cmocka_unit_test(bad_dicts_are_refused),
        cmocka_unit_test(length_decides),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
