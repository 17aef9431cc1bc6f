// SPDX-License-Identifier: Apache-2.0
// What the restrictions must refuse, for `weir serve --try-sandbox`.
#define _GNU_SOURCE
#include "CSandbox.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int closed(int descriptor) {
    if (descriptor < 0) return errno;
    close(descriptor);
    return 0;
}

int weir_try_open(const char *path) { return closed(open(path, O_RDONLY | O_CLOEXEC)); }

int weir_try_create(const char *path) {
    int error = closed(open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (error == 0) unlink(path);
    return error;
}

static struct sockaddr_in loopback(uint16_t port) {
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

int weir_try_connect(uint16_t port) {
    struct sockaddr_in address = loopback(port);
    int descriptor = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (descriptor < 0) return errno;
    int error = connect(descriptor, (struct sockaddr *)&address, sizeof address) == 0 ? 0 : errno;
    close(descriptor);
    // The kernel has tried.
    return error == ECONNREFUSED ? 0 : error;
}

int weir_try_send(uint16_t port, int isDatagram) {
    struct sockaddr_in address = loopback(port);
    int descriptor = socket(AF_INET, (isDatagram ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0);
    if (descriptor < 0) return errno;
    int flags = MSG_NOSIGNAL | (isDatagram ? 0 : MSG_FASTOPEN);
    int error = sendto(descriptor, "", 1, flags, (struct sockaddr *)&address, sizeof address) >= 0 ? 0 : errno;
    close(descriptor);
    return error == ECONNREFUSED ? 0 : error;
}

int weir_try_listen(void) {
    int descriptor = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    // Binds to a new abstract address.
    struct sockaddr address = {.sa_family = AF_UNIX};
    int error = bind(descriptor, &address, sizeof address.sa_family) == 0 && listen(descriptor, 1) == 0 ? 0 : errno;
    closed(descriptor);
    return error;
}

/// In a new process where that is possible, as a success would not return.
int weir_try_execute(const char *path) {
    char *words[] = {(char *)path, NULL};
    int status = 0;
    pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (pid > 0) return waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : 0;
    execve(path, words, words + 1);
    int error = errno;
    if (pid == 0) _exit(error);
    return error;
}

int weir_try_fork(void) {
    pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (pid == 0) _exit(0);
    if (pid < 0) return errno;
    waitpid(pid, NULL, 0);
    return 0;
}

int weir_try_trace(void) {
    if (ptrace(PTRACE_SEIZE, getppid(), 0, 0) != 0) return errno;
    ptrace(PTRACE_DETACH, getppid(), 0, 0);
    return 0;
}

int weir_try_signal(pid_t process) { return kill(process, 0) == 0 ? 0 : errno; }

int weir_try_raw_socket(void) { return closed(socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMP)); }

int weir_try_writable_code(void) {
    void *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return errno;
    munmap(memory, 4096);
    return 0;
}

int weir_try_executable_data(void) {
    void *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return errno;
    int error = mprotect(memory, 4096, PROT_READ | PROT_EXEC) == 0 ? 0 : errno;
    munmap(memory, 4096);
    return error;
}

int weir_try_new_call(void) { return syscall(SYS_pidfd_open, getpid(), 0) >= 0 ? 0 : errno; }

int weir_try_become_root(void) { return setresuid(0, 0, 0) == 0 ? 0 : errno; }
