/* SPDX-License-Identifier: Apache-2.0
 *
 * The guest's end of tests over vsock: `connect PORT` says hello to the host and prints what comes
 * back, `echo PORT` gives one connection's bytes back.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

static int echo(int listener)
{
    char buf[65536];
    long total = 0;
    ssize_t n;
    int fd = accept(listener, NULL, NULL);
    while ((n = read(fd, buf, sizeof buf)) > 0) {
        for (ssize_t at = 0, w; at < n; at += w) {
            w = write(fd, buf + at, (size_t)(n - at));
            if (w <= 0) {
                perror("write");
                return 1;
            }
        }
        total += n;
    }
    printf("echoed %ld\n", total);
    return 0;
}

int main(int argc, char **argv)
{
    struct sockaddr_vm a = { .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST };
    char buf[4096];
    ssize_t n;
    int fd = socket(AF_VSOCK, SOCK_STREAM, 0);
    if (fd < 0 || argc != 3) {
        perror("vsock");
        return 1;
    }
    a.svm_port = (unsigned)atoi(argv[2]);
    if (strcmp(argv[1], "echo") == 0) {
        a.svm_cid = VMADDR_CID_ANY;
        if (bind(fd, (const struct sockaddr *)&a, sizeof a) < 0 || listen(fd, 1) < 0) {
            perror("listen");
            return 1;
        }
        return echo(fd);
    }
    if (connect(fd, (const struct sockaddr *)&a, sizeof a) < 0) {
        perror("connect");
        return 1;
    }
    if (write(fd, "from the guest\n", 15) != 15 || shutdown(fd, SHUT_WR) < 0) {
        return 1;
    }
    while ((n = read(fd, buf, sizeof buf)) > 0) {
        fwrite(buf, 1, (size_t)n, stdout);
    }
    return 0;
}
