/* checkpoint/torch_zip.h - the zip archives that torch.save writes: which bytes of a mapped file
 * are which entry. Stored (not compressed), unencrypted, one disk; zip64 where sizes need it. Does
 * not know what the entries mean, and does not check CRCs (torch can be told to leave them out, and
 * they would make opening a file read all of it).
 *
 * Everything is untrusted: entries lie inside the file, before its directory, and do not overlap.
 * Format: PKWARE APPNOTE 6.3.10, sections 4.3.7 to 4.3.16. */
#ifndef EW_CHECKPOINT_TORCH_ZIP_H
#define EW_CHECKPOINT_TORCH_ZIP_H

#include "base/buf.h"
#include "base/error.h"
#include "base/hash.h"

struct ew_zip_entry {
    struct ew_str name; /* in the file; may hold any bytes */
    const uint8_t *data;
    size_t bytes;
    size_t begin; /* of its local header in the file */
};

struct ew_zip {
    const uint8_t *bytes;
    size_t len;
    const char *what; /* names the file in errors; borrowed */
    struct ew_zip_entry *entries;
    size_t n_entries;
    struct ew_map by_name;
};

/* `bytes` stay the caller's and must outlive *zip. Memory is bounded by a small multiple of the
 * size of the directory in the file. MALFORMED, or UNSUPPORTED with the entry's name. */
ew_status ew_zip_open(const void *bytes, size_t len, const char *what, struct ew_zip *zip,
                      ew_error *err);
/* A zeroed *zip is fine. */
void ew_zip_deinit(struct ew_zip *zip);
/* NULL if there is none. */
const struct ew_zip_entry *ew_zip_find(const struct ew_zip *zip, const char *name, size_t len);

#endif
