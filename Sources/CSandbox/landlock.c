// SPDX-License-Identifier: Apache-2.0
// Landlock, see landlock(7). The constants are those of newer kernels than some headers know.
#define _GNU_SOURCE
#include "CSandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_add_rule 445
#define SYS_landlock_restrict_self 446
#endif

struct rules {
    uint64_t files;
    uint64_t ports;
    uint64_t scopes;
};

struct path_rule {
    uint64_t access;
    int32_t directory;
} __attribute__((packed));

struct port_rule {
    uint64_t access;
    uint64_t port;
};

enum { CREATE_VERSION = 1, RULE_PATH = 1, RULE_PORT = 2, PORT_BIND = 1, PORT_CONNECT = 2, SCOPE_ALL = 3 };

// LANDLOCK_ACCESS_FS_*
enum {
    EXECUTE = 1 << 0,
    WRITE_FILE = 1 << 1,
    READ_FILE = 1 << 2,
    READ_DIR = 1 << 3,
    REMOVE_DIR = 1 << 4,
    REMOVE_FILE = 1 << 5,
    MAKE_REG = 1 << 8,
    MAKE_DIR = 1 << 7,
    MAKE_SOCK = 1 << 9,
    REFER = 1 << 13,
    TRUNCATE = 1 << 14,
    IOCTL_DEV = 1 << 15,
    OF_VERSION_1 = (1 << 13) - 1,
    OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV,
};

static uint64_t known(int version) {
    uint64_t access = OF_VERSION_1;
    if (version >= 2) access |= REFER;
    if (version >= 3) access |= TRUNCATE;
    if (version >= 5) access |= IOCTL_DEV;
    return access;
}

int weir_landlock_version(void) {
    long version = syscall(SYS_landlock_create_ruleset, NULL, 0, CREATE_VERSION);
    return version > 0 ? (int)version : -errno;
}

int weir_landlock_create(int version, int scope) {
    struct rules rules = {.files = known(version)};
    size_t size = sizeof rules.files;
    if (version >= 4) {
        rules.ports = PORT_BIND | PORT_CONNECT;
        size = offsetof(struct rules, scopes);
    }
    if (version >= 6 && scope) {
        rules.scopes = SCOPE_ALL;
        size = sizeof rules;
    }
    long descriptor = syscall(SYS_landlock_create_ruleset, &rules, size, 0);
    return descriptor >= 0 ? (int)descriptor : -errno;
}

int weir_landlock_allow_path(int rules, int version, const char *path, unsigned access) {
    struct path_rule rule = {.access = 0, .directory = open(path, O_PATH | O_CLOEXEC)};
    if (rule.directory < 0) return errno;
    struct stat status;
    int error = fstat(rule.directory, &status) == 0 ? 0 : errno;
    if (error == 0) {
        if (access & WEIR_READ) rule.access |= READ_FILE | READ_DIR;
        if (access & WEIR_WRITE)
            rule.access |= WRITE_FILE | TRUNCATE | MAKE_REG | MAKE_DIR | REMOVE_FILE | REMOVE_DIR | REFER;
        if (access & WEIR_SOCKETS) rule.access |= MAKE_SOCK | REMOVE_FILE;
        rule.access &= known(version);
        if (!S_ISDIR(status.st_mode)) rule.access &= OF_FILES;
        if (rule.access != 0 && syscall(SYS_landlock_add_rule, rules, RULE_PATH, &rule, 0) != 0) error = errno;
    }
    close(rule.directory);
    return error;
}

int weir_identify(const char *path, struct weir_identity *identity) {
    struct stat status;
    if (stat(path, &status) != 0) return errno;
    *identity = (struct weir_identity){.device = status.st_dev, .inode = status.st_ino};
    return 0;
}

static int allow_port(int rules, int version, uint16_t port, uint64_t access) {
    struct port_rule rule = {.access = access, .port = port};
    if (version < 4) return 0;
    return syscall(SYS_landlock_add_rule, rules, RULE_PORT, &rule, 0) == 0 ? 0 : errno;
}

int weir_landlock_allow_bind(int rules, int version, uint16_t port) {
    return allow_port(rules, version, port, PORT_BIND);
}

int weir_landlock_allow_connect(int rules, int version, uint16_t port) {
    return allow_port(rules, version, port, PORT_CONNECT);
}

int weir_landlock_restrict(int rules) {
    int error = syscall(SYS_landlock_restrict_self, rules, 0) == 0 ? 0 : errno;
    close(rules);
    return error;
}
