// SPDX-License-Identifier: Apache-2.0
// For Tests/sanitize. ThreadSanitizer does not see what the libraries of Swift order, since they are not instrumented:
// - a Mutex for which two threads compete. Where they do not, the lock is taken by code that it sees.
// - a continuation that is resumed before its task waits for it.
// These functions are linked in front of theirs (--wrap), and tell it. Without them, each of these is reported as a race.
#include <stdbool.h>
#include <stdint.h>

#define MUTEX "$s15Synchronization12_MutexHandleV"
#define LOCK MUTEX "9_lockSlowyys6UInt32VF"
#define TRY_LOCK MUTEX "12_tryLockSlowSbyF"
#define UNLOCK MUTEX "11_unlockSlowyyF"
// Swift passes self, the address of the lock, in a register of its own. A program without any Mutex lacks the functions.
#define SWIFT __attribute__((swiftcall))
#define REAL SWIFT __attribute__((weak))
#define SELF __attribute__((swift_context)) void *

void __tsan_acquire(void *address);
void __tsan_release(void *address);

// In swift_continuation_await, the present task is the one that was resumed.
#define ASYNC __attribute__((swiftasynccall))
void *swift_task_getCurrent(void) __attribute__((swiftcall, weak));
REAL void __real_swift_continuation_resume(void *task);
REAL void __real_swift_continuation_throwingResume(void *task);
REAL void __real_swift_continuation_throwingResumeWithError(void *task, void *error);
ASYNC __attribute__((weak)) void __real_swift_continuation_await(void *context);

SWIFT void __wrap_swift_continuation_resume(void *task) {
    __tsan_release(task);
    __real_swift_continuation_resume(task);
}

SWIFT void __wrap_swift_continuation_throwingResume(void *task) {
    __tsan_release(task);
    __real_swift_continuation_throwingResume(task);
}

SWIFT void __wrap_swift_continuation_throwingResumeWithError(void *task, void *error) {
    __tsan_release(task);
    __real_swift_continuation_throwingResumeWithError(task, error);
}

ASYNC void __wrap_swift_continuation_await(void *context) {
    __tsan_acquire(swift_task_getCurrent());
    __attribute__((musttail)) return __real_swift_continuation_await(context);
}

REAL void real_lock(uint32_t thread, SELF handle) __asm__("__real_" LOCK);
REAL bool real_try_lock(SELF handle) __asm__("__real_" TRY_LOCK);
REAL void real_unlock(SELF handle) __asm__("__real_" UNLOCK);
SWIFT void lock(uint32_t thread, SELF handle) __asm__("__wrap_" LOCK);
SWIFT bool try_lock(SELF handle) __asm__("__wrap_" TRY_LOCK);
SWIFT void unlock(SELF handle) __asm__("__wrap_" UNLOCK);

SWIFT void lock(uint32_t thread, SELF handle) {
    real_lock(thread, handle);
    __tsan_acquire(handle);
}

SWIFT bool try_lock(SELF handle) {
    bool isTaken = real_try_lock(handle);
    if (isTaken) __tsan_acquire(handle);
    return isTaken;
}

SWIFT void unlock(SELF handle) {
    __tsan_release(handle);
    real_unlock(handle);
}
