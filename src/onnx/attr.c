/* onnx/attr.c - node attributes: typed getters that mark what was looked at, and the generic way
 * through the op table's schema. Whatever nobody looked at is refused by name. */
#include <string.h>

#include "onnx/onnx_int.h"

static const char *type_text(int type)
{
    static const char *const names[] = { "UNDEFINED", "FLOAT",   "INT",    "STRING",
                                         "TENSOR",    "GRAPH",   "FLOATS", "INTS",
                                         "STRINGS",   "TENSORS", "GRAPHS" };
    return type >= 0 && type < (int)EW_COUNT(names) ? names[type] : "of another kind";
}

const Onnx__AttributeProto *ew_onnx_attr(struct ew_onnx_node *n, const char *name)
{
    for (size_t i = 0; i < n->p->n_attribute && i < EW_ONNX_MAX_ATTRS; i++) {
        if (strcmp(n->p->attribute[i]->name, name) == 0) {
            n->used |= (uint64_t)1 << i;
            return n->p->attribute[i];
        }
    }
    return NULL;
}

static ew_status check_type(const struct ew_onnx_node *n, const Onnx__AttributeProto *a, int type)
{
    if ((int)a->type == type)
        return EW_STATUS_OK;
    return ew_fail(n->in->err, EW_STATUS_MALFORMED, "attribute %s is %s, expected %s", a->name,
                   type_text((int)a->type), type_text(type));
}

ew_status ew_onnx_attr_int(struct ew_onnx_node *n, const char *name, int64_t fallback, int64_t *out)
{
    const Onnx__AttributeProto *a = ew_onnx_attr(n, name);

    *out = fallback;
    if (!a)
        return EW_STATUS_OK;
    EW_TRY(check_type(n, a, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT));
    *out = a->i;
    return EW_STATUS_OK;
}

ew_status ew_onnx_attr_float(struct ew_onnx_node *n, const char *name, float fallback, float *out)
{
    const Onnx__AttributeProto *a = ew_onnx_attr(n, name);

    *out = fallback;
    if (!a)
        return EW_STATUS_OK;
    EW_TRY(check_type(n, a, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT));
    *out = a->f;
    return EW_STATUS_OK;
}

ew_status ew_onnx_attr_ints(struct ew_onnx_node *n, const char *name, const int64_t **ints,
                            size_t *n_ints)
{
    static const int64_t nothing[1];
    const Onnx__AttributeProto *a = ew_onnx_attr(n, name);

    *ints = NULL;
    *n_ints = 0;
    if (!a)
        return EW_STATUS_OK;
    EW_TRY(check_type(n, a, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS));
    *ints = a->n_ints ? a->ints : nothing;
    *n_ints = a->n_ints;
    return EW_STATUS_OK;
}

ew_status ew_onnx_attr_text(struct ew_onnx_node *n, const char *name, const char *fallback,
                            char *out, size_t cap)
{
    const Onnx__AttributeProto *a = ew_onnx_attr(n, name);
    const char *text = fallback;
    size_t len = strlen(fallback);

    if (a) {
        EW_TRY(check_type(n, a, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRING));
        text = (const char *)a->s.data;
        len = a->s.len;
    }
    if (len >= cap || (len && memchr(text, 0, len)))
        return ew_onnx_refuse(n, "attribute %s has %zu bytes (or a NUL), at most %zu are supported",
                              name, len, cap - 1);
    if (len)
        memcpy(out, text, len);
    out[len] = 0;
    return EW_STATUS_OK;
}

/* ---- by schema ---- */

static ew_status set_int(struct ew_onnx_node *n, const Onnx__AttributeProto *a,
                         const struct ew_attr_field *f, char *at)
{
    EW_TRY(check_type(n, a, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT));
    if (f->type == EW_FIELD_I64) {
        memcpy(at, &a->i, sizeof(a->i));
        return EW_STATUS_OK;
    }
    int32_t v = (int32_t)a->i;
    if (f->type == EW_FIELD_DTYPE) {
        v = (int32_t)ew_onnx_dtype(a->i);
        if (v == EW_DTYPE_NONE && a->i != 0)
            return ew_onnx_refuse(n, "attribute %s = %lld (%s) is not supported", a->name,
                                  (long long)a->i, ew_onnx_data_type_text(a->i));
    } else if (a->i < INT32_MIN || a->i > INT32_MAX) {
        return ew_onnx_refuse(n, "attribute %s = %lld is out of range", a->name, (long long)a->i);
    }
    memcpy(at, &v, sizeof(v));
    return EW_STATUS_OK;
}

static ew_status set_enum(struct ew_onnx_node *n, const Onnx__AttributeProto *a,
                          const struct ew_attr_field *f, char *at)
{
    EW_TRY(check_type(n, a, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRING));
    for (int32_t i = 0; f->names[i]; i++) {
        if (strlen(f->names[i]) == a->s.len && memcmp(f->names[i], a->s.data, a->s.len) == 0) {
            memcpy(at, &i, sizeof(i));
            return EW_STATUS_OK;
        }
    }
    return ew_onnx_refuse(n, "attribute %s = '%.*s' is not supported", a->name,
                          (int)(a->s.len < 80 ? a->s.len : 80),
                          a->s.len ? (const char *)a->s.data : "");
}

static ew_status set_ints(struct ew_onnx_node *n, const Onnx__AttributeProto *a, char *at)
{
    struct ew_ints v = { 0 };

    EW_TRY(check_type(n, a, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS));
    if (a->n_ints > EW_MAX_INTS)
        return ew_onnx_refuse(n, "attribute %s has %zu values, at most %d are supported", a->name,
                              a->n_ints, EW_MAX_INTS);
    v.n = (int32_t)a->n_ints;
    if (a->n_ints)
        memcpy(v.v, a->ints, a->n_ints * sizeof(v.v[0]));
    memcpy(at, &v, sizeof(v));
    return EW_STATUS_OK;
}

static ew_status set_field(struct ew_onnx_node *n, const Onnx__AttributeProto *a,
                           const struct ew_attr_field *f, union ew_attrs *attrs)
{
    char *at = (char *)attrs + f->offset;

    switch (f->type) {
    case EW_FIELD_I32:
    case EW_FIELD_I64:
    case EW_FIELD_DTYPE:
        return set_int(n, a, f, at);
    case EW_FIELD_F32:
        EW_TRY(check_type(n, a, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT));
        memcpy(at, &a->f, sizeof(a->f));
        return EW_STATUS_OK;
    case EW_FIELD_INTS:
        return set_ints(n, a, at);
    case EW_FIELD_ENUM:
        return set_enum(n, a, f, at);
    case EW_FIELD_TEXT:
        return ew_onnx_attr_text(n, a->name, "", at, f->cap);
    case EW_FIELD_F64:
    case EW_FIELD_PROGRAM:
        break;
    }
    return ew_onnx_refuse(n, "attribute %s is not supported", a->name);
}

/* Fields of the table that ONNX has no attribute for. */
static bool is_private(const char *name)
{
    return strcmp(name, "has_end") == 0 || strcmp(name, "has_scale") == 0;
}

ew_status ew_onnx_attrs_by_schema(struct ew_onnx_node *n, ew_op op, union ew_attrs *attrs)
{
    const struct ew_op_info *info = ew_op_get(op);

    for (size_t i = 0; i < n->p->n_attribute; i++) {
        const Onnx__AttributeProto *a = n->p->attribute[i];
        if (n->used >> i & 1u)
            continue;
        const struct ew_attr_field *f = info->fields;
        while (f->name && (strcmp(f->name, a->name) != 0 || is_private(f->name)))
            f++;
        if (!f->name)
            continue; /* refused by ew_onnx_attrs_all_used */
        n->used |= (uint64_t)1 << i;
        EW_TRY(set_field(n, a, f, attrs));
        if (op == EW_OP_SHAPE && strcmp(a->name, "end") == 0)
            attrs->shape.has_end = 1;
        if (op == EW_OP_ATTENTION && strcmp(a->name, "scale") == 0)
            attrs->attention.has_scale = 1;
    }
    return ew_onnx_attrs_all_used(n);
}

ew_status ew_onnx_attrs_all_used(struct ew_onnx_node *n)
{
    for (size_t i = 0; i < n->p->n_attribute; i++)
        if (!(n->used >> i & 1u))
            return ew_onnx_refuse(n, "attribute %s is not supported", n->p->attribute[i]->name);
    return EW_STATUS_OK;
}
