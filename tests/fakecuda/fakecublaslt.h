/* fakecublaslt.h - a cuBLASLt without a GPU, beside fakecuda.h: a product is a launch of the
 * stand-in driver with the entry "cublasLtMatmul", so that graphs capture and replay it.
 *
 * It is there, of version FAKECUBLASLT_VERSION, until a test says otherwise. */
#ifndef FAKECUBLASLT_H
#define FAKECUBLASLT_H

#include <stddef.h>
#include <stdint.h>

#define FAKECUBLASLT_VERSION 130100

/* Another version; 0: it does not start, as without a GPU that it knows. */
void fakecublaslt_set_version(size_t version);
/* The k-th call of a function from now on (1: the next) returns `status`. */
void fakecublaslt_fail(const char *function, uint64_t k, int status);
/* Calls of a function since the last reset. */
uint64_t fakecublaslt_count(const char *function);
/* No failures, no counts, the first version. */
void fakecublaslt_reset(void);
/* Handles and descriptors that were not destroyed. */
uint64_t fakecublaslt_live(void);
/* Computes a product from the arguments of its launch (fakecuda_on_launch), matrices by columns as
 * the descriptors say; f32 and bf16. */
void fakecublaslt_play(const void *args);

#endif
