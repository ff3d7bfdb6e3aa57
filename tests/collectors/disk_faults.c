/* Faults of a disk, put under a process by LD_PRELOAD.
 *
 * FAIL_FDATASYNC=n, FAIL_FSYNC=n: the n-th call answers EIO, as a kernel does once after a failed
 * write-back. SHORT_WRITES=n: write() takes at most n bytes. FULL_AFTER=n: write() answers ENOSPC
 * once n bytes were written, taking what still fits. FAULT_LOG: each sync and close, by descriptor.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static ssize_t (*real_write)(int, const void *, size_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_close)(int);
static long written;
static int log_fd = -1;

__attribute__((constructor)) static void begin(void) {
    real_write = dlsym(RTLD_NEXT, "write");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_close = dlsym(RTLD_NEXT, "close");
    if (getenv("FAULT_LOG"))
        log_fd = open(getenv("FAULT_LOG"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static long setting(const char *name) {
    const char *value = getenv(name);
    return value ? atol(value) : 0;
}

static int is_segment(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return strstr(path, "/journal/") != NULL;
}

static void note(const char *what, int fd, int result) {
    char line[64];
    int length = snprintf(line, sizeof line, "%s %d %d\n", what, fd, result);
    if (log_fd >= 0) real_write(log_fd, line, length);
}

ssize_t write(int fd, const void *data, size_t size) {
    if (fd < 3 || fd == log_fd || !is_segment(fd)) return real_write(fd, data, size);
    long most = setting("SHORT_WRITES"), room = setting("FULL_AFTER");
    if (most && size > (size_t)most) size = most;
    if (room) {
        if (written >= room) { errno = ENOSPC; return -1; }
        if ((long)size > room - written) size = room - written;
    }
    ssize_t done = real_write(fd, data, size);
    if (done > 0) written += done;
    return done;
}

int fdatasync(int fd) {
    static long calls;
    int fails = is_segment(fd) && ++calls == setting("FAIL_FDATASYNC");
    int result = fails ? -1 : real_fdatasync(fd);
    note("sync", fd, result);
    if (fails) errno = EIO;
    return result;
}

int fsync(int fd) {
    static long calls;
    int fails = ++calls == setting("FAIL_FSYNC");
    int result = fails ? -1 : real_fsync(fd);
    note("sync", fd, result);
    if (fails) errno = EIO;
    return result;
}

int close(int fd) {
    note("close", fd, 0);
    return real_close(fd);
}
