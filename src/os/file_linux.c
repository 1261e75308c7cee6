/* os/file_linux.c - mappings, whole-file reads and atomic writes. */
#include "os/os.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/error.h"
#include "base/mem.h"
#include "base/size.h"

static ew_status io_error(const char *path, const char *doing, ew_error *err)
{
    const ew_status s = errno == ENOENT || errno == ENOTDIR ? EW_STATUS_NOT_FOUND : EW_STATUS_IO;

    return ew_fail(err, s, "%s: cannot %s: %s", path, doing, strerror(errno));
}

static ew_status map_fd(struct ew_file_map *map, int fd, const char *path, ew_error *err)
{
    struct stat st;
    void *p;

    *map = (struct ew_file_map){ 0 };
    if (fstat(fd, &st) != 0)
        return io_error(path, "examine", err);
    if (!S_ISREG(st.st_mode))
        return ew_fail(err, EW_STATUS_IO, "%s: not a regular file", path);
    if (st.st_size == 0)
        return EW_STATUS_OK;
    p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED)
        return io_error(path, "map", err);
    map->bytes = p;
    map->len = (size_t)st.st_size;
    return EW_STATUS_OK;
}

ew_status ew_file_map_open(struct ew_file_map *map, const char *path, ew_error *err)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);

    *map = (struct ew_file_map){ 0 };
    if (fd < 0)
        return io_error(path, "open", err);
    const ew_status st = map_fd(map, fd, path, err);
    close(fd);
    return st;
}

void ew_file_map_close(struct ew_file_map *map)
{
    if (map->bytes)
        munmap((void *)(uintptr_t)map->bytes, map->len);
    *map = (struct ew_file_map){ 0 };
}

static void advise(const struct ew_file_map *map, size_t off, size_t len, int advice)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t begin = off / page * page;
    size_t end;

    if (!map->bytes || off >= map->len)
        return;
    end = len > map->len - off ? map->len : off + len;
    madvise((void *)(uintptr_t)(map->bytes + begin), end - begin, advice);
}

void ew_file_map_will_need(const struct ew_file_map *map, size_t off, size_t len)
{
    advise(map, off, len, MADV_WILLNEED);
}

void ew_file_map_drop(const struct ew_file_map *map, size_t off, size_t len)
{
    advise(map, off, len, MADV_DONTNEED);
}

/* Without openat2: no "..", no absolute path, every component opened without following links. */
static int open_by_components(int dir_fd, const char *name)
{
    char part[NAME_MAX + 1];
    int at = dup(dir_fd);

    while (at >= 0) {
        const size_t len = strcspn(name, "/");
        const int last = name[len] == '\0';
        int next;

        if (len == 0 || len > NAME_MAX || (len == 1 && name[0] == '.') ||
            (len == 2 && name[0] == '.' && name[1] == '.')) {
            close(at);
            errno = EXDEV;
            return -1;
        }
        memcpy(part, name, len);
        part[len] = '\0';
        next = openat(at, part, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | (last ? 0 : O_DIRECTORY));
        close(at);
        if (last || next < 0)
            return next;
        at = next;
        name += len + 1;
    }
    return -1;
}

ew_status ew_file_map_open_beneath(struct ew_file_map *map, const char *dir, const char *name,
                                   ew_error *err)
{
    struct open_how how = { .flags = O_RDONLY | O_CLOEXEC,
                            .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS };
    int dir_fd;
    int fd;

    *map = (struct ew_file_map){ 0 };
    if (name[0] == '\0' || name[0] == '/' || strstr(name, "..") == name || strstr(name, "/.."))
        return ew_fail(err, EW_STATUS_MALFORMED, "%s: file name '%s' leads outside the folder", dir,
                       name);
    dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd < 0)
        return io_error(dir, "open", err);
    fd = (int)syscall(SYS_openat2, dir_fd, name, &how, sizeof(how));
    if (fd < 0 && (errno == ENOSYS || errno == EPERM))
        fd = open_by_components(dir_fd, name);
    if (fd < 0 && (errno == ELOOP || errno == EXDEV)) {
        close(dir_fd);
        return ew_fail(err, EW_STATUS_MALFORMED,
                       "%s: file name '%s' is a link or leads outside the folder", dir, name);
    }
    close(dir_fd);
    if (fd < 0)
        return io_error(name, "open", err);
    const ew_status st = map_fd(map, fd, name, err);
    close(fd);
    return st;
}

ew_status ew_file_read(const char *path, size_t max_bytes, char **out, size_t *len, ew_error *err)
{
    struct ew_file_map map;

    *out = NULL;
    *len = 0;
    EW_TRY(ew_file_map_open(&map, path, err));
    if (map.len > max_bytes) {
        ew_file_map_close(&map);
        return ew_fail(err, EW_STATUS_LIMIT, "%s: %zu bytes, at most %zu are read", path, map.len,
                       max_bytes);
    }
    *out = ew_mem_strndup(EW_MEM_MISC, map.bytes ? (const char *)map.bytes : "", map.len);
    *len = map.len;
    ew_file_map_close(&map);
    return *out ? EW_STATUS_OK : ew_fail(err, EW_STATUS_NO_MEMORY, "%s: %zu bytes", path, *len);
}

/* The file has no name while it is written where the file system can do that (O_TMPFILE): a killed
 * process leaves nothing behind. Elsewhere it has a temporary name from the start. */
struct ew_file_writer {
    int fd;
    bool nameless;
    uint64_t pos;
    char *final_path;
    char *temp_path;
};

static _Atomic uint32_t writer_serial; /* makes temporary names unique in this process */

static int open_nameless(const char *path)
{
    char dir[PATH_MAX];
    const char *const slash = strrchr(path, '/');
    const size_t len = slash ? (size_t)(slash - path) + 1 : 0;

    if (len >= sizeof(dir))
        return -1;
    memcpy(dir, path, len);
    dir[len] = '\0';
    return open(len ? dir : ".", O_WRONLY | O_TMPFILE | O_CLOEXEC, 0644);
}

/* The final name at once where nothing has it; else a temporary one and a rename, which replaces
 * what is there as a link cannot. */
static bool give_final_name(struct ew_file_writer *w)
{
    char proc[64];

    if (w->nameless) {
        snprintf(proc, sizeof(proc), "/proc/self/fd/%d", w->fd);
        if (linkat(AT_FDCWD, proc, AT_FDCWD, w->final_path, AT_SYMLINK_FOLLOW) == 0)
            return true;
        if (errno != EEXIST ||
            linkat(AT_FDCWD, proc, AT_FDCWD, w->temp_path, AT_SYMLINK_FOLLOW) != 0)
            return false;
        w->nameless = false;
    }
    return rename(w->temp_path, w->final_path) == 0;
}

ew_status ew_file_writer_open(struct ew_file_writer **out, const char *path, ew_error *err)
{
    struct ew_file_writer *w = ew_mem_calloc(EW_MEM_MISC, 1, sizeof(*w));
    char temp[PATH_MAX];

    *out = NULL;
    if (!w)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "%s: file writer", path);
    const int n = snprintf(temp, sizeof(temp), "%s.tmp.%u.%u", path, ew_os_pid(),
                           atomic_fetch_add(&writer_serial, 1));
    w->fd = -1;
    w->final_path = ew_mem_strdup(EW_MEM_MISC, path);
    w->temp_path = ew_mem_strdup(EW_MEM_MISC, temp);
    if (n < 0 || (size_t)n >= sizeof(temp) || !w->final_path || !w->temp_path) {
        ew_file_writer_abort(w);
        if (n >= 0 && (size_t)n < sizeof(temp))
            return ew_fail(err, EW_STATUS_NO_MEMORY, "%s: file writer", path);
        return ew_fail(err, EW_STATUS_INVALID_ARG, "%.200s: path too long", path);
    }
    w->fd = open_nameless(path);
    w->nameless = w->fd >= 0;
    if (w->fd < 0)
        w->fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (w->fd < 0) {
        const ew_status st = io_error(path, "create", err);
        ew_file_writer_abort(w);
        return st;
    }
    *out = w;
    return EW_STATUS_OK;
}

ew_status ew_file_writer_pwrite(struct ew_file_writer *w, const void *bytes, size_t len,
                                uint64_t off, ew_error *err)
{
    const char *p = bytes;

    while (len) {
        const ssize_t n = pwrite(w->fd, p, len, (off_t)off);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return io_error(w->final_path, "write", err);
        p += n;
        off += (uint64_t)n;
        len -= (size_t)n;
    }
    return EW_STATUS_OK;
}

ew_status ew_file_writer_write(struct ew_file_writer *w, const void *bytes, size_t len,
                               ew_error *err)
{
    EW_TRY(ew_file_writer_pwrite(w, bytes, len, w->pos, err));
    w->pos += len;
    return EW_STATUS_OK;
}

uint64_t ew_file_writer_pos(const struct ew_file_writer *w)
{
    return w->pos;
}

void ew_file_writer_abort(struct ew_file_writer *w)
{
    if (!w)
        return;
    if (w->fd >= 0) {
        close(w->fd);
        if (!w->nameless)
            unlink(w->temp_path);
    }
    ew_mem_free(w->final_path);
    ew_mem_free(w->temp_path);
    ew_mem_free(w);
}

ew_status ew_file_writer_commit(struct ew_file_writer *w, ew_error *err)
{
    ew_status st = EW_STATUS_OK;

    if (fsync(w->fd) != 0)
        st = io_error(w->final_path, "flush", err);
    else if (!give_final_name(w))
        st = io_error(w->final_path, "rename into place", err);
    if (st) {
        ew_file_writer_abort(w);
        return st;
    }
    close(w->fd);
    w->fd = -1;
    ew_file_writer_abort(w);
    return EW_STATUS_OK;
}

ew_status ew_file_write(const char *path, const void *bytes, size_t len, ew_error *err)
{
    struct ew_file_writer *w;

    EW_TRY(ew_file_writer_open(&w, path, err));
    const ew_status st = ew_file_writer_write(w, bytes, len, err);
    if (st) {
        ew_file_writer_abort(w);
        return st;
    }
    return ew_file_writer_commit(w, err);
}

ew_status ew_file_append(const char *path, uint64_t at, const void *bytes, size_t len,
                         ew_error *err)
{
    const int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    const char *p = bytes;
    ew_status st = EW_STATUS_OK;

    if (fd < 0)
        return io_error(path, "create", err);
    if (ftruncate(fd, (off_t)at) != 0)
        st = io_error(path, "cut", err);
    while (len && !st) {
        const ssize_t n = pwrite(fd, p, len, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            st = io_error(path, "write", err);
            break;
        }
        p += n;
        at += (uint64_t)n;
        len -= (size_t)n;
    }
    close(fd);
    return st;
}

bool ew_path_is_file(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

bool ew_path_is_dir(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool ew_path_stat(const char *path, uint64_t *bytes, int64_t *mtime_ns)
{
    struct stat st;

    if (stat(path, &st) != 0)
        return false;
    *bytes = (uint64_t)st.st_size;
    *mtime_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
    return true;
}

ew_status ew_dir_make(const char *path, ew_error *err)
{
    char part[PATH_MAX];
    const size_t len = strlen(path);

    if (len == 0 || len >= sizeof(part))
        return ew_fail(err, EW_STATUS_INVALID_ARG, "'%.200s': not a usable folder name", path);
    memcpy(part, path, len + 1);
    for (size_t i = 1; i <= len; i++) {
        if (part[i] != '/' && part[i] != '\0')
            continue;
        part[i] = '\0';
        if (mkdir(part, 0755) != 0 && errno != EEXIST)
            return io_error(part, "create folder", err);
        part[i] = i < len ? '/' : '\0';
    }
    if (!ew_path_is_dir(path))
        return ew_fail(err, EW_STATUS_IO, "%s: exists and is not a folder", path);
    return EW_STATUS_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

ew_status ew_dir_list(const char *path, char ***names, size_t *n_names, ew_error *err)
{
    DIR *dir = opendir(path);
    char **list = NULL;
    size_t n = 0;
    size_t cap = 0;

    *names = NULL;
    *n_names = 0;
    if (!dir)
        return io_error(path, "list", err);
    for (const struct dirent *e = readdir(dir); e; e = readdir(dir)) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        if (n == cap) {
            char **const more = ew_mem_resize(EW_MEM_MISC, list, cap ? cap * 2 : 32, sizeof(*list));
            if (!more)
                goto no_memory;
            list = more;
            cap = cap ? cap * 2 : 32;
        }
        list[n] = ew_mem_strdup(EW_MEM_MISC, e->d_name);
        if (!list[n])
            goto no_memory;
        n++;
    }
    closedir(dir);
    if (n)
        qsort(list, n, sizeof(*list), by_name);
    *names = list;
    *n_names = n;
    return EW_STATUS_OK;
no_memory:
    closedir(dir);
    for (size_t i = 0; i < n; i++)
        ew_mem_free(list[i]);
    ew_mem_free(list);
    return ew_fail(err, EW_STATUS_NO_MEMORY, "%s: folder listing", path);
}

ew_status ew_path_rename(const char *from, const char *to, ew_error *err)
{
    return rename(from, to) == 0 ? EW_STATUS_OK : io_error(to, "rename into place", err);
}

void ew_dir_remove(const char *path)
{
    char **names;
    size_t n;

    if (ew_dir_list(path, &names, &n, NULL))
        return;
    for (size_t i = 0; i < n; i++) {
        char file[PATH_MAX];

        if (ew_path_join(file, sizeof(file), path, names[i]))
            unlink(file);
        ew_mem_free(names[i]);
    }
    ew_mem_free(names);
    rmdir(path);
}

bool ew_path_join(char *out, size_t cap, const char *dir, const char *name)
{
    const size_t len = strlen(dir);
    const char *const slash = len && dir[len - 1] == '/' ? "" : "/";
    const int n = snprintf(out, cap, "%s%s%s", dir, slash, name);

    return n >= 0 && (size_t)n < cap;
}
