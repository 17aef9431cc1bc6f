// SPDX-License-Identifier: Apache-2.0
#ifndef WEIR_PREFETCH_H
#define WEIR_PREFETCH_H

/// Prefetches the cache line at `address` for writing, without waiting. The address need not be mapped.
static inline void weir_prefetch(const void *address) { __builtin_prefetch(address, 1, 3); }

#endif
