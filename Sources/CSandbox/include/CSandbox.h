// SPDX-License-Identifier: Apache-2.0
// Linux system calls by which a process gives up what it does not need, and a process that starts programs for it.
// Functions return 0, or an error number, unless noted.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

// Users and capabilities

/// Opens /dev/null for those of the descriptors 0, 1 and 2 that are closed. A file or socket that took their place
/// would be inherited by programs, and get the output of libraries.
int weir_open_standard_streams(void);
/// Changes user and group ids for good, with the supplementary groups of `name`. Only root keeps capabilities.
int weir_become(const char *name, uid_t user, gid_t group);
/// What access(2) with `mode` says after `weir_become`, which a child process does.
int weir_access_as(const char *name, uid_t user, gid_t group, const char *path, int mode);
/// Whether a user owns this directory or symbolic link, or may change the directory's entries. In a directory with the
/// sticky bit it may change only those that it owns. Returns 1 or 0; 1 if that can't be found out.
int weir_may_change(const char *path, const char *name, uid_t user, gid_t group);
/// Gives up all capabilities of the calling thread.
int weir_drop_capabilities(void);
/// Gives up privileges that executing a file could bring (PR_SET_NO_NEW_PRIVS).
int weir_forbid_new_privileges(void);
int weir_has_no_new_privileges(void);

// Landlock. It applies to the calling thread, and to all threads and processes that this one starts afterwards.

enum weir_access {
    /// Read files, and list directories.
    WEIR_READ = 1,
    /// Create, change, rename and remove files.
    WEIR_WRITE = 2,
    /// Create and remove the files of UNIX sockets.
    WEIR_SOCKETS = 4,
};

/// The version of Landlock in this kernel, or a negative error number.
int weir_landlock_version(void);
/// The descriptor of a new set of rules, or a negative error number.
///
/// - Parameter scope: whether to refuse signals to other processes, and their abstract sockets.
int weir_landlock_create(int version, int scope);
int weir_landlock_allow_path(int rules, int version, const char *path, unsigned access);
/// Allows a TCP port for bind(2), or for connect(2).
int weir_landlock_allow_bind(int rules, int version, uint16_t port);
int weir_landlock_allow_connect(int rules, int version, uint16_t port);
/// What a path names, whatever has that name later.
struct weir_identity {
    uint64_t device;
    uint64_t inode;
};

/// Of the target of a symbolic link.
int weir_identify(const char *path, struct weir_identity *identity);
/// Applies the rules and closes `rules`.
int weir_landlock_restrict(int rules);

// The filter of system calls. It applies to all threads.

struct weir_refused_call {
    int number;
    /// For calls such as prctl(2), it says what was asked for.
    unsigned first_argument;
};

/// - Parameters:
///   - reports: a descriptor to which each refused system call is written once, as a `weir_refused_call`.
///   - connects: whether the process opens connections of TCP itself, besides those to UNIX sockets.
///   - kills: whether a refused system call ends the process, instead of failing with EPERM, or with ENOSYS if the call
///     is newer than Linux 5.0.
int weir_filter_calls(int reports, int connects, int kills);
/// Whether the calling thread has such a filter.
int weir_has_call_filter(void);

// The starter

/// Forks the process that starts programs. It ends, with all its programs, when `control` is closed.
///
/// - Parameter permitted: the paths of the programs that it starts, each with a final NUL, in `length` bytes. Others
///   are refused with EPERM.
int weir_starter_split(int *control, const char *permitted, size_t length);

struct weir_starter_answer {
    /// Why the program was not started, or 0.
    int32_t error;
    /// As of waitpid(2).
    int32_t status;
};

/// Has a program started. `channel` gets a `weir_starter_answer` when it has ended; if its other end is closed before,
/// the program and its process group are killed. The caller may close the descriptors.
///
/// - Parameter words: path and arguments, each with a final NUL.
int weir_starter_request(int control, const char *words, size_t length, int channel, int input, int output);
/// A pair of connected sockets for `channel`.
int weir_starter_channel(int ends[2]);

// What the restrictions refuse. Each returns 0 if it succeeded, or an error number.

int weir_try_open(const char *path);
int weir_try_create(const char *path);
int weir_try_connect(uint16_t port);
/// Sends a datagram, or connects by sending data (TCP Fast Open), which Landlock does not see.
int weir_try_send(uint16_t port, int isDatagram);
int weir_try_listen(void);
int weir_try_execute(const char *path);
int weir_try_fork(void);
int weir_try_trace(void);
int weir_try_signal(pid_t process);
int weir_try_raw_socket(void);
int weir_try_writable_code(void);
/// Makes memory executable that was written to.
int weir_try_executable_data(void);
/// Makes a system call of Linux 5.3, which a library may try before an older one.
int weir_try_new_call(void);
int weir_try_become_root(void);
