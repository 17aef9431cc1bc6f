// SPDX-License-Identifier: Apache-2.0
#ifndef WEIR_LINE_BREAK_H
#define WEIR_LINE_BREAK_H

#include <stddef.h>

typedef unsigned char weir_bytes __attribute__((vector_size(16)));
typedef _Bool weir_bits __attribute__((ext_vector_type(16)));

/// A bit for each of the sixteen bytes at `text` that is a newline, a carriage return or a NUL.
static inline unsigned weir_line_breaks(const unsigned char *text) {
    weir_bytes bytes;
    __builtin_memcpy(&bytes, text, sizeof bytes);
    weir_bits found = __builtin_convertvector((bytes == '\n') | (bytes == '\r') | (bytes == '\0'), weir_bits);
    unsigned short bits;
    __builtin_memcpy(&bits, &found, sizeof bits);
    return bits;
}

/// Where the first newline, carriage return or NUL of `text` is; `count` where there is none.
static inline size_t weir_line_break(const void *text, size_t count) {
    const unsigned char *bytes = (const unsigned char *)text;
    size_t start = 0;
    for (; count - start >= sizeof(weir_bytes); start += sizeof(weir_bytes)) {
        unsigned bits = weir_line_breaks(bytes + start);
        if (bits) return start + (size_t)__builtin_ctz(bits);
    }
    for (; start < count; start++) {
        if (bytes[start] == '\n' || bytes[start] == '\r' || bytes[start] == '\0') break;
    }
    return start;
}

#endif
