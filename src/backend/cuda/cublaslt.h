/* backend/cuda/cublaslt.h - cuBLASLt, loaded where a build times its products or an engine uses
 * them: one more tactic of plain Linears. What it offers is declared here in our words; nothing of
 * it is needed to build.
 *
 * Which of its algorithms multiplies is its own first answer for the shape, types, alignment and
 * EW_CUDA_PRODUCT_WORKSPACE: the same in the same version on the same chip. An engine therefore
 * names the version, and another one is not used for it (cuda.c).
 *
 * Thread safety: any thread. */
#ifndef EW_BACKEND_CUDA_CUBLASLT_H
#define EW_BACKEND_CUDA_CUBLASLT_H

#include "backend/cuda/device.h"

struct ew_cublaslt;
struct ew_cublaslt_plan; /* a product without its addresses; lives as long as the library */

/* path: the library or a folder that has it; NULL: libcublasLt.so.13, .12, .11 as the system finds
 * them, then under /usr/local/cuda. UNSUPPORTED: there is none, or none that works. d is borrowed.
 */
ew_status ew_cublaslt_open(const char *path, struct ew_cuda_device *d, struct ew_cublaslt **out,
                           ew_error *err);
void ew_cublaslt_close(struct ew_cublaslt *b); /* NULL is fine */
uint32_t ew_cublaslt_version(const struct ew_cublaslt *b);
/* "13.1.0" of what ew_cublaslt_version gives. */
#define EW_CUBLASLT_TEXT_CAP 24
const char *ew_cublaslt_text(uint32_t version, char out[EW_CUBLASLT_TEXT_CAP]);

/* How it will multiply p, whatever p's addresses: made when it is new, which takes memory of the
 * host. DEVICE: it has no algorithm for that. */
ew_status ew_cublaslt_plan(struct ew_cublaslt *b, const struct ew_cuda_product *p,
                           struct ew_cublaslt_plan **out, ew_error *err);
/* One product on a stream, which may be capturing. Allocates nothing. */
ew_status ew_cublaslt_run(const struct ew_cublaslt_plan *plan, const struct ew_cuda_product *p,
                          ew_cu_stream stream, ew_error *err);

#endif
