// SPDX-License-Identifier: Apache-2.0
#include <hiredis/async.h>
#include <hiredis/hiredis.h>
#include <sys/socket.h>

/// The message of an error.
static inline const char *weir_error(const redisContext *context) { return context->errstr; }

/// Whether bytes can be read from a socket. False at its end.
static inline int weir_has_input(int socket) {
    char byte;
    return recv(socket, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

// The type of an array's length changed with 1.0.
#if HIREDIS_MAJOR >= 1
typedef size_t weir_length;
#else
typedef int weir_length;
#endif

typedef struct {
    redisReplyObjectFunctions functions;
    void *(*create_array)(const redisReadTask *, weir_length);
    weir_length most;
} weir_bound;

/// In a function, because Swift emits no variables of headers. Each thread has its own.
static inline weir_bound *weir_shared_bound(void) {
    static _Thread_local weir_bound bound;
    return &bound;
}

enum { weir_most_depth = 7 };

static inline void *weir_create_bounded_array(const redisReadTask *task, weir_length length) {
    const weir_bound *bound = weir_shared_bound();
    int depth = 1;
    for (const redisReadTask *outer = task->parent; outer && depth <= weir_most_depth; outer = outer->parent) depth++;
    return depth > weir_most_depth || length > bound->most ? NULL : bound->create_array(task, length);
}

/// Makes the reader fail at an array of more than `most` elements, before it takes memory for them, and at arrays in
/// more than seven levels, as before 1.0: hiredis frees a reply by recursion. All calls must have the same `most`. Only
/// this thread may use the reader.
static inline void weir_bound_arrays(redisReader *reader, long most) {
    weir_bound *bound = weir_shared_bound();
    bound->functions = *reader->fn;
    bound->create_array = reader->fn->createArray;
    bound->functions.createArray = weir_create_bounded_array;
    bound->most = (weir_length)most;
    reader->fn = &bound->functions;
}
