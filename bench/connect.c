/* TCP connections one after the other: "connect server PORT" gives each a byte, "connect client ADDRESS PORT COUNT" prints the mean
 * nanoseconds of one, from connect to the byte. A connection ends by a reset, so that no port waits. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static int die(const char *what) { perror(what); exit(1); }

int main(int argc, char **argv) {
    int one = 1;
    struct sockaddr_in at = {.sin_family = AF_INET};
    struct linger hard = {.l_onoff = 1, .l_linger = 0};
    char byte = 1;
    if (argc < 3) die("arguments");
    if (strcmp(argv[1], "server") == 0) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        at.sin_port = htons(atoi(argv[2]));
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        if (bind(fd, (void *)&at, sizeof at) || listen(fd, 64)) die("bind");
        puts("ready");
        fflush(stdout);
        for (;;) {
            int client = accept(fd, NULL, NULL);
            if (client < 0) die("accept");
            if (write(client, &byte, 1) != 1) perror("write");
            close(client);
        }
    }
    struct timespec begun, ended;
    long count = atol(argv[4]);
    at.sin_port = htons(atoi(argv[3]));
    if (inet_pton(AF_INET, argv[2], &at.sin_addr) != 1) die("address");
    clock_gettime(CLOCK_MONOTONIC, &begun);
    for (long i = 0; i < count; i++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
        if (connect(fd, (void *)&at, sizeof at)) die("connect");
        if (read(fd, &byte, 1) != 1) die("read");
        close(fd);
    }
    clock_gettime(CLOCK_MONOTONIC, &ended);
    printf("%.1f\n", ((ended.tv_sec - begun.tv_sec) * 1e9 + (ended.tv_nsec - begun.tv_nsec)) / count);
    return 0;
}
