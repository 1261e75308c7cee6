/* plan/codec.h - little-endian cursor over untrusted bytes, its writing twin, and the layout
 * numbers of the file. */
#ifndef EW_PLAN_CODEC_H
#define EW_PLAN_CODEC_H

#include "base/buf.h"
#include "base/json.h"
#include "plan/plan.h"

#define EW_PLAN_MAGIC  "EDGEWISE"
#define EW_PLAN_FORMAT 5u
/* Packed layouts may change between any two versions, so the version must be the same. */
#define EW_VERSION_NUMBER      (EW_VERSION_MAJOR * 10000u + EW_VERSION_MINOR * 100u + EW_VERSION_PATCH)
#define EW_PLAN_PAGE           4096u
#define EW_PLAN_CHUNK          (4u << 20)
#define EW_PLAN_HEAD           64u /* fixed part of the header */
#define EW_PLAN_SECTION_RECORD 32u
#define EW_PLAN_HASH_AT        48u

/* Sections, in file order; all are there. */
#define EW_PLAN_SECTION_MAP(X)                                                                     \
    X(META, "META")                                                                                \
    X(GRAPH, "GRAPH")                                                                              \
    X(MEMORY, "MEMORY") X(TACTICS, "TACTICS") X(KERNELS, "KERNELS") X(WEIGHTS, "WEIGHTS")
enum ew_plan_section {
#define EW_PLAN_SECTION_ENUM(id, text) EW_PLAN_##id,
    EW_PLAN_SECTION_MAP(EW_PLAN_SECTION_ENUM)
#undef EW_PLAN_SECTION_ENUM
        EW_PLAN_N_SECTIONS
};
const char *ew_plan_section_text(unsigned section);

struct ew_rd {
    const uint8_t *at, *end;
    bool bad; /* sticky: ran past the end */
};
uint8_t ew_rd_u8(struct ew_rd *r);
uint32_t ew_rd_u32(struct ew_rd *r);
uint64_t ew_rd_u64(struct ew_rd *r);
/* A count of records of at least `min_bytes` each: refused when that many cannot follow. */
uint32_t ew_rd_count(struct ew_rd *r, size_t min_bytes);
/* Copied into the arena. NULL when bad or out of memory. */
const char *ew_rd_str(struct ew_rd *r, struct ew_arena *a);

bool ew_wr_u8(struct ew_buf *b, uint8_t v);
bool ew_wr_u32(struct ew_buf *b, uint32_t v);
bool ew_wr_u64(struct ew_buf *b, uint64_t v);
bool ew_wr_str(struct ew_buf *b, const char *s);
void ew_put_u32(uint8_t *at, uint32_t v);
void ew_put_u64(uint8_t *at, uint64_t v);

/* Attributes, field by field through the op's schema. */
void ew_wr_attrs(struct ew_buf *b, ew_op op, const union ew_attrs *attrs);
/* False: bad bytes (value out of the field's range). */
bool ew_rd_attrs(struct ew_rd *r, ew_op op, union ew_attrs *attrs);

/* JSON text in memory of ours (ew_mem_free); NULL: no memory. */
char *ew_plan_json_text(const json_t *json, size_t flags, enum ew_mem_tag tag);

/* Bodies of the sections. */
void ew_plan_write_graph(const struct ew_plan *p, struct ew_buf *b);
void ew_plan_write_memory(const struct ew_plan *p, struct ew_buf *b);
void ew_plan_write_tactics(const struct ew_plan *p, struct ew_buf *b);
void ew_plan_write_kernels(const struct ew_plan *p, struct ew_buf *b);

#endif
