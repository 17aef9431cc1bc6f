// SPDX-License-Identifier: Apache-2.0
#ifndef WEIR_PREFETCH_H
#define WEIR_PREFETCH_H

/// Asks the processor to bring a cache line near, and waits for nothing. Any address will do, also one that is not
/// mapped.
static inline void weir_prefetch(const void *address) { __builtin_prefetch(address, 1, 3); }

#endif
