// SPDX-License-Identifier: Apache-2.0
#ifndef WEIR_TEXT_SCAN_H
#define WEIR_TEXT_SCAN_H

#include "byte_scan.h"

/// How many bytes of a text were read and written, and how many carriage returns were left out.
typedef struct {
    size_t read, written, returns;
} weir_copied;

/// Masks of 64 bytes. `others` is what is neither printable ASCII nor a line end.
typedef struct {
    unsigned long long newlines, carriages, others;
} weir_text_marks;

static inline weir_text_marks weir_mark_text(const unsigned char *bytes) {
    weir_text_marks marks = {0, 0, 0};
    for (int part = 0; part < 4; part++) {
        weir_bytes block = weir_load(bytes + 16 * part);
        marks.newlines |= (unsigned long long)WEIR_BITS(block == '\n') << 16 * part;
        marks.carriages |= (unsigned long long)WEIR_BITS(block == '\r') << 16 * part;
        marks.others |= (unsigned long long)WEIR_BITS(block - ' ' > '~' - ' ') << 16 * part;
    }
    marks.others &= ~(marks.newlines | marks.carriages);
    return marks;
}

/// Copies the whole lines of printable ASCII at the start of `text`, each with one newline at its end, and without
/// empty lines. Looks at blocks of 64 bytes, so the rest may begin with more of them. Stops before a line of more than
/// `longest` bytes. `output` needs room for `count` bytes and 64 more.
#define WEIR_COPY_LINES(mark) \
    weir_copied copied = {0, 0, 0}; \
    /* Whether the last byte of the previous block was a carriage return. */ \
    unsigned long long open = 0; \
    for (size_t start = 0; count - start >= 64; start += 64) { \
        weir_text_marks marks = mark(text + start); \
        unsigned long long due = marks.carriages << 1 | open; \
        if (marks.others || (due & ~marks.newlines)) break; \
        open = marks.carriages >> 63; \
        for (unsigned long long left = marks.newlines; left; left &= left - 1) { \
            size_t end = start + (size_t)__builtin_ctzll(left), length = end - copied.read; \
            _Bool returns = length > 0 && text[end - 1] == '\r'; \
            length -= returns; \
            if (length > longest) return copied; \
            const unsigned char *line = text + copied.read; \
            unsigned char *output_line = output + copied.written; \
            /* Copies of 32 bytes are quickest, but must not read beyond the text. */ \
            if (count - copied.read >= length + 32) { \
                for (size_t done = 0; done < length; done += 32) { \
                    __builtin_memcpy(output_line + done, line + done, 32); \
                } \
            } else { \
                __builtin_memcpy(output_line, line, length); \
            } \
            output_line[length] = '\n'; \
            copied.written += length > 0 ? length + 1 : 0; \
            copied.returns += returns; \
            copied.read = end + 1; \
        } \
    } \
    return copied;

static inline weir_copied weir_copy_lines_16(
    const unsigned char *text, size_t count, unsigned char *output, size_t longest) {
    WEIR_COPY_LINES(weir_mark_text)
}

#define WEIR_HTML_STOPS(block) ((block == '<') | (block == '&') | (block < ' '))

/// Some text, and whether it is printable ASCII.
typedef struct {
    size_t length;
    _Bool is_ascii;
} weir_run;

/// The bytes at the start of HTML that neither begin a tag or a reference nor are white space to be collapsed: blanks
/// that follow each other, and control characters.
static inline weir_run weir_html_text(const unsigned char *text, size_t count) {
    size_t start = 0;
    // Whether the byte before was a blank, and whether any byte was not printable.
    unsigned blank = 0, others = 0;
    for (; count - start >= sizeof(weir_bytes); start += sizeof(weir_bytes)) {
        weir_bytes block = weir_load(text + start);
        unsigned blanks = WEIR_BITS(block == ' ');
        unsigned bits = WEIR_BITS(WEIR_HTML_STOPS(block)) | (blanks & (blanks << 1 | blank));
        unsigned other = WEIR_BITS(block > '~');
        if (bits) {
            weir_run run = {start + (size_t)__builtin_ctz(bits), !(others | (other & (bits - 1) & ~bits))};
            return run;
        }
        blank = blanks >> 15;
        others |= other;
    }
    for (; start < count; start++) {
        unsigned char byte = text[start];
        if (WEIR_HTML_STOPS(byte) || (byte == ' ' && blank)) break;
        blank = byte == ' ';
        others |= byte > '~';
    }
    weir_run run = {start, !others};
    return run;
}

#if defined(__x86_64__)
static inline WEIR_AVX2 weir_text_marks weir_mark_text_64(const unsigned char *bytes) {
    __m256i low = _mm256_loadu_si256((const __m256i *)bytes), high = _mm256_loadu_si256((const __m256i *)(bytes + 32));
    weir_text_marks marks = {weir_mark_32(low, high, '\n'), weir_mark_32(low, high, '\r'), 0};
    // As signed numbers, bytes beyond ASCII are below the blank.
    __m256i before = _mm256_set1_epi8(' '), last = _mm256_set1_epi8('~');
    __m256i others_low = _mm256_or_si256(_mm256_cmpgt_epi8(before, low), _mm256_cmpgt_epi8(low, last));
    __m256i others_high = _mm256_or_si256(_mm256_cmpgt_epi8(before, high), _mm256_cmpgt_epi8(high, last));
    marks.others = ((unsigned)_mm256_movemask_epi8(others_low)
        | (unsigned long long)(unsigned)_mm256_movemask_epi8(others_high) << 32) & ~(marks.newlines | marks.carriages);
    return marks;
}

static WEIR_AVX2 weir_copied weir_copy_lines_32(
    const unsigned char *text, size_t count, unsigned char *output, size_t longest) {
    WEIR_COPY_LINES(weir_mark_text_64)
}

typedef unsigned char weir_bytes_32 __attribute__((vector_size(32)));
typedef unsigned weir_words_32 __attribute__((vector_size(32)));

/// Decodes base64 in blocks of 32 characters. Skips line ends between groups of four characters, and stops before
/// a group that has anything else. `output` needs room for three quarters of `count` bytes and 32 more.
static WEIR_AVX2 weir_copied weir_base64_32(const unsigned char *text, size_t count, unsigned char *output) {
    weir_copied copied = {0, 0, 0};
    while (count - copied.read >= 32) {
        weir_bytes_32 block;
        __builtin_memcpy(&block, text + copied.read, sizeof block);
        weir_bytes_32 upper = (weir_bytes_32)(block - 'A' < 26), lower = (weir_bytes_32)(block - 'a' < 26);
        weir_bytes_32 digit = (weir_bytes_32)(block - '0' < 10);
        weir_bytes_32 plus = (weir_bytes_32)(block == '+'), slash = (weir_bytes_32)(block == '/');
        weir_bytes_32 known = upper | lower | digit | plus | slash;
        unsigned others = ~(unsigned)_mm256_movemask_epi8((__m256i)known);
        weir_bytes_32 values = (upper & (block - 'A')) | (lower & (block - ('a' - 26)))
            | (digit & (block + (52 - '0'))) | (plus & 62) | (slash & 63);
        // The first character of each four is the lowest byte of a word.
        weir_words_32 words = (weir_words_32)values;
        weir_words_32 first = (words << 2 & 0xfc) | (words >> 12 & 0x3);
        weir_words_32 second = (words << 4 & 0xf000) | (words >> 10 & 0xf00);
        weir_words_32 third = (words << 6 & 0xc00000) | (words >> 8 & 0x3f0000);
        weir_bytes_32 groups = (weir_bytes_32)(first | second | third);
        weir_bytes low = __builtin_shufflevector(groups, groups, 0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 3, 7, 11, 15);
        weir_bytes high = __builtin_shufflevector(
            groups, groups, 16, 17, 18, 20, 21, 22, 24, 25, 26, 28, 29, 30, 19, 23, 27, 31);
        __builtin_memcpy(output + copied.written, &low, sizeof low);
        __builtin_memcpy(output + copied.written + 12, &high, sizeof high);
        if (!others) {
            copied.written += 24;
            copied.read += 32;
            continue;
        }
        size_t whole = (size_t)__builtin_ctz(others) & ~(size_t)3;
        copied.written += whole / 4 * 3;
        copied.read += whole;
        size_t line_end = text[copied.read] == '\r' ? 1 : 0;
        if (text[copied.read + line_end] != '\n') break;
        copied.read += line_end + 1;
    }
    return copied;
}

static inline weir_copied weir_copy_lines(
    const unsigned char *text, size_t count, unsigned char *output, size_t longest) {
    return WEIR_HAS_AVX2
        ? weir_copy_lines_32(text, count, output, longest) : weir_copy_lines_16(text, count, output, longest);
}

static inline weir_copied weir_base64(const unsigned char *text, size_t count, unsigned char *output) {
    weir_copied none = {0, 0, 0};
    return WEIR_HAS_AVX2 ? weir_base64_32(text, count, output) : none;
}
#else
static inline weir_copied weir_copy_lines(
    const unsigned char *text, size_t count, unsigned char *output, size_t longest) {
    return weir_copy_lines_16(text, count, output, longest);
}

static inline weir_copied weir_base64(const unsigned char *text, size_t count, unsigned char *output) {
    weir_copied none = {0, 0, 0};
    return none;
}
#endif

#endif
