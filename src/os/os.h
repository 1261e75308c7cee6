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
size_t ew_os_page_bytes(void); /* what mappings are made of */

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
uint32_t ew_os_pid(void);

/* ---- cores (cores_linux.c) ---- */
#define EW_MAX_CORES 1024
struct ew_os_core {
    unsigned id;
    unsigned
        capacity; /* relative speed: the kernel's cpu_capacity, else its highest kHz; 0: unknown */
    unsigned sibling; /* 0: the first hardware thread of its core, 1: the second... */
};
struct ew_core_mask { /* which cores a thread may run on */
    uint64_t bits[EW_MAX_CORES / 64];
};
/* Cores that the affinity mask and the cgroup's quota (rounded up) let this process use, >= 1. */
unsigned ew_os_cores(void);
/* Threads to run on by default: as ew_os_cores, without the slowest kind of a mixed processor. */
unsigned ew_os_threads(void);
/* The cores of this thread's mask, best first: first hardware threads before siblings, then faster
 * before slower, then by number. Returns how many were written, at most cap. */
size_t ew_os_core_list(struct ew_os_core *out, size_t cap);
/* The parts of the above that read files, for any root ("/sys/devices/system/cpu",
 * "/proc/self/cgroup", "/sys/fs/cgroup"): capacity and sibling of a core whose id is set; the
 * quota in cores, 0 for none, of cgroup v2 or v1, the tightest on the way to the root. */
void ew_os_core_read(const char *root, struct ew_os_core *core);
double ew_os_cpu_quota(const char *self, const char *root);
/* How many of n cores are not of the slowest kind: a core is of that kind within 10 % of the
 * slowest capacity, where that is under 85 % of the highest. All when a capacity is unknown. */
size_t ew_os_fast_cores(const struct ew_os_core *cores, size_t n);
/* Current thread; false when refused. `old` is the mask it had. */
bool ew_thread_pin(unsigned core, struct ew_core_mask *old);
void ew_thread_unpin(const struct ew_core_mask *old);
/* Whether this process may use AMX tiles; asks the system for them. Any number of times. */
bool ew_os_grant_amx(void);

/* ---- dynamic loading ---- */
void *ew_lib_open(const char *path, ew_error *err);
void *ew_lib_symbol(void *lib, const char *name);
void ew_lib_close(void *lib);

#endif
