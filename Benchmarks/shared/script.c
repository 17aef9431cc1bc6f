// SPDX-License-Identifier: Apache-2.0
// A policy server as a script would be, but in C: it counts each sender in Redis with INCR and EXPIRE, and waits for the
// answer. It is there to be measured beside Weir.
//   script PORT REDIS_PORT LIMIT SECONDS
#include <arpa/inet.h>
#include <hiredis/hiredis.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MOST_FILES = 4096, SIZE = 4096 };

static struct {
    char bytes[SIZE];
    size_t length;
} inputs[MOST_FILES];

static void fail(const char *what) {
    perror(what);
    exit(1);
}

// How often the sender of a request has been counted in its window.
static long long count(redisContext *redis, const char *request, long window) {
    const char *sender = strstr(request, "\nsender=");
    if (sender == NULL) return 0;
    sender += strlen("\nsender=");
    int length = (int)strcspn(sender, "\n");
    redisAppendCommand(redis, "INCR rate:%b", sender, (size_t)length);
    redisAppendCommand(redis, "EXPIRE rate:%b %ld NX", sender, (size_t)length, window);
    long long counted = 0;
    for (int reply = 0; reply < 2; reply++) {
        redisReply *answer = NULL;
        if (redisGetReply(redis, (void **)&answer) != REDIS_OK || answer == NULL) fail("redis");
        if (reply == 0) counted = answer->integer;
        freeReplyObject(answer);
    }
    return counted;
}

// Answers all complete requests of a connection; 0 at its end.
static int serve(int file, redisContext *redis, long limit, long window) {
    char *bytes = inputs[file].bytes;
    ssize_t received = read(file, bytes + inputs[file].length, SIZE - 1 - inputs[file].length);
    if (received <= 0) return 0;
    inputs[file].length += (size_t)received;
    bytes[inputs[file].length] = 0;
    char *end;
    while ((end = strstr(bytes, "\n\n")) != NULL) {
        end[1] = 0;
        const char *answer = count(redis, bytes, window) > limit ? "action=DEFER later\n\n" : "action=DUNNO\n\n";
        if (write(file, answer, strlen(answer)) < 0) return 0;
        inputs[file].length -= (size_t)(end + 2 - bytes);
        memmove(bytes, end + 2, inputs[file].length + 1);
    }
    return inputs[file].length < SIZE - 1;
}

int main(int argc, char **argv) {
    if (argc != 5) return 64;
    redisContext *redis = redisConnect("127.0.0.1", atoi(argv[2]));
    if (redis == NULL || redis->err) fail("redis");
    int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0), poll = epoll_create1(0);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 1024)) fail("listen");
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[256];
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int ready = epoll_wait(poll, events, 256, -1);
        for (int i = 0; i < ready; i++) {
            int file = events[i].data.fd;
            if (file == listener) {
                int client = accept(listener, NULL, NULL);
                if (client < 0 || client >= MOST_FILES) continue;
                setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                inputs[client].length = 0;
                event.data.fd = client;
                epoll_ctl(poll, EPOLL_CTL_ADD, client, &event);
            } else if (!serve(file, redis, atol(argv[3]), atol(argv[4]))) {
                close(file);
            }
        }
    }
}
