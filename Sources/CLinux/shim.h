// SPDX-License-Identifier: Apache-2.0
// Linux functions and headers that Swift's Glibc module does not export.
#include <linux/memfd.h>
#include <pthread.h>
#include <sched.h>
#include <spawn.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>

long syscall(long number, ...);

// recv and send as plain system calls. glibc's wrappers are thread cancellation points, and Weir never cancels threads.
static inline ssize_t weir_recv(int socket, void *bytes, size_t count) {
    return syscall(SYS_recvfrom, socket, bytes, count, 0, NULL, NULL);
}

static inline ssize_t weir_send(int socket, const void *bytes, size_t count) {
    return syscall(SYS_sendto, socket, bytes, count, MSG_NOSIGNAL, NULL, 0);
}

// Swift sees `environ` as a variable that it can't read safely.
static inline char **weir_environment(void) {
    extern char **environ;
    return environ;
}

// How long the calling thread may run at a stretch, in nanoseconds. glibc has sched_setattr(2) only from 2.41 on.
static inline void weir_set_slice(uint64_t nanoseconds) {
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period;
    } attributes;
    if (syscall(SYS_sched_getattr, 0, &attributes, sizeof attributes, 0) != 0) return;
    if (attributes.policy != SCHED_OTHER) return;
    attributes.runtime = nanoseconds;
    syscall(SYS_sched_setattr, 0, &attributes, 0);
}

int accept4(int listening, struct sockaddr *address, socklen_t *length, int flags);
int memfd_create(const char *name, unsigned flags);
int pipe2(int ends[2], int flags);
int pthread_setname_np(pthread_t thread, const char *name);
int posix_spawn_file_actions_addclosefrom_np(posix_spawn_file_actions_t *actions, int first);
