/* checkpoint/torch_tensors.h - the tensors of one file that torch.save wrote of a dict of tensors
 * (pytorch_model.bin): a zip archive with
 *
 *   <folder>/data.pkl   the dict: names, types, and which part of which storage a tensor is
 *   <folder>/data/<key> the bytes of one storage
 *   <folder>/byteorder  "little"; older files have none
 *
 * and things that say nothing about tensors. Private to checkpoint/: callers open a set of tensors
 * with safetensors.h.
 *
 * Tensors are views into the file's bytes; a storage may have several of them (tied weights). One
 * whose strides are not those of a dense row-major tensor is copied; all copies of a file together
 * take no more bytes than the file. */
#ifndef EW_CHECKPOINT_TORCH_TENSORS_H
#define EW_CHECKPOINT_TORCH_TENSORS_H

#include "base/arena.h"
#include "checkpoint/safetensors.h"

/* Takes one tensor (i_file is 0); its name and its copied data live in the arena. */
typedef ew_status (*ew_torch_add)(void *user, const struct ew_st_tensor *t, ew_error *err);

/* Calls `add` for every tensor, in the order of the dict. A name may come twice: pickles can say
 * so, torch never does. UNSUPPORTED names what is in the file beside tensors, or what is not read
 * of it: files from before torch 1.6, big-endian ones, compressed entries, other dtypes. */
ew_status ew_torch_read(const void *bytes, size_t len, const char *what, struct ew_arena *arena,
                        ew_torch_add add, void *user, ew_error *err);

#endif
