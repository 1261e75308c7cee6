/* plan/sections.c - bodies of GRAPH, MEMORY, TACTICS and KERNELS as bytes; the reading side is
 * reader.c. */
#include "plan/codec.h"

static void write_format(const struct ew_quant_format *f, struct ew_buf *b)
{
    ew_wr_u8(b, (uint8_t)f->code);
    if (f->code == EW_DTYPE_NONE)
        return;
    ew_wr_u8(b, (uint8_t)f->scale);
    ew_wr_u32(b, f->group);
    ew_wr_u8(b, (uint8_t)f->zero);
}

static void write_tensor(const struct ew_plan_tensor *t, struct ew_buf *b)
{
    ew_wr_str(b, t->name);
    ew_wr_u8(b, (uint8_t)t->kind);
    ew_wr_u8(b, (uint8_t)t->dtype);
    ew_wr_u8(b, (uint8_t)t->n_dims);
    for (int d = 0; d < t->n_dims; d++)
        ew_wr_u64(b, (uint64_t)t->dim[d]);
    if (t->kind != EW_PLAN_CONST)
        return;
    ew_wr_u64(b, t->off);
    ew_wr_u64(b, t->bytes);
    ew_wr_u8(b, t->packed.kernel != NULL);
    if (!t->packed.kernel)
        return;
    ew_wr_str(b, t->packed.kernel->name);
    ew_wr_u64(b, t->packed.n);
    ew_wr_u64(b, t->packed.k);
    ew_wr_u64(b, t->packed.n_experts);
    ew_wr_u64(b, t->packed.expert_bytes);
    ew_wr_u8(b, t->packed.glu);
    write_format(&t->packed.format, b);
    ew_wr_u8(b, (uint8_t)t->packed.x_quant);
}

void ew_plan_write_graph(const struct ew_plan *p, struct ew_buf *b)
{
    ew_wr_str(b, p->name);
    ew_wr_u8(b, p->llm_config != NULL);
    if (p->llm_config)
        ew_wr_str(b, p->llm_config);
    ew_wr_u32(b, p->n_tensors);
    for (uint32_t t = 0; t < p->n_tensors; t++)
        write_tensor(&p->tensors[t], b);
    ew_wr_u32(b, p->n_nodes);
    for (uint32_t i = 0; i < p->n_nodes; i++) {
        const struct ew_plan_node *n = &p->nodes[i];

        ew_wr_str(b, ew_op_get(n->op)->name);
        ew_wr_str(b, n->name);
        ew_wr_u32(b, n->n_in);
        for (uint32_t k = 0; k < n->n_in; k++)
            ew_wr_u32(b, n->in[k]);
        ew_wr_u32(b, n->n_out);
        for (uint32_t k = 0; k < n->n_out; k++)
            ew_wr_u32(b, n->out[k]);
        ew_wr_attrs(b, n->op, &n->attrs);
    }
    ew_wr_u32(b, p->n_inputs);
    for (uint32_t i = 0; i < p->n_inputs; i++)
        ew_wr_u32(b, p->inputs[i]);
    ew_wr_u32(b, p->n_outputs);
    for (uint32_t o = 0; o < p->n_outputs; o++) {
        ew_wr_str(b, p->outputs[o].name);
        ew_wr_u32(b, p->outputs[o].tensor);
        ew_wr_u32(b, p->outputs[o].alias);
    }
    ew_wr_u32(b, p->embedding);
    ew_wr_str(b, p->attention->name);
    ew_wr_str(b, p->rowops->name);
}

void ew_plan_write_memory(const struct ew_plan *p, struct ew_buf *b)
{
    ew_wr_u32(b, p->n_profiles);
    for (uint32_t i = 0; i < p->n_profiles; i++) {
        const struct ew_plan_profile *pr = &p->profiles[i];
        uint32_t n = 0;

        ew_wr_str(b, pr->name);
        for (uint32_t k = 0; k < p->n_inputs; k++)
            for (int d = 0; d < p->tensors[p->inputs[k]].n_dims; d++) {
                ew_wr_u64(b, (uint64_t)pr->inputs[k].min[d]);
                ew_wr_u64(b, (uint64_t)pr->inputs[k].opt[d]);
                ew_wr_u64(b, (uint64_t)pr->inputs[k].max[d]);
            }
        ew_wr_u64(b, pr->block_bytes);
        for (uint32_t t = 0; t < p->n_tensors; t++)
            n += pr->bytes[t] != 0;
        ew_wr_u32(b, n);
        for (uint32_t t = 0; t < p->n_tensors; t++)
            if (pr->bytes[t]) {
                ew_wr_u32(b, t);
                ew_wr_u64(b, pr->off[t]);
                ew_wr_u64(b, pr->bytes[t]);
            }
    }
}

void ew_plan_write_tactics(const struct ew_plan *p, struct ew_buf *b)
{
    ew_wr_u32(b, p->n_tactics);
    for (uint32_t i = 0; i < p->n_tactics; i++) {
        const struct ew_plan_tactic *t = &p->tactics[i];

        ew_wr_u8(b, (uint8_t)t->dtype);
        write_format(&t->format, b);
        ew_wr_u8(b, (uint8_t)t->x_quant);
        ew_wr_u64(b, t->n);
        ew_wr_u64(b, t->k);
        ew_wr_u8(b, t->glu);
        ew_wr_u32(b, t->n_uses);
        for (uint32_t k = 0; k < p->n_profiles; k++)
            ew_wr_u64(b, t->m[k]);
        ew_wr_u32(b, t->chosen);
        ew_wr_u32(b, t->n_candidates);
        for (uint32_t c = 0; c < t->n_candidates; c++) {
            ew_wr_str(b, t->candidates[c].kernel);
            for (uint32_t k = 0; k < p->n_profiles; k++)
                ew_wr_u64(b, t->candidates[c].ns[k]);
        }
        ew_wr_u32(b, t->n_switches);
        for (uint32_t k = 0; k < t->n_switches; k++) {
            ew_wr_str(b, t->switches[k].kernel);
            ew_wr_u64(b, t->switches[k].max_m);
            ew_wr_u64(b, t->switches[k].ns);
        }
    }
}

/* Compiled code follows the table, each piece at a multiple of 64 bytes. */
void ew_plan_write_kernels(const struct ew_plan *p, struct ew_buf *b)
{
    static const char zero[EW_PLAN_ALIGN];

    ew_wr_u8(b, p->device.name != NULL);
    if (!p->device.name)
        return;
    ew_wr_str(b, p->device.name);
    ew_wr_u32(b, p->device.sm);
    ew_wr_u32(b, p->device.n_sm);
    ew_wr_u32(b, p->device.shared_per_block);
    ew_wr_u64(b, p->device.l2_bytes);
    ew_wr_u64(b, p->device.scratch_bytes);
    ew_wr_u64(b, p->device.counter_bytes);
    ew_wr_u32(b, p->device.cublaslt);
    ew_wr_u8(b, p->device.split_norms);
    for (int i = 0; i < EW_PLAN_STEP_ROWS; i++) {
        ew_wr_u8(b, p->device.step[i].one_kernel);
        ew_wr_u64(b, p->device.step[i].graph_ns);
        ew_wr_u64(b, p->device.step[i].one_kernel_ns);
    }
    ew_wr_u32(b, p->n_images);
    for (uint32_t i = 0; i < p->n_images; i++) {
        ew_wr_str(b, p->images[i].source);
        ew_wr_str(b, p->images[i].defines);
        ew_wr_u64(b, p->images[i].bytes);
    }
    for (uint32_t i = 0; i < p->n_images; i++) {
        ew_buf_append(b, zero, -b->len & (EW_PLAN_ALIGN - 1));
        ew_buf_append(b, p->images[i].code, (size_t)p->images[i].bytes);
    }
}
