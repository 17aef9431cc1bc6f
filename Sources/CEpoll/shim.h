// SPDX-License-Identifier: Apache-2.0
// What Swift's Glibc module leaves out of Linux.
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

int accept4(int listening, struct sockaddr *address, socklen_t *length, int flags);
