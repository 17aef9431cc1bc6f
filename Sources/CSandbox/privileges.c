// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "CSandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

int weir_drop_capabilities(void) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{0}};
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    return syscall(SYS_capset, &header, none) == 0 ? 0 : errno;
}

int weir_become(const char *name, uid_t user, gid_t group) {
    if (initgroups(name, group) != 0 || setresgid(group, group, group) != 0 || setresuid(user, user, user) != 0)
        return errno;
    // Nothing is left of them, unless the process was started with SECBIT_NO_SETUID_FIXUP or SECBIT_KEEP_CAPS.
    int error = user == 0 ? 0 : weir_drop_capabilities();
    if (error != 0) return error;
    // A way back would be a fault of the kernel or of this function.
    if (user != 0 && (setuid(0) == 0 || geteuid() == 0)) return EPERM;
    return 0;
}

int weir_access_as(const char *name, uid_t user, gid_t group, const char *path, int mode) {
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        int error = weir_become(name, user, group);
        if (error == 0 && faccessat(AT_FDCWD, path, mode, AT_EACCESS) != 0) error = errno;
        _exit(error);
    }
    if (pid < 0) return errno;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR) return errno;
    return WIFEXITED(status) ? WEXITSTATUS(status) : EINTR;
}

static int is_member(const char *name, gid_t group, gid_t wanted) {
    gid_t groups[NGROUPS_MAX];
    int count = NGROUPS_MAX;
    getgrouplist(name, group, groups, &count);
    for (int index = 0; index < count; index++)
        if (groups[index] == wanted) return 1;
    return 0;
}

int weir_may_change(const char *path, const char *name, uid_t user, gid_t group) {
    struct stat status;
    if (lstat(path, &status) != 0 || status.st_uid == user) return 1;
    if (S_ISLNK(status.st_mode) || status.st_mode & S_ISVTX) return 0;
    return status.st_mode & S_IWOTH || (status.st_mode & S_IWGRP && is_member(name, group, status.st_gid));
}

int weir_forbid_new_privileges(void) { return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 ? 0 : errno; }

int weir_has_no_new_privileges(void) { return prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1; }

int weir_open_standard_streams(void) {
    for (int descriptor = STDIN_FILENO; descriptor <= STDERR_FILENO; descriptor++) {
        if (fcntl(descriptor, F_GETFD) >= 0) continue;
        // The lowest free descriptor is this one.
        if (open("/dev/null", O_RDWR) < 0) return errno;
    }
    return 0;
}
