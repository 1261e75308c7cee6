/* checkpoint/safetensors.h - named tensors in the files of a checkpoint: safetensors, one file or a
 * sharded set with its index, and a writer; and the same of files that torch.save wrote.
 *
 *   <dir>/model.safetensors             one file
 *   <dir>/model.safetensors.index.json  "weight_map": tensor name -> shard, a plain file name in
 * <dir>
 *   <dir>/pytorch_model.bin, <dir>/pytorch_model.bin.index.json  the same, without safetensors
 *
 * Reading maps the files and copies no data (torch_tensors.h says which tensors of the other format
 * are an exception). The header is untrusted: every range is checked before it is believed, and the
 * tensors of a safetensors file must tile the data exactly. A name that comes twice is refused.
 * Does not know what the tensors mean.
 *
 * An open set is immutable and may be shared by threads. */
#ifndef EW_CHECKPOINT_SAFETENSORS_H
#define EW_CHECKPOINT_SAFETENSORS_H

#include "base/error.h"
#include "tensor/tensor.h"

struct ew_st_tensor {
    const char *name;
    struct ew_type type;
    const void *data; /* any alignment; NULL when the tensor has no elements */
    size_t bytes;
    uint32_t i_file;
};

struct ew_safetensors;

/* One safetensors file. */
ew_status ew_safetensors_open(const char *path, struct ew_safetensors **out, ew_error *err);
/* A checkpoint directory: the index if there is one, else model.safetensors; else the index of
 * pytorch_model.bin or that file. NOT_FOUND if there is none of the four. */
ew_status ew_safetensors_open_dir(const char *dir, struct ew_safetensors **out, ew_error *err);
/* A file's bytes, borrowed for the life of *out. `what` names them in errors. */
ew_status ew_safetensors_parse(const void *bytes, size_t len, const char *what,
                               struct ew_safetensors **out, ew_error *err);
/* The same of a file that torch.save wrote. */
ew_status ew_safetensors_parse_torch(const void *bytes, size_t len, const char *what,
                                     struct ew_safetensors **out, ew_error *err);
/* NULL is fine. */
void ew_safetensors_close(struct ew_safetensors *st);

/* In file order, then in data order (of torch's files: in the order of the dict). */
size_t ew_safetensors_count(const struct ew_safetensors *st);
const struct ew_st_tensor *ew_safetensors_at(const struct ew_safetensors *st, size_t i);
/* NULL if there is none. */
const struct ew_st_tensor *ew_safetensors_find(const struct ew_safetensors *st, const char *name);
/* The file a tensor lies in, for messages. */
const char *ew_safetensors_file(const struct ew_safetensors *st, uint32_t i_file);

/* The format's name of a dtype ("BF16"); NULL if it has none. */
const char *ew_st_dtype_text(ew_dtype dtype);

/* Writer: declare every tensor, begin, write the data in the order of declaration (in any pieces),
 * commit. Nothing appears under `path` before the commit. */
struct ew_st_writer;
ew_status ew_st_writer_create(const char *path, struct ew_st_writer **out, ew_error *err);
ew_status ew_st_writer_declare(struct ew_st_writer *w, const char *name, const struct ew_type *type,
                               ew_error *err);
ew_status ew_st_writer_begin(struct ew_st_writer *w, ew_error *err);
ew_status ew_st_writer_write(struct ew_st_writer *w, const void *bytes, size_t len, ew_error *err);
/* MISMATCH when fewer or more bytes were written than declared. Frees w in every case. */
ew_status ew_st_writer_commit(struct ew_st_writer *w, ew_error *err);
/* NULL is fine. */
void ew_st_writer_abort(struct ew_st_writer *w);

#endif
