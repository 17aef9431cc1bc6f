// SPDX-License-Identifier: Apache-2.0
// The calls of libc and libdispatch that the simulated machine replaces.
#define _GNU_SOURCE
#include "Disk.h"
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { MOST_DESCRIPTORS = 4096 };

// By descriptor: the file below the root, or `directory` for the root itself.
static struct sim_file *open_files[MOST_DESCRIPTORS];
static struct sim_file directory;

static struct sim_file *file_at(int descriptor) {
    return sim_is_simulated && descriptor >= 0 && descriptor < MOST_DESCRIPTORS ? open_files[descriptor] : NULL;
}

static int open_below_root(const char *path, const char *name, int flags, mode_t mode) {
    struct stat status;
    bool is_new = (flags & O_CREAT) && stat(path, &status) != 0;
    if ((is_new || (flags & O_TRUNC)) && sim_gate(SIM_NAME, NULL) != 0) return -1;
    int descriptor = (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    if (descriptor < 0) return descriptor;
    if (descriptor >= MOST_DESCRIPTORS || fstat(descriptor, &status) != 0) sim_fail("too many open files");
    if (name[0] == 0) {
        open_files[descriptor] = &directory;
        return descriptor;
    }
    struct sim_file *file = sim_file_of(status.st_ino);
    open_files[descriptor] = file;
    if (is_new) sim_note_name(name, file, NULL);
    if (!is_new && (flags & O_TRUNC)) sim_note_truncate(file, 0);
    return descriptor;
}

static int open_any(const char *path, int flags, mode_t mode) {
    const char *name = sim_name(path);
    if (name) return open_below_root(path, name, flags, mode);
    int descriptor = (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    if (sim_is_simulated && descriptor >= 0 && descriptor < MOST_DESCRIPTORS) open_files[descriptor] = NULL;
    return descriptor;
}

int open(const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    return open_any(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    return open_any(path, flags, mode);
}

int close(int descriptor) {
    if (file_at(descriptor)) open_files[descriptor] = NULL;
    return (int)syscall(SYS_close, descriptor);
}

// Contents

static ssize_t write_at(int descriptor, struct sim_file *file, const void *bytes, size_t size, int64_t offset) {
    if (sim_gate(SIM_WRITE, &size) != 0) return -1;
    ssize_t written = syscall(SYS_pwrite64, descriptor, bytes, size, offset);
    if (written > 0) sim_note_write(file, offset, bytes, written);
    return written;
}

ssize_t pwrite64(int descriptor, const void *bytes, size_t size, off64_t offset) {
    struct sim_file *file = file_at(descriptor);
    if (file) return write_at(descriptor, file, bytes, size, offset);
    return syscall(SYS_pwrite64, descriptor, bytes, size, offset);
}

ssize_t pwrite(int descriptor, const void *bytes, size_t size, off_t offset) {
    return pwrite64(descriptor, bytes, size, offset);
}

ssize_t write(int descriptor, const void *bytes, size_t size) {
    struct sim_file *file = file_at(descriptor);
    if (!file) return syscall(SYS_write, descriptor, bytes, size);
    ssize_t written = write_at(descriptor, file, bytes, size, lseek(descriptor, 0, SEEK_CUR));
    if (written > 0) lseek(descriptor, written, SEEK_CUR);
    return written;
}

ssize_t sendfile(int out, int in, off_t *offset, size_t count) {
    struct sim_file *file = file_at(out);
    if (!file) return syscall(SYS_sendfile, out, in, offset, count);
    char buffer[65536];
    size_t most = count < sizeof buffer ? count : sizeof buffer;
    ssize_t size = offset ? pread(in, buffer, most, *offset) : read(in, buffer, most);
    if (size <= 0) return size;
    ssize_t written = write(out, buffer, (size_t)size);
    if (written > 0 && offset) *offset += written;
    return written;
}

ssize_t sendfile64(int out, int in, off64_t *offset, size_t count) { return sendfile(out, in, offset, count); }

int ftruncate64(int descriptor, off64_t size) {
    struct sim_file *file = file_at(descriptor);
    if (file && sim_gate(SIM_WRITE, NULL) != 0) return -1;
    int result = (int)syscall(SYS_ftruncate, descriptor, size);
    if (file && result == 0) sim_note_truncate(file, size);
    return result;
}

int ftruncate(int descriptor, off_t size) { return ftruncate64(descriptor, size); }

int truncate64(const char *path, off64_t size) {
    const char *name = sim_name(path);
    if (name && sim_gate(SIM_WRITE, NULL) != 0) return -1;
    int result = (int)syscall(SYS_truncate, path, size);
    struct sim_file *file = name ? sim_named(name) : NULL;
    if (file && result == 0) sim_note_truncate(file, size);
    return result;
}

int truncate(const char *path, off_t size) { return truncate64(path, size); }

static int sync_file(int descriptor, long number) {
    struct sim_file *file = file_at(descriptor);
    if (!file) return (int)syscall(number, descriptor);
    if (sim_gate(SIM_SYNC, NULL) != 0) {
        if (!sim_dead) sim_fail_sync(file);
        return -1;
    }
    if (file == &directory) {
        sim_sync_names();
    } else {
        sim_sync_file(file);
    }
    return 0;
}

int fsync(int descriptor) { return sync_file(descriptor, SYS_fsync); }
int fdatasync(int descriptor) { return sync_file(descriptor, SYS_fdatasync); }

// Names

int unlink(const char *path) {
    const char *name = sim_name(path);
    struct stat status;
    bool exists = name && lstat(path, &status) == 0;
    if (exists && sim_gate(SIM_NAME, NULL) != 0) return -1;
    int result = (int)syscall(SYS_unlink, path);
    if (exists && result == 0) sim_note_name(name, NULL, NULL);
    return result;
}

int rename(const char *from, const char *to) {
    const char *name = sim_name(to), *old = sim_name(from);
    struct stat status;
    bool exists = name && old && lstat(from, &status) == 0;
    if (exists && sim_gate(SIM_NAME, NULL) != 0) return -1;
    int result = (int)syscall(SYS_rename, from, to);
    if (exists && result == 0) sim_note_name(name, sim_named(old), old);
    return result;
}

int link(const char *from, const char *to) {
    const char *name = sim_name(to), *old = sim_name(from);
    if (name && sim_gate(SIM_NAME, NULL) != 0) return -1;
    int result = (int)syscall(SYS_link, from, to);
    if (name && old && result == 0) sim_note_name(name, sim_named(old), NULL);
    return result;
}

// Time

int clock_gettime(clockid_t clock, struct timespec *time) {
    if (!sim_is_simulated) return (int)syscall(SYS_clock_gettime, clock, time);
    *time = (struct timespec){sim_now() / 1000, sim_now() % 1000 * 1000000};
    return 0;
}

// The service sleeps only while it waits for its other threads.
int usleep(useconds_t microseconds) {
    if (!sim_is_simulated) {
        struct timespec time = {microseconds / 1000000, (long)(microseconds % 1000000) * 1000};
        return (int)syscall(SYS_nanosleep, &time, NULL);
    }
    sim_advance((microseconds + 999) / 1000);
    sim_run_job();
    return 0;
}

// Randomness of Swift's library

void swift_stdlib_random(void *bytes, size_t size) {
    if (!sim_is_simulated) {
        if (syscall(SYS_getrandom, bytes, size, 0) < 0) sim_fail("getrandom");
        return;
    }
    unsigned char *place = bytes;
    for (size_t i = 0; i < size; i++) place[i] = (unsigned char)sim_random();
}

// Queues

typedef struct dispatch_queue_s *dispatch_queue_t;
typedef void *block_t;
extern const char *dispatch_queue_get_label(dispatch_queue_t queue);
extern block_t _Block_copy(const void *block);
extern void _Block_release(const void *block);
// The layout of a block: https://clang.llvm.org/docs/Block-ABI-Apple.html
struct block {
    void *isa;
    int flags, reserved;
    void (*invoke)(void *block);
};

enum { MOST_JOBS = 1024 };
static block_t jobs[MOST_JOBS];
static int job_count;

void dispatch_async(dispatch_queue_t queue, block_t block) {
    static void (*real)(dispatch_queue_t, block_t);
    if (!real) real = (void (*)(dispatch_queue_t, block_t))dlsym(RTLD_NEXT, "dispatch_async");
    const char *label = dispatch_queue_get_label(queue);
    bool is_of_store = label && (!strcmp(label, "weir.opening") || !strcmp(label, "weir.checkpoint"));
    if (!sim_is_simulated || !is_of_store) {
        real(queue, block);
    } else if (job_count < MOST_JOBS) {
        jobs[job_count++] = _Block_copy(block);
    } else {
        sim_fail("too many jobs");
    }
}

int sim_waiting_jobs(void) { return job_count; }

bool sim_run_job(void) {
    if (job_count == 0) return false;
    block_t job = jobs[0];
    memmove(jobs, jobs + 1, (size_t)--job_count * sizeof *jobs);
    ((struct block *)job)->invoke(job);
    _Block_release(job);
    return true;
}

void sim_drop_jobs(void) {
    while (job_count > 0) _Block_release(jobs[--job_count]);
}
