// SPDX-License-Identifier: Apache-2.0
// The filter of system calls (seccomp), see seccomp(2). It allows what a running service does, with what the C library
// and the runtimes of Swift may do beneath it; Tests/EndToEnd runs all of it with refusals that end the process.
#define _GNU_SOURCE
#include "CSandbox.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#endif

#ifdef ARCHITECTURE

enum {
    // Calls from this number on have the same number on all architectures. The first of them came with Linux 5.1.
    FIRST_NEW_CALL = 424,
    // listns(2) of Linux 6.18.
    LAST_CALL = 470,
};

/// The most frequent first: kernels before 5.11 run the program for each call. Later ones remember for each number that
/// it is always allowed.
static const int allowed[] = {
#ifdef SYS_epoll_wait
    SYS_epoll_wait,
#endif
    SYS_epoll_pwait, SYS_recvfrom, SYS_read, SYS_write, SYS_futex, SYS_pwrite64, SYS_pread64,
    SYS_clock_gettime, SYS_timerfd_settime, SYS_epoll_ctl, SYS_accept4, SYS_close, SYS_writev, SYS_readv,
    SYS_recvmsg, SYS_fdatasync, SYS_fcntl, SYS_munmap, SYS_madvise,
    // Files.
    SYS_openat, SYS_newfstatat, SYS_fstat, SYS_statx, SYS_faccessat, SYS_lseek, SYS_ftruncate, SYS_fallocate, SYS_fsync,
    SYS_flock, SYS_getdents64, SYS_unlinkat, SYS_mkdirat, SYS_renameat, SYS_renameat2, SYS_fchmod, SYS_fchmodat,
    SYS_fchown, SYS_fchownat, SYS_readlinkat, SYS_statfs, SYS_fstatfs, SYS_fadvise64, SYS_getcwd, SYS_umask,
#ifdef SYS_faccessat2
    SYS_faccessat2,
#endif
#ifdef SYS_open
    // Calls that newer architectures lack.
    SYS_open, SYS_stat, SYS_lstat, SYS_access, SYS_unlink, SYS_rmdir, SYS_mkdir, SYS_rename, SYS_chmod, SYS_chown,
    SYS_readlink, SYS_poll, SYS_select, SYS_dup2, SYS_pipe, SYS_epoll_create, SYS_alarm, SYS_time,
#endif
    // Sockets and events.
    SYS_connect, SYS_shutdown, SYS_socketpair, SYS_getsockname, SYS_getpeername, SYS_setsockopt,
    SYS_getsockopt, SYS_recvmmsg, SYS_ppoll, SYS_pselect6, SYS_dup, SYS_dup3, SYS_pipe2, SYS_eventfd2,
    SYS_timerfd_create, SYS_signalfd4, SYS_epoll_create1,
    // Memory, threads, signals.
    SYS_brk, SYS_mremap, SYS_mincore, SYS_membarrier, SYS_gettid, SYS_getpid, SYS_getppid, SYS_sched_yield,
    SYS_sched_getaffinity, SYS_sched_setaffinity, SYS_sched_setscheduler, SYS_sched_getscheduler, SYS_sched_getparam,
    SYS_sched_setparam, SYS_sched_getattr, SYS_sched_setattr, SYS_sched_get_priority_min, SYS_sched_get_priority_max,
    SYS_setpriority, SYS_getpriority, SYS_set_robust_list, SYS_get_robust_list, SYS_rt_sigprocmask, SYS_rt_sigaction,
    SYS_rt_sigreturn, SYS_rt_sigsuspend, SYS_rt_sigpending, SYS_rt_sigtimedwait, SYS_sigaltstack, SYS_restart_syscall,
    SYS_exit, SYS_exit_group, SYS_setitimer,
#ifdef SYS_rseq
    SYS_rseq,
#endif
    // Times, identity, the machine.
    SYS_clock_getres, SYS_clock_nanosleep, SYS_nanosleep, SYS_gettimeofday, SYS_getrandom, SYS_getuid, SYS_geteuid,
    SYS_getgid, SYS_getegid, SYS_uname, SYS_sysinfo, SYS_getcpu, SYS_getrusage, SYS_times,
};

static struct sock_filter code[BPF_MAXINSNS];
static unsigned length;

static void emit(unsigned short operation, unsigned value, unsigned char ifTrue, unsigned char ifFalse) {
    code[length++] = (struct sock_filter){.code = operation, .jt = ifTrue, .jf = ifFalse, .k = value};
}

static void answer(unsigned action) { emit(BPF_RET | BPF_K, action, 0, 0); }

static void allow(int call) {
    emit(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)call, 0, 1);
    answer(SECCOMP_RET_ALLOW);
}

/// Begins conditions for a call. The rest of the program sees other calls only.
static unsigned begin(int call) {
    emit(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)call, 0, 0);
    return length;
}

static void end(unsigned start) {
    answer(SECCOMP_RET_ALLOW);
    code[start - 1].jf = (unsigned char)(length - start);
}

/// The lower half of an argument, as a C `int`; both architectures are little-endian.
static void load(unsigned argument, unsigned mask) {
    emit(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args) + argument * sizeof(uint64_t), 0, 0);
    if (mask) emit(BPF_ALU | BPF_AND | BPF_K, mask, 0, 0);
}

static void require(unsigned argument, unsigned mask, const unsigned *values, unsigned count, unsigned otherwise) {
    load(argument, mask);
    for (unsigned index = 0; index < count; index++)
        emit(BPF_JMP | BPF_JEQ | BPF_K, values[index], (unsigned char)(count - index), 0);
    answer(otherwise);
}

#define REQUIRE(argument, mask, otherwise, ...) \
    require(argument, mask, (const unsigned[]){__VA_ARGS__}, sizeof((unsigned[]){__VA_ARGS__}) / sizeof(unsigned), \
            otherwise)

/// Data never becomes code: memory is not writable and executable, and mprotect(2) makes nothing executable. What the C
/// library loads is mapped from files.
static void allow_without_new_code(unsigned refusal) {
    unsigned start = begin(SYS_mmap);
    load(2, PROT_WRITE | PROT_EXEC);
    emit(BPF_JMP | BPF_JEQ | BPF_K, PROT_WRITE | PROT_EXEC, 0, 1);
    answer(refusal);
    end(start);
    start = begin(SYS_mprotect);
    REQUIRE(2, PROT_EXEC, refusal, 0);
    end(start);
}

/// Landlock checks connect(2), but not a connection that sending opens (TCP Fast Open), nor datagrams. Without sockets
/// of the Internet, sending needs no condition, which would cost some 40 ns per call.
static void allow_network(int connects, unsigned refusal) {
    static const int sending[] = {SYS_sendto, SYS_sendmsg, SYS_sendmmsg}, flags[] = {3, 2, 3};
    for (unsigned index = 0; index < sizeof sending / sizeof *sending; index++) {
        if (!connects) {
            allow(sending[index]);
            continue;
        }
        unsigned start = begin(sending[index]);
        REQUIRE(flags[index], MSG_FASTOPEN, refusal, 0);
        end(start);
    }
    unsigned start = begin(SYS_socket);
    // As if the kernel lacked them: the C library asks for netlink sockets, and does without.
    REQUIRE(0, 0, SECCOMP_RET_ERRNO | EAFNOSUPPORT, AF_UNIX, AF_INET, AF_INET6);
    REQUIRE(1, 0xf, refusal, SOCK_STREAM, SOCK_DGRAM);
    // Landlock does not see multipath TCP.
    REQUIRE(2, 0, refusal, 0, IPPROTO_TCP);
    if (connects) {
        // A stream, or a UNIX socket.
        load(1, 0xf);
        emit(BPF_JMP | BPF_JEQ | BPF_K, SOCK_STREAM, 3, 0);
    }
    REQUIRE(0, 0, refusal, AF_UNIX);
    end(start);
}

static void compile(int connects, unsigned refusal) {
    length = 0;
    emit(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch), 0, 0);
    emit(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 1, 0);
    answer(SECCOMP_RET_KILL_PROCESS);
    // Calls of the x32 interface have numbers that are not in the list.
    emit(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr), 0, 0);
    allow_network(connects, refusal);
    for (unsigned index = 0; index < sizeof allowed / sizeof *allowed; index++) allow(allowed[index]);
    allow_without_new_code(refusal);
    unsigned start = begin(SYS_clone);
    REQUIRE(0, CLONE_THREAD, refusal, CLONE_THREAD);
    end(start);
#ifdef SYS_clone3
    // A filter can't see its flags. The C library then uses clone(2).
    emit(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone3, 0, 1);
    answer(SECCOMP_RET_ERRNO | ENOSYS);
#endif
    start = begin(SYS_tgkill);
    REQUIRE(0, 0, refusal, (unsigned)getpid());
    end(start);
    start = begin(SYS_prlimit64);
    REQUIRE(0, 0, refusal, 0);
    end(start);
    start = begin(SYS_ioctl);
    REQUIRE(1, 0, refusal, TCGETS, FIONREAD, FIONBIO);
    end(start);
    start = begin(SYS_prctl);
    // PR_CAPBSET_READ is of libcap, which name services load when nsswitch.conf changes. The last one is PR_SET_VMA,
    // with which the C library names memory.
    REQUIRE(0, 0, refusal, PR_SET_NAME, PR_GET_NAME, PR_GET_NO_NEW_PRIVS, PR_GET_SECCOMP, PR_CAPBSET_READ, 0x53564d41);
    end(start);
    // A later C library may try later calls first, and then what it used before. It may do so with all signals blocked,
    // where a trap would end the process.
    emit(BPF_JMP | BPF_JGT | BPF_K, LAST_CALL, 0, 1);
    answer(SECCOMP_RET_ERRNO | ENOSYS);
    answer(refusal);
}

static int reports = -1;
static _Atomic unsigned char isReported[1024];

/// A refused call returns EPERM; a new one ENOSYS, as the C library and others then use an older one. Only functions
/// that are safe in signal handlers.
static void refuse(int number, siginfo_t *information, void *context) {
    int error = errno;
    ucontext_t *thread = context;
    int call = information->si_syscall;
    int answer = call >= FIRST_NEW_CALL ? -ENOSYS : -EPERM;
    (void)number;
#if defined(__x86_64__)
    struct weir_refused_call refused = {call, (unsigned)thread->uc_mcontext.gregs[REG_RDI]};
    thread->uc_mcontext.gregs[REG_RAX] = answer;
#else
    struct weir_refused_call refused = {call, (unsigned)thread->uc_mcontext.regs[0]};
    thread->uc_mcontext.regs[0] = (unsigned long long)(long long)answer;
#endif
    if (call < 0 || (size_t)call >= sizeof isReported || !atomic_exchange(&isReported[call], 1)) {
        if (write(reports, &refused, sizeof refused) < 0) errno = error;
    }
    errno = error;
}

int weir_filter_calls(int descriptor, int connects, int kills) {
    reports = descriptor;
    if (!kills) {
        struct sigaction action = {.sa_sigaction = refuse, .sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK};
        sigemptyset(&action.sa_mask);
        if (sigaction(SIGSYS, &action, NULL) != 0) return errno;
    }
    compile(connects, kills ? SECCOMP_RET_KILL_PROCESS : SECCOMP_RET_TRAP);
    struct sock_fprog program = {.len = (unsigned short)length, .filter = code};
    // Without SPEC_ALLOW, kernels before 5.16 make all memory accesses slower, for programs that run foreign code.
    unsigned flags = SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    long result = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
    // Otherwise, the id of a thread that can't take the filter.
    return result == 0 ? 0 : result < 0 ? errno : EBUSY;
}

int weir_has_call_filter(void) { return prctl(PR_GET_SECCOMP, 0, 0, 0, 0) == 2; }

#else

int weir_filter_calls(int descriptor, int connects, int kills) {
    (void)descriptor;
    (void)connects;
    (void)kills;
    return ENOSYS;
}

int weir_has_call_filter(void) { return 0; }

#endif
