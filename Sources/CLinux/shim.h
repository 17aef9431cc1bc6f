// SPDX-License-Identifier: Apache-2.0
// Linux functions and headers that Swift's Glibc module does not export.
#include <pthread.h>
#include <spawn.h>
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

int accept4(int listening, struct sockaddr *address, socklen_t *length, int flags);
int pipe2(int ends[2], int flags);
int pthread_setname_np(pthread_t thread, const char *name);
int posix_spawn_file_actions_addclosefrom_np(posix_spawn_file_actions_t *actions, int first);
