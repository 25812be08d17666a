/* Preloaded into a process: counts its calls that write under one folder, and fails or kills at
 * the n-th of them. SQLite and safetensors write from C, so this lies below Python.
 *
 * fault_arm(folder, nth, error, sticky, calls): `calls` points to the count, which may lie in memory
 * shared with another process. Error -1 kills the process before the call. With `sticky` all
 * calls after the n-th fail, too, as on a disk that stays full. nth 0 counts alone.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[4096];
static size_t length;
static long nth;
static int error, sticky;
static volatile long *calls;

void fault_arm(const char *path, long number, int code, int stays, volatile long *count) {
    strncpy(folder, path, sizeof folder - 1);
    length = strlen(folder);
    nth = number, error = code, sticky = stays;
    calls = count;
}

void fault_disarm(void) { calls = NULL; }

static int below(const char *path) {
    return strncmp(path, folder, length) == 0 && (path[length] == '/' || path[length] == 0);
}

static int under(int at, const char *path) {
    char whole[8192], base[64];
    if (!calls || !path) return 0;
    if (path[0] == '/') return below(path);
    if (at == AT_FDCWD) {
        if (!getcwd(whole, 4096)) return 0;
    } else {
        snprintf(base, sizeof base, "/proc/self/fd/%d", at);
        ssize_t size = readlink(base, whole, 4095);
        if (size < 0) return 0;
        whole[size] = 0;
    }
    strcat(whole, "/");
    strncat(whole, path, 4000);
    return below(whole);
}

static int file_under(int file) {
    char link[64], path[4096];
    if (!calls) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0) return 0;
    path[size] = 0;
    return below(path);
}

static int fails(void) {
    long now = __sync_add_and_fetch(calls, 1);
    if (!nth || (sticky ? now < nth : now != nth)) return 0;
    if (error < 0) kill(getpid(), SIGKILL);
    errno = error;
    return 1;
}

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

#define FILE_CALL(type, name, declared, passed) \
    type name declared { \
        REAL(name); \
        if (file_under(file) && fails()) return -1; \
        return real passed; \
    }

/* A full disk takes a part of what is written before it says so. */
#define WRITE_CALL(name, declared, whole, half) \
    ssize_t name declared { \
        REAL(name); \
        if (file_under(file) && fails()) { \
            if (error == ENOSPC && size > 1 && real half < 0) return -1; \
            errno = error; \
            return -1; \
        } \
        return real whole; \
    }

WRITE_CALL(write, (int file, const void *data, size_t size), (file, data, size),
           (file, data, size / 2))
WRITE_CALL(pwrite, (int file, const void *data, size_t size, off_t at), (file, data, size, at),
           (file, data, size / 2, at))
WRITE_CALL(pwrite64, (int file, const void *data, size_t size, off64_t at),
           (file, data, size, at), (file, data, size / 2, at))
FILE_CALL(ssize_t, writev, (int file, const struct iovec *parts, int count), (file, parts, count))
FILE_CALL(ssize_t, pwritev, (int file, const struct iovec *parts, int count, off_t at),
          (file, parts, count, at))
FILE_CALL(int, ftruncate, (int file, off_t size), (file, size))
FILE_CALL(int, ftruncate64, (int file, off64_t size), (file, size))
FILE_CALL(int, posix_fallocate, (int file, off_t at, off_t size), (file, at, size))
FILE_CALL(int, fallocate, (int file, int mode, off_t at, off_t size), (file, mode, at, size))
FILE_CALL(int, fsync, (int file), (file))
FILE_CALL(int, fdatasync, (int file), (file))

#define PATH_CALL(name, declared, at, path, passed) \
    int name declared { \
        REAL(name); \
        if (under(at, path) && fails()) return -1; \
        return real passed; \
    }

PATH_CALL(rename, (const char *from, const char *to), AT_FDCWD, to, (from, to))
PATH_CALL(renameat, (int one, const char *from, int other, const char *to), other, to,
          (one, from, other, to))
PATH_CALL(link, (const char *from, const char *to), AT_FDCWD, to, (from, to))
PATH_CALL(linkat, (int one, const char *from, int other, const char *to, int flags), other, to,
          (one, from, other, to, flags))
PATH_CALL(mkdir, (const char *path, mode_t mode), AT_FDCWD, path, (path, mode))
PATH_CALL(mkdirat, (int at, const char *path, mode_t mode), at, path, (at, path, mode))

#define OPEN_CALL(name, declared, at, passed) \
    int name declared { \
        REAL(name); \
        mode_t mode = 0; \
        if (flags & (O_CREAT | O_TMPFILE)) { \
            va_list rest; \
            va_start(rest, flags); \
            mode = va_arg(rest, mode_t); \
            va_end(rest); \
        } \
        if (flags & (O_CREAT | O_WRONLY | O_RDWR) && under(at, path) && fails()) return -1; \
        return real passed; \
    }

OPEN_CALL(open, (const char *path, int flags, ...), AT_FDCWD, (path, flags, mode))
OPEN_CALL(open64, (const char *path, int flags, ...), AT_FDCWD, (path, flags, mode))
OPEN_CALL(openat, (int at, const char *path, int flags, ...), at, (at, path, flags, mode))
OPEN_CALL(openat64, (int at, const char *path, int flags, ...), at, (at, path, flags, mode))
