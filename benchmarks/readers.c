/* The readers of the benchmarks: the same program, at the same cost, for zeventfs and every floor.
 *
 *   readers count PATH SIZE            read without blocking until EAGAIN: "BYTES LINES\n"
 *   readers drain PATH SIZE BYTES      read that many bytes: "BYTES NANOSECONDS\n"
 *   readers wake PATH SIZE COUNT ROUNDS
 *       COUNT threads, each blocked in read(2) on an open of its own ("-": standard input). "ready\n",
 *       then for each round, when the last thread has its answer, "FIRST LAST FAILED LENGTH\n" (the
 *       first and the last thread's CLOCK_REALTIME in ns right after its read returned) and
 *       LENGTH bytes: what the first thread read.
 *   readers follow SIZE PATH...
 *       a thread for each PATH, which reads on and on. "ready\n", then, once standard input is at its
 *       end, for each PATH "LINES FIRST LAST\n" (the first and the last line's seq), and for all lines
 *       together "P50 P99 MOST\n": ns (CLOCK_REALTIME) from a line's own "time" to the moment after
 *       the read(2) that gave it returned.
 *
 * What is there to read when a waking reader opens is read first, where O_NONBLOCK means anything
 * (SETTLE in the environment), so that the first round is a blocked read as all others.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

struct reader {
    int fd;
    ssize_t length;
    uint64_t woken; /* ns */
    char *answer;
};

static struct reader *readers;
static size_t size;
static long count, rounds;
static atomic_long started, answered;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static uint64_t now(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static char *buffer(void)
{
    char *memory = aligned_alloc(4096, (size + 4095) / 4096 * 4096);
    if (!memory)
        die("aligned_alloc");
    memset(memory, 0, size); /* no page faults while it is timed */
    return memory;
}

static int count_all(const char *path)
{
    char *memory = buffer();
    uint64_t bytes = 0, lines = 0;
    ssize_t n;
    int fd = open(path, O_RDONLY | O_NONBLOCK);
    if (fd < 0)
        die(path);
    while ((n = read(fd, memory, size)) > 0) {
        bytes += (uint64_t)n;
        for (char *at = memory; (at = memchr(at, '\n', (size_t)(memory + n - at))); at++)
            lines++;
    }
    if (n < 0 && errno != EAGAIN)
        die("read");
    printf("%llu %llu\n", (unsigned long long)bytes, (unsigned long long)lines);
    return 0;
}

static int drain(const char *path, uint64_t bytes)
{
    char *memory = buffer();
    uint64_t got = 0;
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        die(path);
    uint64_t begin = now(CLOCK_MONOTONIC);
    while (got < bytes) {
        ssize_t n = read(fd, memory, size);
        if (n <= 0)
            die("read");
        got += (uint64_t)n;
    }
    printf("%llu %llu\n", (unsigned long long)got,
           (unsigned long long)(now(CLOCK_MONOTONIC) - begin));
    return 0;
}

static void report(void)
{
    uint64_t first = UINT64_MAX, last = 0;
    long failed = 0;
    for (long i = 0; i < count; i++) {
        first = readers[i].woken < first ? readers[i].woken : first;
        last = readers[i].woken > last ? readers[i].woken : last;
        failed += readers[i].length <= 0;
    }
    ssize_t length = readers[0].length > 0 ? readers[0].length : 0;
    printf("%llu %llu %ld %zd\n", (unsigned long long)first, (unsigned long long)last, failed,
           length);
    fwrite(readers[0].answer, 1, (size_t)length, stdout);
    fflush(stdout);
}

static void *wait_and_read(void *argument)
{
    struct reader *self = argument;
    atomic_fetch_add(&started, 1);
    for (long round = 0; round < rounds; round++) {
        self->length = read(self->fd, self->answer, size);
        self->woken = now(CLOCK_REALTIME);
        if (atomic_fetch_add(&answered, 1) + 1 == count * (round + 1))
            report();
    }
    return NULL;
}

static int open_settled(const char *path, char *memory)
{
    int settle = getenv("SETTLE") != NULL;
    int fd = open(path, O_RDONLY | (settle ? O_NONBLOCK : 0));
    if (fd < 0)
        die(path);
    if (settle) {
        while (read(fd, memory, size) > 0)
            ;
        if (errno != EAGAIN || fcntl(fd, F_SETFL, 0) < 0)
            die("settle");
    }
    return fd;
}

static int wake(const char *path)
{
    struct rlimit files = {(rlim_t)count + 64, (rlim_t)count + 64};
    pthread_attr_t attributes;
    pthread_t *threads = calloc((size_t)count, sizeof *threads);
    readers = calloc((size_t)count, sizeof *readers);
    if (!threads || !readers)
        die("calloc");
    if (setrlimit(RLIMIT_NOFILE, &files) < 0 && count > 512)
        die("setrlimit");
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 65536);
    for (long i = 0; i < count; i++) {
        readers[i].answer = buffer();
        readers[i].fd = strcmp(path, "-") ? open_settled(path, readers[i].answer) : 0;
    }
    for (long i = 0; i < count; i++)
        if ((errno = pthread_create(&threads[i], &attributes, wait_and_read, &readers[i])))
            die("pthread_create");
    while (atomic_load(&started) < count)
        usleep(1000);
    printf("ready\n");
    fflush(stdout);
    for (long i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    return 0;
}

struct follower {
    int fd;
    uint64_t lines, first, last, room;
    uint64_t *lags; /* ns */
};

/* What follows *key* in *line*. */
static const char *after(const char *line, size_t length, const char *key)
{
    const char *at = memmem(line, length, key, strlen(key));
    if (!at) {
        fprintf(stderr, "no %s in: %.*s\n", key, (int)length, line);
        exit(1);
    }
    return at + strlen(key);
}

/* ns since 1970 of "YYYY-MM-DDTHH:MM:SS.nnnnnnnnnZ" */
static uint64_t time_of(const char *text)
{
    struct tm t = {0};
    int digits = 0;
    uint64_t ns = 0;
    text = strptime(text, "%Y-%m-%dT%H:%M:%S", &t);
    if (text && *text == '.')
        for (text++; *text >= '0' && *text <= '9' && digits < 9; digits++)
            ns = ns * 10 + (uint64_t)(*text++ - '0');
    for (; digits < 9; digits++)
        ns *= 10;
    return (uint64_t)timegm(&t) * 1000000000u + ns;
}

static void take(struct follower *self, const char *line, size_t length, uint64_t read_at)
{
    uint64_t posted = time_of(after(line, length, "\"time\":\""));
    if (self->lines == self->room) {
        self->room = self->room ? self->room * 2 : 1024;
        if (!(self->lags = realloc(self->lags, self->room * sizeof *self->lags)))
            die("realloc");
    }
    self->lags[self->lines] = read_at > posted ? read_at - posted : 0;
    self->last = strtoull(after(line, length, "\"seq\":"), NULL, 10);
    if (!self->lines++)
        self->first = self->last;
}

static void *follow_one(void *argument)
{
    struct follower *self = argument;
    char *memory = buffer();
    ssize_t n;
    atomic_fetch_add(&started, 1);
    while ((n = read(self->fd, memory, size)) > 0) { /* whole lines: the buffer is larger than one */
        uint64_t read_at = now(CLOCK_REALTIME);
        for (char *line = memory, *end; (end = memchr(line, '\n', (size_t)(memory + n - line)));
             line = end + 1)
            take(self, line, (size_t)(end - line), read_at);
    }
    die("read");
    return NULL;
}

static int ascending(const void *one, const void *other)
{
    uint64_t a = *(const uint64_t *)one, b = *(const uint64_t *)other;
    return (a > b) - (a < b);
}

static int follow(char **paths, int number)
{
    struct follower *followers = calloc((size_t)number, sizeof *followers);
    uint64_t total = 0, *lags;
    char *memory = buffer(), byte;
    if (!followers)
        die("calloc");
    for (int i = 0; i < number; i++)
        followers[i].fd = open_settled(paths[i], memory);
    for (int i = 0; i < number; i++) {
        pthread_t thread;
        if ((errno = pthread_create(&thread, NULL, follow_one, &followers[i])))
            die("pthread_create");
    }
    while (atomic_load(&started) < number)
        usleep(1000);
    printf("ready\n");
    fflush(stdout);
    while (read(0, &byte, 1) > 0)
        ;
    for (int i = 0; i < number; i++) {
        printf("%llu %llu %llu\n", (unsigned long long)followers[i].lines,
               (unsigned long long)followers[i].first, (unsigned long long)followers[i].last);
        total += followers[i].lines;
    }
    lags = calloc(total + 1, sizeof *lags);
    if (!lags)
        die("calloc");
    for (int i = 0, at = 0; i < number; at += (int)followers[i++].lines)
        memcpy(lags + at, followers[i].lags, followers[i].lines * sizeof *lags);
    qsort(lags, total, sizeof *lags, ascending);
    printf("%llu %llu %llu\n", (unsigned long long)lags[total / 2],
           (unsigned long long)lags[total * 99 / 100],
           (unsigned long long)lags[total ? total - 1 : 0]);
    fflush(stdout);
    _exit(0); /* whoever is still blocked is interrupted */
}

int main(int argc, char **argv)
{
    if (argc < 4)
        return 2;
    if (!strcmp(argv[1], "follow")) {
        size = strtoul(argv[2], NULL, 10);
        return follow(argv + 3, argc - 3);
    }
    size = strtoul(argv[3], NULL, 10);
    if (!strcmp(argv[1], "count"))
        return count_all(argv[2]);
    if (!strcmp(argv[1], "drain") && argc == 5)
        return drain(argv[2], strtoull(argv[4], NULL, 10));
    if (!strcmp(argv[1], "wake") && argc == 6) {
        count = strtol(argv[4], NULL, 10);
        rounds = strtol(argv[5], NULL, 10);
        return wake(argv[2]);
    }
    return 2;
}
