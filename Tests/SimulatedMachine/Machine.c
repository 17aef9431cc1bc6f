// SPDX-License-Identifier: Apache-2.0
// The state of the machine: what the disk has stored, and what a loss of power may still take away.
#define _GNU_SOURCE
#include "Disk.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SECTOR = 512 };

struct name {
    char *name;
    struct sim_file *file;
};

struct name_op {
    char *name, *from;
    struct sim_file *file;
    int64_t time;
};

__thread bool sim_is_simulated;
bool sim_dead;

static char root[PATH_MAX];
static int64_t clock_ms;
static uint64_t calls, kill_at, fail_from, fail_until;
static int fail_error, fail_kinds;
static bool lying;
static uint64_t gate_random;
static void (*at_death)(void);
static struct sim_file *files;
static struct name names[512], stored_names[512];
static int name_count, stored_count;
static struct name_op *name_ops;
static int name_op_count, name_op_room;

void sim_fail(const char *reason) {
    fprintf(stderr, "simulated machine: %s: %s\n", reason, strerror(errno));
    abort();
}

// SplitMix64
static uint64_t next(uint64_t *state) {
    uint64_t z = (*state += 0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

// Files

static void *copy(const void *bytes, size_t length) {
    void *new = malloc(length ? length : 1);
    memcpy(new, bytes, length);
    return new;
}

struct sim_file *sim_file_of(uint64_t inode) {
    for (struct sim_file *file = files; file; file = file->next)
        if (file->inode == inode) return file;
    struct sim_file *file = calloc(1, sizeof *file);
    file->inode = inode;
    file->next = files;
    files = file;
    return file;
}

static struct write_op *add(struct sim_file *file) {
    if (file->pending_count == file->pending_room) {
        file->pending_room = file->pending_room ? 2 * file->pending_room : 16;
        file->pending = realloc(file->pending, (size_t)file->pending_room * sizeof *file->pending);
    }
    struct write_op *op = &file->pending[file->pending_count++];
    memset(op, 0, sizeof *op);
    op->time = clock_ms;
    return op;
}

void sim_note_write(struct sim_file *file, int64_t offset, const void *bytes, int64_t length) {
    struct write_op *op = add(file);
    op->offset = offset;
    op->length = length;
    op->bytes = copy(bytes, (size_t)length);
}

void sim_note_truncate(struct sim_file *file, int64_t size) {
    struct write_op *op = add(file);
    op->offset = size;
    op->length = -1;
}

static void resize(unsigned char **bytes, int64_t *size, int64_t new) {
    *bytes = realloc(*bytes, (size_t)new + 1);
    if (new > *size) memset(*bytes + *size, 0, (size_t)(new - *size));
    *size = new;
}

static void store(struct sim_file *file, const struct write_op *op) {
    if (op->length < 0) {
        resize(&file->stored, &file->stored_size, op->offset);
        return;
    }
    if (op->offset + op->length > file->stored_size)
        resize(&file->stored, &file->stored_size, op->offset + op->length);
    memcpy(file->stored + op->offset, op->bytes, (size_t)op->length);
}

static void forget_pending(struct sim_file *file) {
    for (int i = 0; i < file->pending_count; i++) free(file->pending[i].bytes);
    file->pending_count = 0;
}

void sim_sync_file(struct sim_file *file) {
    if (lying) return;
    int kept = 0;
    for (int i = 0; i < file->pending_count; i++) {
        struct write_op op = file->pending[i];
        // Once a sync has failed, what came before stays uncertain, and so does the order of what follows.
        if (op.is_stuck || kept > 0) {
            file->pending[kept++] = op;
        } else {
            store(file, &op);
            free(op.bytes);
        }
    }
    file->pending_count = kept;
}

void sim_fail_sync(struct sim_file *file) {
    for (int i = 0; i < file->pending_count; i++) file->pending[i].is_stuck = true;
}

static void forget_files(void) {
    while (files) {
        struct sim_file *file = files;
        files = file->next;
        forget_pending(file);
        free(file->pending);
        free(file->stored);
        free(file);
    }
}

// Names

static void set_name(struct name *list, int *count, const char *name, struct sim_file *file) {
    for (int i = 0; i < *count; i++) {
        if (strcmp(list[i].name, name) != 0) continue;
        list[i].file = file;
        if (!file) {
            free(list[i].name);
            list[i] = list[--*count];
        }
        return;
    }
    if (!file) return;
    if (*count == 512) sim_fail("more than 512 files");
    list[*count].name = strdup(name);
    list[(*count)++].file = file;
}

struct sim_file *sim_named(const char *name) {
    for (int i = 0; i < name_count; i++)
        if (strcmp(names[i].name, name) == 0) return names[i].file;
    return NULL;
}

void sim_note_name(const char *name, struct sim_file *file, const char *from) {
    if (from) set_name(names, &name_count, from, NULL);
    set_name(names, &name_count, name, file);
    if (name_op_count == name_op_room) {
        name_op_room = name_op_room ? 2 * name_op_room : 64;
        name_ops = realloc(name_ops, (size_t)name_op_room * sizeof *name_ops);
    }
    name_ops[name_op_count++] = (struct name_op){strdup(name), from ? strdup(from) : NULL, file, clock_ms};
}

static void store_names(int count) {
    for (int i = 0; i < count; i++) {
        if (name_ops[i].from) set_name(stored_names, &stored_count, name_ops[i].from, NULL);
        set_name(stored_names, &stored_count, name_ops[i].name, name_ops[i].file);
    }
    for (int i = 0; i < name_op_count; i++) {
        if (i >= count) break;
        free(name_ops[i].name);
        free(name_ops[i].from);
    }
    memmove(name_ops, name_ops + count, (size_t)(name_op_count - count) * sizeof *name_ops);
    name_op_count -= count;
}

void sim_sync_names(void) {
    if (!lying) store_names(name_op_count);
}

static void forget_names(void) {
    store_names(name_op_count);
    while (name_count) free(names[--name_count].name);
    while (stored_count) free(stored_names[--stored_count].name);
}

uint64_t sim_random(void) { return next(&gate_random); }

const char *sim_name(const char *path) {
    size_t length = strlen(root);
    if (!sim_is_simulated || length == 0 || strncmp(path, root, length) != 0) return NULL;
    return path[length] == 0 ? "" : path[length] == '/' ? path + length + 1 : NULL;
}

// Faults

int sim_gate(int kind, size_t *size) {
    calls++;
    if (calls == kill_at && !sim_dead) {
        sim_dead = true;
        if (at_death) at_death();
    }
    if (sim_dead) {
        errno = EIO;
        return -1;
    }
    if (calls < fail_from || calls >= fail_until || !(fail_kinds & kind)) return 0;
    if (fail_error == ENOSPC && kind != SIM_WRITE) return 0;
    if (fail_error == ENOSPC && size && *size > 1 && next(&gate_random) % 2) {
        *size /= 2;
        return 0;
    }
    errno = fail_error;
    return -1;
}

uint64_t sim_calls(void) { return calls; }
void sim_kill_in(uint64_t further) { kill_at = calls + further; }
bool sim_is_dead(void) { return sim_dead; }
void sim_at_death(void (*call)(void)) { at_death = call; }
void sim_lie(bool lies) { lying = lies; }

void sim_repair(void) { fail_from = fail_until = 0; }

void sim_revive(void) {
    sim_dead = false;
    kill_at = 0;
    sim_repair();
}

void sim_fail_in(uint64_t further, uint64_t count, int error, int kinds) {
    fail_from = calls + further + 1;
    fail_until = fail_from + count;
    fail_error = error;
    fail_kinds = kinds;
}

int64_t sim_now(void) { return clock_ms; }
void sim_advance(int64_t milliseconds) { clock_ms += milliseconds; }

// Files that appear on the disk by other means than calls of the service.

static void path_of(char *path, const char *name) { snprintf(path, PATH_MAX, "%s/%s", root, name); }

static void empty_root(void) {
    DIR *directory = opendir(root);
    if (!directory) return;
    struct dirent *entry;
    char path[PATH_MAX];
    while ((entry = readdir(directory))) {
        if (entry->d_name[0] == '.') continue;
        path_of(path, entry->d_name);
        syscall(SYS_unlink, path);
    }
    closedir(directory);
}

// Writes a file anew, and makes it one that the disk has stored.
static void write_file(const char *name, const unsigned char *bytes, int64_t size) {
    char path[PATH_MAX];
    path_of(path, name);
    int descriptor = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
    if (descriptor < 0 || syscall(SYS_pwrite64, descriptor, bytes, size, 0) != size) sim_fail(path);
    struct stat status;
    if (fstat(descriptor, &status) != 0) sim_fail(path);
    syscall(SYS_close, descriptor);
    struct sim_file *file = sim_file_of(status.st_ino);
    file->stored = copy(bytes, (size_t)size);
    file->stored_size = size;
    set_name(names, &name_count, name, file);
    set_name(stored_names, &stored_count, name, file);
}

void sim_begin(const char *new_root, uint64_t seed, int64_t milliseconds) {
    sim_is_simulated = true;
    snprintf(root, sizeof root, "%s", new_root);
    empty_root();
    forget_names();
    forget_files();
    sim_drop_jobs();
    calls = 0;
    clock_ms = milliseconds;
    gate_random = seed;
    sim_lie(false);
    sim_revive();
}

// The content of a file after a loss of power.
static unsigned char *remains(const struct sim_file *file, uint64_t *random, int64_t writeback, int64_t *size) {
    int forced = 0;
    while (forced < file->pending_count && file->pending[forced].time + writeback <= clock_ms) forced++;
    int style = (int)(next(random) % 4);
    int count = file->pending_count;
    // The last operation whose change of the size counts, and where all sectors end in one of the styles.
    int cut = forced + (count > forced ? (int)(next(random) % (uint64_t)(count - forced + 1)) : 0);
    if (style == 0) cut = forced;
    if (style == 1) cut = count;
    struct sim_file scratch = {.stored = copy(file->stored, (size_t)file->stored_size), .stored_size = file->stored_size};
    for (int i = 0; i < cut; i++) store(&scratch, &file->pending[i]);
    *size = scratch.stored_size;
    if (style != 3) {
        // The first write behind the cut may have reached the disk in part.
        if (cut < count && file->pending[cut].length > SECTOR && next(random) % 2) {
            struct write_op torn = file->pending[cut];
            torn.length = (int64_t)(next(random) % (uint64_t)(torn.length / SECTOR) + 1) * SECTOR - torn.offset % SECTOR;
            if (torn.length > 0) store(&scratch, &torn);
            *size = scratch.stored_size;
        }
        return scratch.stored;
    }
    // Each sector as it was after any of the operations. A file system that has not stored a truncation has not freed
    // sectors either: only operations before it count.
    int end = cut;
    while (end < count && file->pending[end].length >= 0) end++;
    struct sim_file state = {.stored = copy(file->stored, (size_t)file->stored_size), .stored_size = file->stored_size};
    int64_t sectors = (*size + SECTOR - 1) / SECTOR;
    int *ends = malloc((size_t)(sectors + 1) * sizeof *ends);
    for (int64_t s = 0; s < sectors; s++) ends[s] = forced + (int)(next(random) % (uint64_t)(end - forced + 1));
    memset(scratch.stored, 0, (size_t)*size);
    for (int i = 0; i <= end; i++) {
        for (int64_t s = 0; s < sectors; s++) {
            int64_t start = s * SECTOR, stop = start + SECTOR < *size ? start + SECTOR : *size;
            if (stop > state.stored_size) stop = state.stored_size;
            if (ends[s] == i && stop > start) memcpy(scratch.stored + start, state.stored + start, (size_t)(stop - start));
        }
        if (i < end) store(&state, &file->pending[i]);
    }
    free(ends);
    free(state.stored);
    return scratch.stored;
}

void sim_lose_power(uint64_t seed, int64_t writeback) {
    uint64_t random = seed;
    int forced = 0;
    while (forced < name_op_count && name_ops[forced].time + writeback <= clock_ms) forced++;
    int kept = forced + (name_op_count > forced ? (int)(next(&random) % (uint64_t)(name_op_count - forced + 1)) : 0);
    if (next(&random) % 4 == 0) kept = name_op_count;
    store_names(kept);
    struct {
        char *name;
        unsigned char *bytes;
        int64_t size;
    } left[512];
    int count = 0;
    for (int i = 0; i < stored_count; i++) {
        size_t length = strlen(stored_names[i].name);
        // SQLite's shared memory does not outlive the processes that use it.
        if (length > 4 && strcmp(stored_names[i].name + length - 4, "-shm") == 0) continue;
        left[count].name = strdup(stored_names[i].name);
        left[count].bytes = remains(stored_names[i].file, &random, writeback, &left[count].size);
        count++;
    }
    empty_root();
    forget_names();
    forget_files();
    for (int i = 0; i < count; i++) {
        write_file(left[i].name, left[i].bytes, left[i].size);
        free(left[i].name);
        free(left[i].bytes);
    }
}

bool sim_flip_bit(uint64_t seed, const char *part) {
    uint64_t random = seed;
    int candidates[512], count = 0;
    for (int i = 0; i < name_count; i++)
        if (strstr(names[i].name, part) && !strstr(names[i].name, "-shm") && !strstr(names[i].name, ".damaged-"))
            candidates[count++] = i;
    if (count == 0) return false;
    char path[PATH_MAX];
    path_of(path, names[candidates[next(&random) % (uint64_t)count]].name);
    int descriptor = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
    if (descriptor < 0) return false;
    struct stat status;
    bool flips = fstat(descriptor, &status) == 0 && status.st_size > 0;
    if (flips) {
        int64_t offset = (int64_t)(next(&random) % (uint64_t)status.st_size);
        unsigned char byte;
        flips = pread(descriptor, &byte, 1, offset) == 1;
        byte ^= (unsigned char)(1u << next(&random) % 8);
        syscall(SYS_pwrite64, descriptor, &byte, 1, offset);
        struct sim_file *file = sim_file_of(status.st_ino);
        sim_note_write(file, offset, &byte, 1);
    }
    syscall(SYS_close, descriptor);
    return flips;
}
