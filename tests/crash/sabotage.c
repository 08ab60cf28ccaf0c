/* Breaks the promises of the server under test, to show that the crash test notices. Loaded with LD_PRELOAD; the mode is
 * in CRASH_TEST_SABOTAGE. README.md says what each mode does, and which kind of crash has to show it.
 *
 * What is replaced are functions of the C library that Rust's standard library calls. renameat2 is not among them: the
 * server makes that system call itself. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int mode_is(const char *name) {
    const char *mode = getenv("CRASH_TEST_SABOTAGE");
    return mode && strcmp(mode, name) == 0;
}

static int is_in(const char *path, const char *folder) {
    return strstr(path, folder) != NULL;
}

/* Overwrites the file in its place, a piece at a time, as a server does that knows nothing better. */
static int copy_over(const char *from, const char *to) {
    char piece[4096];
    int source = open(from, O_RDONLY | O_CLOEXEC);
    int target = open(to, O_WRONLY | O_TRUNC | O_CLOEXEC);
    ssize_t length = -1;
    if (source >= 0 && target >= 0)
        while ((length = read(source, piece, sizeof piece)) > 0)
            if (write(target, piece, (size_t)length) != length) {
                length = -1;
                break;
            }
    if (length == 0 && fsync(target) != 0)
        length = -1;
    if (source >= 0)
        close(source);
    if (target >= 0)
        close(target);
    return length == 0 ? unlink(from) : -1;
}

int rename(const char *from, const char *to) {
    static atomic_uint renames;
    static int (*real)(const char *, const char *);
    if (!real)
        real = (int (*)(const char *, const char *))dlsym(RTLD_NEXT, "rename");
    if (is_in(to, "/backups/") && access(to, F_OK) == 0) {
        if (mode_is("in-place"))
            return copy_over(from, to);
        if (mode_is("lost-rename") && atomic_fetch_add(&renames, 1) % 20 == 19)
            return unlink(from);
    }
    return real(from, to);
}

int fsync(int descriptor) {
    static int (*real)(int);
    struct stat found;
    if (!real)
        real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    if (fstat(descriptor, &found) == 0) {
        if (S_ISREG(found.st_mode) && mode_is("no-fsync"))
            return 0;
        if (S_ISDIR(found.st_mode) && mode_is("no-directory-fsync"))
            return 0;
    }
    return real(descriptor);
}

int unlink(const char *path) {
    static int (*real)(const char *);
    if (!real)
        real = (int (*)(const char *))dlsym(RTLD_NEXT, "unlink");
    /* Not the file with which a start tries the directory: that would be seen without any crash. */
    if (is_in(path, "/tmp/.") && !is_in(path, "trial") && mode_is("no-sweep"))
        return 0;
    return real(path);
}
