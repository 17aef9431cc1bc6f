// SPDX-License-Identifier: Apache-2.0
// Counts the memory that a program has allocated and not released. With LD_PRELOAD, it comes before the C library's own
// functions. The counters are in the file that LIVE_MEMORY names, where others can read them: bytes and blocks, as
// 64-bit integers. See memory.py.
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

// The C library's functions, under their other names.
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);
void __libc_free(void *);

struct counters {
    _Atomic long bytes, blocks;
};

static struct counters before_start;
static struct counters *live = &before_start;

__attribute__((constructor)) static void start(void) {
    const char *path = getenv("LIVE_MEMORY");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0) return;
    struct counters *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (shared == MAP_FAILED) return;
    shared->bytes = before_start.bytes;
    shared->blocks = before_start.blocks;
    live = shared;
}

static void *add(void *block) {
    if (!block) return NULL;
    live->bytes += (long)malloc_usable_size(block);
    live->blocks++;
    return block;
}

static void take(void *block) {
    if (!block) return;
    live->bytes -= (long)malloc_usable_size(block);
    live->blocks--;
}

void *malloc(size_t size) { return add(__libc_malloc(size)); }

void *calloc(size_t count, size_t size) { return add(__libc_calloc(count, size)); }

void *memalign(size_t alignment, size_t size) { return add(__libc_memalign(alignment, size)); }

void *aligned_alloc(size_t alignment, size_t size) { return memalign(alignment, size); }

int posix_memalign(void **block, size_t alignment, size_t size) {
    void *made = memalign(alignment, size);
    if (!made) return ENOMEM;
    *block = made;
    return 0;
}

void *realloc(void *old, size_t size) {
    long bytes = old ? (long)malloc_usable_size(old) : 0;
    void *new = __libc_realloc(old, size);
    if (new || size == 0) {
        live->bytes -= bytes;
        if (old) live->blocks--;
    }
    return add(new);
}

void free(void *block) {
    take(block);
    __libc_free(block);
}
