// SPDX-License-Identifier: Apache-2.0
// A machine for simulations: a disk below the calls of libc, a clock, queues and randomness.
//
// The program that links this target has these functions in place of libc's, in its shared libraries (SQLite,
// Foundation) as well. They act only on the thread that called sim_begin, and on files below the root directory. The
// files are real. What the disk would hold after a loss of power is kept beside them.
#pragma once
#include <stdbool.h>
#include <stdint.h>

// The calling thread gets the machine. Removes all files in `root`, an existing directory. All randomness follows from
// `seed`. The clocks start at `milliseconds`.
void sim_begin(const char *root, uint64_t seed, int64_t milliseconds);

// CLOCK_MONOTONIC, in milliseconds.
int64_t sim_now(void);
void sim_advance(int64_t milliseconds);

// How many calls have changed or synced files, or tried to.
uint64_t sim_calls(void);

// The process dies at the n-th further call: that one and all later ones fail, and change nothing.
void sim_kill_in(uint64_t calls);
bool sim_is_dead(void);
// Called at the moment of death. What the process does after it reaches nobody.
void sim_at_death(void (*call)(void));
// A new process: calls work again, without faults.
void sim_revive(void);

// The kinds of calls that can fail.
enum { SIM_WRITE = 1, SIM_SYNC = 2, SIM_NAME = 4 };

// After `calls` further calls, `count` calls of these kinds fail with `error`. With ENOSPC, syncs and removals work, and
// a write may store a part of its bytes first. What a failed sync was to store may be lost, whatever later syncs say.
void sim_fail_in(uint64_t calls, uint64_t count, int error, int kinds);
void sim_repair(void);

// Whether a sync stores nothing, and says that it has.
void sim_lie(bool lies);

// The power fails. Of what was not synced, each sector of 512 bytes has any of its states since; of what is older than
// `writeback` milliseconds, the newest. Names and sizes are as at one moment since the last sync. The process must be
// dead, and its files closed.
void sim_lose_power(uint64_t seed, int64_t writeback);

// Flips one bit of a file whose name contains `part`. Returns false if there is none with content.
bool sim_flip_bit(uint64_t seed, const char *part);

// Blocks that were given to the dispatch queues of the service's files wait until they are run, in order.
int sim_waiting_jobs(void);
bool sim_run_job(void);
void sim_drop_jobs(void);
