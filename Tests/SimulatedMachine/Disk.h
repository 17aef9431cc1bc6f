// SPDX-License-Identifier: Apache-2.0
// What Machine.c and Calls.c share.
#pragma once
#include "SimulatedMachine.h"
#include <stddef.h>

struct write_op {
    int64_t offset;
    int64_t length; // -1 truncates to `offset`
    unsigned char *bytes;
    int64_t time;
    bool is_stuck; // a sync has failed: later ones do not store it
};

struct sim_file {
    uint64_t inode;
    int references;
    unsigned char *stored;
    int64_t stored_size;
    struct write_op *pending;
    int pending_count, pending_room;
    struct sim_file *next;
};

extern __thread bool sim_is_simulated;
extern bool sim_dead;

// Ends the program: the machine itself is at fault.
_Noreturn void sim_fail(const char *reason);
uint64_t sim_random(void);

struct sim_file *sim_file_of(uint64_t inode);
void sim_note_write(struct sim_file *file, int64_t offset, const void *bytes, int64_t length);
void sim_note_truncate(struct sim_file *file, int64_t size);
void sim_sync_file(struct sim_file *file);
void sim_sync_names(void);
void sim_fail_sync(struct sim_file *file);
// `name` gets a file, or none where it is NULL. `from` loses its name at the same moment, if not NULL.
void sim_note_name(const char *name, struct sim_file *file, const char *from);
struct sim_file *sim_named(const char *name);
// The part of a path below the root; NULL for other paths. "" is the root itself.
const char *sim_name(const char *path);
// Counts a call. Returns 0 if it may go on; otherwise sets errno. `size` may be lowered.
int sim_gate(int kind, size_t *size);
