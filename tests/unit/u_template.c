/* ew-layers: base os text
 * Chat templates: the published ones against what transformers renders, the language's corners,
 * user spans, and caps. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/mem.h"
#include "edgewise/tokenizer.h"

#define CASES           "../shared/reference/chat-templates"
#define NOON_2026_01_15 1768478400

static ew_status render(const char *source, const char *input, const ew_template_caps *caps,
                        char **text, ew_error *err)
{
    ew_template *t;
    size_t len;
    ew_status st = ew_template_parse(source, strlen(source), "test", &t, err);

    *text = NULL;
    if (st)
        return st;
    st = ew_template_render(t, input, caps, NOON_2026_01_15, text, &len, NULL, NULL, err);
    ew_template_destroy(t);
    return st;
}

static void expect(const char *source, const char *input, const char *want)
{
    ew_error err = { EW_STATUS_OK, "" };
    char *text;

    if (render(source, input, NULL, &text, &err))
        fail_msg("%s: %s", source, err.text);
    if (strcmp(text, want) != 0)
        fail_msg("%s gives '%s', wanted '%s'", source, text, want);
    ew_string_free(text);
}

static void expect_error(const char *source, const char *input, ew_status want, const char *part)
{
    ew_error err = { EW_STATUS_OK, "" };
    char *text;
    const ew_status st = render(source, input, NULL, &text, &err);

    if (st != want || !strstr(err.text, part))
        fail_msg("%s: status %d '%s', wanted %d with '%s'", source, st, err.text, want, part);
    assert_null(text);
}

static void published_templates(void **state)
{
    json_error_t jerr;
    json_t *const cases = json_load_file(CASES "/cases.json", 0, &jerr);
    size_t i, n_rendered = 0, n_refused = 0;
    json_t *c;

    (void)state;
    if (!cases) {
        printf("skipped: published templates (" CASES " is not here)\n");
        skip();
    }
    json_array_foreach(cases, i, c)
    {
        char path[512], *text;
        const char *const want = json_string_value(json_object_get(c, "expected"));
        char *const input = json_dumps(json_object_get(c, "input"), JSON_COMPACT);
        ew_error err = { EW_STATUS_OK, "" };
        size_t len;
        snprintf(path, sizeof(path), CASES "/%s",
                 json_string_value(json_object_get(c, "template")));
        FILE *const f = fopen(path, "rb");
        assert_non_null(f);
        char *const source = calloc(1, 1 << 20);
        const size_t n = fread(source, 1, (1 << 20) - 1, f);
        fclose(f);
        source[n] = '\0';
        ew_template *t;
        if (ew_template_parse(source, n, path, &t, &err))
            fail_msg("%s", err.text);
        const ew_status st =
            ew_template_render(t, input, NULL, NOON_2026_01_15, &text, &len, NULL, NULL, &err);
        if (want && (st || strcmp(text, want) != 0))
            fail_msg("%s case %s: %s\n--- got\n%s\n--- wanted\n%s", path,
                     json_string_value(json_object_get(c, "case")), err.text, text ? text : "",
                     want);
        if (!want && !st)
            fail_msg("%s case %s: rendered, should be refused", path,
                     json_string_value(json_object_get(c, "case")));
        n_rendered += want != NULL;
        n_refused += want == NULL;
        ew_string_free(text);
        ew_template_destroy(t);
        free(source);
        free(input);
    }
    printf("%zu renders equal, %zu errors refused\n", n_rendered, n_refused);
    assert_int_equal(n_rendered, 156);
    assert_int_equal(n_refused, 12);
    json_decref(cases);
}

static void expressions(void **state)
{
    (void)state;
    expect("{{ 1 + 2 * 3 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ 2 ** 10 }} {{ 7 / 2 }}", "{}",
           "7 3 -4 1 1024 3.5");
    expect("{{ 'a' ~ 1 ~ none }} {{ 'ab' * 2 }} {{ [1] + [2] }}", "{}", "a1None abab [1, 2]");
    expect("{{ 1 < 2 < 3 }} {{ 1 == 1.0 }} {{ 'a' in 'cat' }} {{ 2 not in [1] }}", "{}",
           "True True True True");
    expect("{{ 'x' if false }}|{{ 'x' if true else 'y' }}|{{ not a or b }}", "{\"b\":3}",
           "|x|True");
    expect("{{ x.y }}|{{ x['y'] }}|{{ x.nope }}|{{ x.get('z', 5) }}", "{\"x\":{\"y\":1}}",
           "1|1||5");
    expect("{{ s[1:3] }} {{ s[-2:] }} {{ s[::-1] }} {{ l[1:][0] }}",
           "{\"s\":\"h\\u00e9llo\",\"l\":[1,2]}", "él lo olléh 2");
    expect("{{ {'a': 1, 'b': [true, none, 'x']} }}", "{}", "{'a': 1, 'b': [True, None, 'x']}");
    expect("{{ 1.0 }} {{ 1e20 }} {{ 0.1 }} {{ 1.5e-7 }}", "{}", "1.0 1e+20 0.1 1.5e-07");
    expect("{{ \"it's\" | list | length }} {{ (1,) }} {{ 'a' 'b' }}", "{}", "4 (1,) ab");
    expect("{{ a.b.c is defined }}", "{\"a\":{\"b\":{}}}", "False");
    expect_error("{{ a.b.c }}", "{\"a\":{}}", EW_STATUS_MALFORMED, "'b' is undefined");
    expect_error("{{ 'a' + [] }}", "{}", EW_STATUS_MALFORMED, "concatenate");
    expect_error("{{ 1 + }}", "{}", EW_STATUS_MALFORMED, "expected an expression");
    expect_error("a\n{% if x %}", "{}", EW_STATUS_MALFORMED, "line 2");
}

static void statements(void **state)
{
    (void)state;
    expect("{% for x in [1,2,3] %}{{ loop.index }}{{ loop.last }},{% endfor %}", "{}",
           "1False,2False,3True,");
    expect("{% for x in [] %}a{% else %}none{% endfor %}", "{}", "none");
    expect("{% for x in range(9) if x is odd %}{% if x > 5 %}{% break %}{% endif %}{{ x }}{% "
           "endfor %}",
           "{}", "135");
    expect("{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", "{\"d\":{\"b\":1,\"a\":2}}",
           "b=1;a=2;");
    expect("{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{% endfor %}{{ x }}", "{}", "1");
    expect("{% set n = namespace(x=1) %}{% for i in [1] %}{% set n.x = 2 %}{% endfor %}{{ n.x }}",
           "{}", "2");
    expect("{% macro f(a, b=2) %}{{ a }}{{ b }}{% endmacro %}{{ f(1) }}{{ f(1, b=3) }}", "{}",
           "1213");
    expect("{% macro w() %}<{{ caller() }}>{% endmacro %}{% call w() %}x{% endcall %}", "{}",
           "<x>");
    expect("{% set x %}a{{ 1 }}{% endset %}{{ x | upper }}", "{}", "A1");
    expect("{% filter upper %}ab{% endfilter %}{% generation %}c{% endgeneration %}", "{}", "ABc");
    expect("{% raw %}{{ x }}{% endraw %}{# gone #}", "{}", "{{ x }}");
    expect("{% if a %}1{% elif b %}2{% else %}3{% endif %}", "{\"b\":true}", "2");
}

static void whitespace(void **state)
{
    (void)state;
    expect("a\n  {% if true %}\nb\n  {% endif %}\nc\n", "{}", "a\nb\nc");
    expect("a  {{- 1 -}}  b", "{}", "a1b");
    expect("a  {%- if true -%}  b  {%- endif %}  c", "{}", "ab  c");
    expect("  {%+ if true %}x{% endif %}", "{}", "  x");
    expect("x\n{# c #}\ny", "{}", "x\ny");
}

static void filters(void **state)
{
    (void)state;
    expect("{{ x | tojson }}", "{\"x\":{\"a\":[1,2.5,\"\\u00e9\\\"\",null,true]}}",
           "{\"a\": [1, 2.5, \"é\\\"\", null, true]}");
    expect("{{ x | tojson(indent=2) }}", "{\"x\":{\"a\":[1],\"b\":{}}}",
           "{\n  \"a\": [\n    1\n  ],\n  \"b\": {}\n}");
    expect("{{ ' a b ' | trim }}|{{ u | default('d') }}|{{ '' | default('d', true) }}", "{}",
           "a b|d|d");
    expect("{{ l | map(attribute='n') | join('-') }}", "{\"l\":[{\"n\":1},{\"n\":2}]}", "1-2");
    expect("{{ l | selectattr('n', 'gt', 1) | list | length }}", "{\"l\":[{\"n\":1},{\"n\":2}]}",
           "1");
    expect(
        "{{ [3,1,2] | sort | join }} {{ ['b','A'] | sort | first }} {{ {'b':1,'a':2} | dictsort }}",
        "{}", "123 A [('a', 2), ('b', 1)]");
    expect("{{ 'abc' | replace('b', 'x') | upper | length }} {{ '7' | int + 1 }}", "{}", "3 8");
    expect("{{ 'a\nb' | indent(2) }}", "{}", "a\n  b");
    expect("{{ 'x,y'.split(',') | last }} {{ '  q '.strip() }} {{ "
           "'aXb'.lower().startswith(('z','a')) }}",
           "{}", "y q True");
    expect("{{ strftime_now('%d %b %Y') }}", "{}", "15 Jan 2026");
    expect_error("{{ 'a' | nosuch }}", "{}", EW_STATUS_UNSUPPORTED, "nosuch");
    expect_error("{{ raise_exception('no way') }}", "{}", EW_STATUS_MALFORMED, "no way");
    expect_error("{{ [].append(1) }}", "{}", EW_STATUS_UNSUPPORTED, "append");
}

/* User bytes are found whatever was done to them; template bytes never. */
static void user_spans(void **state)
{
    static const char source[] =
        "{{ bos_token }}<|u|>{{ m.role + '\\n' + (m.content | trim)[1:] }}<|e|>{{ m | tojson }}";
    static const char input[] =
        "{\"bos_token\":\"<B>\",\"m\":{\"role\":\"user\",\"content\":\" x<|e|>y \"}}";
    ew_error err = { EW_STATUS_OK, "" };
    ew_text_span *spans;
    ew_template *t;
    size_t len, n;
    char *text;

    (void)state;
    assert_int_equal(ew_template_parse(source, sizeof(source) - 1, "t", &t, &err), EW_STATUS_OK);
    assert_int_equal(ew_template_render(t, input, NULL, -1, &text, &len, &spans, &n, &err),
                     EW_STATUS_OK);
    assert_int_equal(n, 3);
    assert_memory_equal(text + spans[0].begin, "user", 4);
    assert_int_equal(spans[0].end - spans[0].begin, 4);
    assert_memory_equal(text + spans[1].begin, "<|e|>y", 6);
    assert_int_equal(spans[1].end - spans[1].begin, 6);
    assert_int_equal(text[spans[2].begin], '{');
    assert_int_equal(spans[2].end, len);
    ew_spans_free(spans);
    ew_string_free(text);
    ew_template_destroy(t);
}

/* Each runs into its cap with a message, in bounded time and memory. */
static void caps(void **state)
{
    static const char *const bombs[] = {
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
        "{{ range(10**12) }}",
        "{{ 'x' * 10**12 }}",
        "{% set n = namespace(s='xxxxxxxx') %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% "
        "endfor %}",
        "{% for i in range(90000) %}{{ "
        "'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
        "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' }}{% endfor %}",
        "{{ 2 ** 64 }}",
    };
    char deep[4096];

    (void)state;
    for (size_t i = 0; i < sizeof(bombs) / sizeof(bombs[0]); i++)
        expect_error(bombs[i], "{}", EW_STATUS_LIMIT, "test");
    memset(deep, '(', sizeof(deep) - 1);
    memcpy(deep, "{{", 2);
    memcpy(deep + sizeof(deep) - 3, "}}", 3);
    expect_error(deep, "{}", EW_STATUS_LIMIT, "nested");
    expect_error("{{ x.__class__.__mro__ }}", "{\"x\":\"\"}", EW_STATUS_MALFORMED, "undefined");
}

static void no_leaks(void **state)
{
    (void)state;
    assert_int_equal(ew_mem_tag_bytes(EW_MEM_TEXT), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_templates),
        cmocka_unit_test(expressions),
        cmocka_unit_test(statements),
        cmocka_unit_test(whitespace),
        cmocka_unit_test(filters),
        cmocka_unit_test(user_spans),
        cmocka_unit_test(caps),
        cmocka_unit_test(no_leaks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
