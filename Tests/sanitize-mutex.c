// SPDX-License-Identifier: Apache-2.0
// For Tests/sanitize. ThreadSanitizer sees how the lock of Swift's Mutex is taken, unless two threads compete for it:
// then functions of libswiftSynchronization take it, which is not instrumented. These here are linked in front of them
// (--wrap), and tell that the lock orders what its holders do. Without them, every such Mutex is reported as a race.
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
