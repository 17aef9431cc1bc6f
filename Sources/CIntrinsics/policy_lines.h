// SPDX-License-Identifier: Apache-2.0
#ifndef WEIR_POLICY_LINES_H
#define WEIR_POLICY_LINES_H

#include "byte_scan.h"

/// The name of an attribute with its `=`; what it does not fill is ignored.
typedef struct {
    unsigned long long words[4];
} weir_name;

/// Where the first newline or NUL of `text` is; `count` where there is none.
static inline size_t weir_policy_line_end(const unsigned char *text, size_t count) {
    size_t start = 0;
    for (; count - start >= sizeof(weir_bytes); start += sizeof(weir_bytes)) {
        weir_bytes line = weir_load(text + start);
        unsigned bits = WEIR_BITS((line == '\n') | (line == '\0'));
        if (bits) return start + (size_t)__builtin_ctz(bits);
    }
    for (; start < count; start++) {
        if (text[start] == '\n' || text[start] == '\0') break;
    }
    return start;
}

/// The length of the line at the start of `text`, if that is the attribute whose name are the first `length` bytes of
/// `name`, at least one and fewer than its size; 0 where it is another, has no end within `count` bytes, or a NUL.
static inline size_t weir_policy_line(const void *text, size_t count, const weir_name *name, size_t length) {
    const unsigned char *bytes = (const unsigned char *)text, *wanted = (const unsigned char *)name->words;
    size_t end;
    if (count >= sizeof *name) {
        weir_bytes low = weir_load(bytes), high = weir_load(bytes + 16);
        unsigned same = WEIR_BITS(low == weir_load(wanted)) | WEIR_BITS(high == weir_load(wanted + 16)) << 16;
        unsigned value = ~0u << length;
        if ((same | value) != ~0u) return 0;
        unsigned ends = WEIR_BITS((low == '\n') | (low == '\0')) | WEIR_BITS((high == '\n') | (high == '\0')) << 16;
        if (ends & value) {
            end = (size_t)__builtin_ctz(ends & value);
        } else {
            end = sizeof *name + weir_policy_line_end(bytes + sizeof *name, count - sizeof *name);
        }
    } else {
        if (count < length || __builtin_memcmp(bytes, wanted, length) != 0) return 0;
        end = length + weir_policy_line_end(bytes + length, count - length);
    }
    return end < count && bytes[end] == '\n' ? end : 0;
}

#endif
