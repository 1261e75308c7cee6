/* os/os.h - the whole operating-system surface. No other folder names a system call.
 *
 * Errors name the path and the system's reason. Thread safety: any thread unless said. */
#ifndef EW_OS_H
#define EW_OS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "edgewise/base.h"

/* ---- files ---- */
struct ew_file_map { /* read-only mapping; bytes NULL when the file is empty */
    const uint8_t *bytes;
    size_t len;
};
ew_status ew_file_map_open(struct ew_file_map *map, const char *path, ew_error *err);
void ew_file_map_close(struct ew_file_map *map);
/* Hints: the whole mapping (or [off, off+len)) will be read soon / is not needed any more. */
void ew_file_map_will_need(const struct ew_file_map *map, size_t off, size_t len);
void ew_file_map_drop(const struct ew_file_map *map, size_t off, size_t len);

/* Opens `name`, a relative path from an untrusted file, strictly beneath directory `dir`: no
 * absolute path, no "..", no symlink, regular file only (openat2 RESOLVE_BENEATH|NO_SYMLINKS,
 * or a component walk where the kernel lacks it). */
ew_status ew_file_map_open_beneath(struct ew_file_map *map, const char *dir, const char *name,
                                   ew_error *err);

/* Whole file into fresh memory (ew_mem_free), NUL-terminated; refuses more than max_bytes. */
ew_status ew_file_read(const char *path, size_t max_bytes, char **out, size_t *len, ew_error *err);

/* Writes to `<path>.tmp.<pid>.<n>`, then commit = fsync + rename; abort (or a killed process) never
 * leaves a file under the final name. */
struct ew_file_writer;
ew_status ew_file_writer_open(struct ew_file_writer **out, const char *path, ew_error *err);
ew_status ew_file_writer_write(struct ew_file_writer *w, const void *bytes, size_t len,
                               ew_error *err);
ew_status ew_file_writer_pwrite(struct ew_file_writer *w, const void *bytes, size_t len,
                                uint64_t off, ew_error *err);
uint64_t ew_file_writer_pos(const struct ew_file_writer *w);
/* Frees w in every case. */
ew_status ew_file_writer_commit(struct ew_file_writer *w, ew_error *err);
void ew_file_writer_abort(struct ew_file_writer *w);
/* The three in one. */
ew_status ew_file_write(const char *path, const void *bytes, size_t len, ew_error *err);
/* Cuts the file (made when missing) to `at` bytes and writes behind them, in place: for logs whose
 * reader can tell a half-written end. */
ew_status ew_file_append(const char *path, uint64_t at, const void *bytes, size_t len,
                         ew_error *err);

bool ew_path_is_file(const char *path);
bool ew_path_is_dir(const char *path);
/* mkdir -p. */
ew_status ew_dir_make(const char *path, ew_error *err);
/* Moves a file or folder; an empty folder at `to` is replaced. */
ew_status ew_path_rename(const char *from, const char *to, ew_error *err);
/* Removes a folder and the plain files in it; silent about what is not there. */
void ew_dir_remove(const char *path);
/* Sorted names of a directory without "." and ".."; free each and the array with ew_mem_free. */
ew_status ew_dir_list(const char *path, char ***names, size_t *n_names, ew_error *err);
/* `dir`/`name` into out; false when it does not fit. */
bool ew_path_join(char *out, size_t cap, const char *dir, const char *name);
/* Seconds since the epoch of the last change, bytes; false when there is no such file. */
bool ew_path_stat(const char *path, uint64_t *bytes, int64_t *mtime_ns);

/* ---- time ---- */
uint64_t ew_clock_ns(void); /* monotonic */
int64_t ew_wall_clock_s(void);

/* ---- memory ---- */
uint64_t ew_os_rss_bytes(void);      /* resident now */
uint64_t ew_os_peak_rss_bytes(void); /* high-water mark */
/* Zeroed pages, page-aligned (2 MiB-aligned and advised huge when bytes >= 4 MiB and huge). NULL on
 * failure. */
void *ew_os_pages_alloc(size_t bytes, bool huge);
void ew_os_pages_free(void *p, size_t bytes);
uint64_t ew_os_physical_bytes(void);

/* ---- threads ---- */
struct ew_thread;
ew_status ew_thread_create(struct ew_thread **out, void (*fn)(void *), void *arg, ew_error *err);
void ew_thread_join(struct ew_thread *t);
struct ew_mutex;
struct ew_mutex *ew_mutex_create(void);
void ew_mutex_destroy(struct ew_mutex *m);
void ew_mutex_lock(struct ew_mutex *m);
void ew_mutex_unlock(struct ew_mutex *m);
/* Sleeps while *word == expect (may wake spuriously); wakes all sleepers. Futex or a fallback. */
void ew_wait_word(const uint32_t *word, uint32_t expect);
void ew_wake_word(const uint32_t *word);
void ew_thread_yield(void);
unsigned ew_os_cores(void);        /* cores this process may use, >= 1 */
bool ew_thread_pin(unsigned core); /* current thread; false when refused */
uint32_t ew_os_pid(void);

/* ---- dynamic loading ---- */
void *ew_lib_open(const char *path, ew_error *err);
void *ew_lib_symbol(void *lib, const char *name);
void ew_lib_close(void *lib);

#endif
