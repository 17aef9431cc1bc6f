// SPDX-License-Identifier: Apache-2.0
#pragma once
/* Calls of malloc, calloc, realloc and the aligned ones in this process so far. */
unsigned long allocation_count(void);
