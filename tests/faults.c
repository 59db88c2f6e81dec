/* A layer under SQLite's files that fails as disks do. Loaded with LD_PRELOAD; concerns files whose name holds "polder.db" or
 * ends in "/db" or "/db-wal". What fails is in the first byte of the file that the environment's FAULTS names:
 *   '0' nothing   'f' the disk is full (ENOSPC)   's' short writes, then ENOSPC   'y' fsync fails (EIO)
 *   'e' writes fail (EIO)   'k' a write stops half way and the process dies (a torn write)   'h' each write is done in halves
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static volatile char *mode_byte;

static char mode(void)
{
    if (!mode_byte) {
        static char none = '0';
        const char *path = getenv("FAULTS");
        int fd = path ? open(path, O_RDONLY) : -1;
        void *seen = fd < 0 ? MAP_FAILED : mmap(0, 1, PROT_READ, MAP_SHARED, fd, 0);
        if (fd >= 0)
            close(fd);
        mode_byte = seen == MAP_FAILED ? &none : seen;
    }
    return *mode_byte;
}

static int ends(const char *name, size_t length, const char *end)
{
    size_t wanted = strlen(end);
    return length >= wanted && !memcmp(name + length - wanted, end, wanted);
}

static int is_ours(int fd)
{
    char link[64], name[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, name, sizeof name - 1);
    if (length < 0)
        return 0;
    name[length] = 0;
    return ends(name, length, "/polder.db") || ends(name, length, "/polder.db-wal") || ends(name, length, "/db") ||
           ends(name, length, "/db-wal");
}

typedef ssize_t (*pwrite_t)(int, const void *, size_t, off64_t);
typedef ssize_t (*write_t)(int, const void *, size_t);
typedef int (*sync_t)(int);

/* What a write of this size may do: its length, or -1 with errno. */
static ssize_t allowed(int fd, size_t size)
{
    static __thread int turn;
    char now = mode();
    if (now == '0' || now == 'y' || !is_ours(fd))
        return size;
    switch (now) {
    case 'f':
        errno = ENOSPC;
        return -1;
    case 'e':
        errno = EIO;
        return -1;
    case 's':
        if (turn++ % 2 == 0 && size > 1)
            return size / 2;
        errno = ENOSPC;
        return -1;
    case 'h':
        return size > 1 ? (size + 1) / 2 : size;
    }
    return -2; /* 'k' */
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at)
{
    static pwrite_t real;
    if (!real)
        real = (pwrite_t)dlsym(RTLD_NEXT, "pwrite64");
    ssize_t may = allowed(fd, size);
    if (may == -2) {
        real(fd, data, size / 2, at);
        _exit(9);
    }
    return may < 0 ? may : real(fd, data, may, at);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at)
{
    return pwrite64(fd, data, size, at);
}

ssize_t write(int fd, const void *data, size_t size)
{
    static write_t real;
    if (!real)
        real = (write_t)dlsym(RTLD_NEXT, "write");
    ssize_t may = allowed(fd, size);
    if (may == -2) {
        real(fd, data, size / 2);
        _exit(9);
    }
    return may < 0 ? may : real(fd, data, may);
}

static int synced(int fd, const char *name)
{
    sync_t real = (sync_t)dlsym(RTLD_NEXT, name);
    if (mode() == 'y' && is_ours(fd)) {
        real(fd);
        errno = EIO;
        return -1;
    }
    return real(fd);
}

int fsync(int fd)
{
    return synced(fd, "fsync");
}

int fdatasync(int fd)
{
    return synced(fd, "fdatasync");
}

int ftruncate64(int fd, off64_t length)
{
    int (*real)(int, off64_t) = (int (*)(int, off64_t))dlsym(RTLD_NEXT, "ftruncate64");
    if ((mode() == 'f' || mode() == 'e') && is_ours(fd)) {
        errno = mode() == 'f' ? ENOSPC : EIO;
        return -1;
    }
    return real(fd, length);
}
