// SPDX-License-Identifier: Apache-2.0
// A process that was split off before the restrictions, and starts programs for the restricted one. It has one thread,
// and does nothing but wait: for requests, for programs that end, and for the end of those who asked for them.
#define _GNU_SOURCE
#include "CSandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST_PROGRAMS = 16, MOST_WORDS = 1024, LONGEST_REQUEST = 65536, DESCRIPTORS = 3 };

int posix_spawn_file_actions_addclosefrom_np(posix_spawn_file_actions_t *actions, int first);

struct program {
    // 0: the slot is free.
    pid_t pid;
    // -1: the client has gone, and the program was killed.
    int channel;
};

static struct program programs[MOST_PROGRAMS];

// Paths with a final NUL each.
static const char *permitted;
static size_t permittedLength;

static int isPermitted(const char *path) {
    for (const char *other = permitted; other < permitted + permittedLength; other += strlen(other) + 1)
        if (strcmp(path, other) == 0) return 1;
    return 0;
}

static void answer(int channel, int error, int status) {
    struct weir_starter_answer answer = {.error = error, .status = status};
    send(channel, &answer, sizeof answer, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static int start(char **words, int input, int output, pid_t *pid) {
    static char *environment[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", NULL};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t all, none;
    sigfillset(&all);
    sigemptyset(&none);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
    posix_spawn_file_actions_addclosefrom_np(&actions, STDERR_FILENO + 1);
    posix_spawnattr_init(&attributes);
    // A process group of its own can be killed as a whole.
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
    int error = posix_spawn(pid, words[0], &actions, &attributes, words, environment);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return error;
}

/// Takes over `channel`.
static void accept_request(char *bytes, size_t length, int channel, int input, int output) {
    char *words[MOST_WORDS + 1];
    size_t count = 0;
    struct program *free = NULL;
    int error = 0;
    for (int slot = 0; slot < MOST_PROGRAMS && !free; slot++)
        if (programs[slot].pid == 0) free = &programs[slot];
    if (!free) error = EAGAIN;
    if (length == 0 || bytes[length - 1] != 0) error = EINVAL;
    for (char *word = bytes; !error && word < bytes + length; word += strlen(word) + 1) {
        if (count == MOST_WORDS) error = E2BIG;
        else words[count++] = word;
    }
    if (!error && !isPermitted(words[0])) error = EPERM;
    if (!error) {
        words[count] = NULL;
        error = start(words, input, output, &free->pid);
        if (error) free->pid = 0;
    }
    if (error) {
        answer(channel, error, 0);
        close(channel);
    } else {
        free->channel = channel;
    }
}

/// Returns 0 if the service has ended.
static int receive(int control) {
    static char bytes[LONGEST_REQUEST];
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(DESCRIPTORS * sizeof(int))];
    } ancillary;
    struct iovec part = {.iov_base = bytes, .iov_len = sizeof bytes};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &ancillary, .msg_controllen = sizeof ancillary};
    ssize_t length = recvmsg(control, &message, MSG_CMSG_CLOEXEC);
    if (length < 0) return errno == EINTR || errno == EAGAIN;
    int passed[DESCRIPTORS];
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (!header || header->cmsg_type != SCM_RIGHTS || header->cmsg_len != CMSG_LEN(sizeof passed)) return length > 0;
    memcpy(passed, CMSG_DATA(header), sizeof passed);
    accept_request(bytes, (size_t)length, passed[0], passed[1], passed[2]);
    close(passed[1]);
    close(passed[2]);
    return 1;
}

static void reap(int signals) {
    struct signalfd_siginfo information;
    while (read(signals, &information, sizeof information) > 0) continue;
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
        for (int slot = 0; slot < MOST_PROGRAMS; slot++) {
            if (programs[slot].pid != pid) continue;
            if (programs[slot].channel >= 0) {
                answer(programs[slot].channel, 0, status);
                close(programs[slot].channel);
            }
            programs[slot].pid = 0;
        }
}

static void stop(struct program *program) {
    kill(-program->pid, SIGKILL);
    if (program->channel >= 0) close(program->channel);
    program->channel = -1;
}

static _Noreturn void serve(int control) {
    sigset_t children;
    sigemptyset(&children);
    sigaddset(&children, SIGCHLD);
    sigprocmask(SIG_SETMASK, &children, NULL);
    int signals = signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signals < 0) _exit(1);
    while (1) {
        struct pollfd ready[2 + MOST_PROGRAMS] = {{.fd = control, .events = POLLIN}, {.fd = signals, .events = POLLIN}};
        for (int slot = 0; slot < MOST_PROGRAMS; slot++) {
            int isUsed = programs[slot].pid != 0 && programs[slot].channel >= 0;
            ready[2 + slot] = (struct pollfd){.fd = isUsed ? programs[slot].channel : -1, .events = POLLIN};
        }
        if (poll(ready, 2 + MOST_PROGRAMS, -1) < 0 && errno != EINTR) _exit(1);
        // Before new requests, which may take the slots of programs that have ended.
        for (int slot = 0; slot < MOST_PROGRAMS; slot++)
            if (ready[2 + slot].revents != 0) stop(&programs[slot]);
        if (ready[1].revents != 0) reap(signals);
        if (ready[0].revents != 0 && !receive(control)) break;
    }
    for (int slot = 0; slot < MOST_PROGRAMS; slot++)
        if (programs[slot].pid != 0) stop(&programs[slot]);
    _exit(0);
}

int weir_starter_split(int *control, const char *paths, size_t length) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) return errno;
    pid_t pid = fork();
    if (pid < 0) {
        int error = errno;
        close(ends[0]);
        close(ends[1]);
        return error;
    }
    if (pid == 0) {
        // The memory is a copy.
        permitted = paths;
        permittedLength = length;
        // Listening sockets of the service manager stay with the service.
        if (dup2(ends[1], STDERR_FILENO + 1) < 0) _exit(1);
        closefrom(STDERR_FILENO + 2);
        fcntl(STDERR_FILENO + 1, F_SETFD, FD_CLOEXEC);
        prctl(PR_SET_NAME, "weir-starter");
        // A terminal and systemd send these to all processes of the service.
        signal(SIGINT, SIG_IGN);
        signal(SIGTERM, SIG_IGN);
        signal(SIGHUP, SIG_IGN);
        signal(SIGPIPE, SIG_IGN);
        // If it were ignored, waitpid(2) would not tell how a program ended.
        signal(SIGCHLD, SIG_DFL);
        serve(STDERR_FILENO + 1);
    }
    close(ends[1]);
    *control = ends[0];
    return 0;
}

int weir_starter_request(int control, const char *words, size_t length, int channel, int input, int output) {
    int passed[DESCRIPTORS] = {channel, input, output};
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof passed)];
    } ancillary = {.space = {0}};
    struct iovec part = {.iov_base = (char *)words, .iov_len = length};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &ancillary, .msg_controllen = sizeof ancillary};
    if (length > LONGEST_REQUEST) return E2BIG;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof passed);
    memcpy(CMSG_DATA(header), passed, sizeof passed);
    while (sendmsg(control, &message, MSG_NOSIGNAL) < 0)
        if (errno != EINTR) return errno;
    return 0;
}

int weir_starter_channel(int ends[2]) {
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0 ? 0 : errno;
}
