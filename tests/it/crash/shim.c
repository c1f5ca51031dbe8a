/* A disk that fails, for the tests alone: loaded before libc (LD_PRELOAD), it fails chosen calls on chosen files.
 *
 * HALLPASS_TEST_FAULTS names a file with one rule a line: CALL PATTERN ERRNO AFTER EVERY. Of the calls of this name on files whose
 * last component fits the pattern, the first AFTER go well, then each EVERY-th fails. The file is read at each call, so that faults
 * begin and end under load. What failed is noted in FILE.hits. A write that fails has written some of what it was given.
 *
 * A sync that fails is believed to have lost what it was to write, as a kernel that marks the pages clean: the program, and whoever
 * reads the file after it, sees the bytes until the power fails. Which bytes of the write-ahead log that are is in FILE.lost, which of the
 * database in FILE.lost-database, which of a kept checkpoint in FILE.lost-head, as offset and length; the test writes zeros over them when it plays a power
 * failure. Bytes that are written and synced again are not lost. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#define RULES 16
#define RANGES 65536

typedef ssize_t call_pwrite(int, const void *, size_t, off_t);
typedef ssize_t call_write(int, const void *, size_t);
typedef int call_sync(int);
typedef int call_truncate(int, off_t);
typedef int call_rename(const char *, const char *);
typedef int call_unlink(const char *);
typedef int call_open(const char *, int, ...);

struct range { off_t from, to; };
struct list { int count; struct range range[RANGES]; };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char known[4096];
static long passed[RULES];

/* The write-ahead log's, the database's, and the kept checkpoint's. */
enum { LOG, DATABASE, HEAD, FILES, OTHER = FILES };
static struct list unsynced[FILES], lost[FILES];
static const char *const suffix[FILES] = {".lost", ".lost-database", ".lost-head"};
static int is_loaded;

#define REAL(name, type) static type *real; if (!real) real = (type *)dlsym(RTLD_NEXT, name)

static const char *control(const char *suffix, char *out, size_t len) {
    const char *path = getenv("HALLPASS_TEST_FAULTS");
    if (!path) return NULL;
    snprintf(out, len, "%s%s", path, suffix);
    return out;
}

static const char *base(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* The last component of what a descriptor is open on. */
static const char *name_of(int fd, char *out, size_t len) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t got = readlink(link, out, len - 1);
    out[got > 0 ? got : 0] = 0;
    return base(out);
}

static void note_hit(const char *call, const char *name) {
    char path[4096];
    FILE *hits = fopen(control(".hits", path, sizeof path), "a");
    if (!hits) return;
    fprintf(hits, "%s %s\n", call, name);
    fclose(hits);
}

/* The error that this call is to fail with; 0 if it is not. */
static int fault(const char *call, const char *name) {
    char path[4096], text[sizeof known] = "";
    int found = 0, before = errno;
    if (!control("", path, sizeof path)) return 0;
    pthread_mutex_lock(&lock);
    FILE *rules = fopen(path, "r");
    if (rules) {
        size_t got = fread(text, 1, sizeof text - 1, rules);
        text[got] = 0;
        fclose(rules);
    }
    if (strcmp(text, known)) {
        strcpy(known, text);
        memset(passed, 0, sizeof passed);
    }
    char *rest = NULL, *line = strtok_r(text, "\n", &rest);
    for (int n = 0; line && n < RULES; n++, line = strtok_r(NULL, "\n", &rest)) {
        char rule_call[32], pattern[256];
        int number;
        long after, every;
        if (sscanf(line, "%31s %255s %d %ld %ld", rule_call, pattern, &number, &after, &every) != 5) abort();
        if (found || strcmp(rule_call, call) || fnmatch(pattern, name, 0)) continue;
        long turn = passed[n]++ - after;
        if (turn >= 0 && turn % every == 0) found = number;
    }
    if (found) note_hit(call, name);
    pthread_mutex_unlock(&lock);
    errno = before;
    return found;
}

static void add(struct list *list, off_t from, off_t to) {
    if (from >= to) return;
    if (list->count == RANGES) abort();
    list->range[list->count++] = (struct range){from, to};
}

static void take(struct list *list, off_t from, off_t to) {
    struct list *kept = malloc(sizeof *kept);
    if (!kept) abort();
    kept->count = 0;
    for (int n = 0; n < list->count; n++) {
        struct range one = list->range[n];
        add(kept, one.from, one.to < from ? one.to : from);
        add(kept, one.from > to ? one.from : to, one.to);
    }
    memcpy(list, kept, sizeof(int) + sizeof(off_t) + sizeof(struct range) * (size_t)kept->count);
    free(kept);
}

static void save_lost(int of) {
    char path[4096];
    FILE *file = fopen(control(suffix[of], path, sizeof path), "w");
    if (!file) abort();
    for (int n = 0; n < lost[of].count; n++) {
        struct range one = lost[of].range[n];
        fprintf(file, "%lld %lld\n", (long long)one.from, (long long)(one.to - one.from));
    }
    fclose(file);
}

/* Whose bytes are kept account of. */
static int file_of(const char *name) {
    size_t len = strlen(name);
    if (!getenv("HALLPASS_TEST_FAULTS")) return OTHER;
    if (len > 4 && !strcmp(name + len - 4, "-wal")) return LOG;
    if (len > 5 && !strcmp(name + len - 5, ".head")) return HEAD;
    return len > 3 && !strcmp(name + len - 3, ".db") ? DATABASE : OTHER;
}

/* What an earlier process has lost. Called with the lock. */
static void load_lost(void) {
    char path[4096];
    long long at, len;
    if (is_loaded) return;
    is_loaded = 1;
    for (int of = 0; of < FILES; of++) {
        FILE *file = fopen(control(suffix[of], path, sizeof path), "r");
        if (!file) continue;
        while (fscanf(file, "%lld %lld", &at, &len) == 2) add(&lost[of], at, at + len);
        fclose(file);
    }
}

/* Bytes were written: in the page cache, and lost no more if they are synced. What is not synced yet is not durable either, but only a
 * failed sync makes that last. */
static void wrote(const char *name, off_t at, ssize_t len) {
    int of = file_of(name);
    if (len <= 0 || of == OTHER) return;
    int before = errno;
    pthread_mutex_lock(&lock);
    load_lost();
    take(&unsynced[of], at, at + len);
    add(&unsynced[of], at, at + len);
    pthread_mutex_unlock(&lock);
    errno = before;
}

static void synced(const char *name, int is_well) {
    int of = file_of(name);
    if (of == OTHER) return;
    int before = errno;
    pthread_mutex_lock(&lock);
    load_lost();
    int had = lost[of].count;
    for (int n = 0; n < unsynced[of].count; n++) {
        struct range one = unsynced[of].range[n];
        if (had || !is_well) take(&lost[of], one.from, one.to);
        if (!is_well) add(&lost[of], one.from, one.to);
    }
    if (unsynced[of].count && (had || !is_well)) save_lost(of);
    unsynced[of].count = 0;
    pthread_mutex_unlock(&lock);
    errno = before;
}

static void cut(const char *name, off_t len) {
    int of = file_of(name);
    if (of == OTHER) return;
    int before = errno;
    pthread_mutex_lock(&lock);
    load_lost();
    take(&lost[of], len, (off_t)1 << 62);
    take(&unsynced[of], len, (off_t)1 << 62);
    save_lost(of);
    pthread_mutex_unlock(&lock);
    errno = before;
}

ssize_t pwrite64(int fd, const void *bytes, size_t len, off_t at) {
    char path[4096];
    REAL("pwrite64", call_pwrite);
    const char *name = name_of(fd, path, sizeof path);
    int number = fault("pwrite", name);
    /* Of a checkpoint, which fills a small part of what is written, some of the checkpoint. */
    size_t some = file_of(name) == HEAD && len > 200 ? 100 : len / 2;
    ssize_t done = real(fd, bytes, number ? some : len, at);
    wrote(name, at, done);
    if (!number) return done;
    errno = number;
    return -1;
}

ssize_t pwrite(int fd, const void *bytes, size_t len, off_t at) { return pwrite64(fd, bytes, len, at); }

ssize_t write(int fd, const void *bytes, size_t len) {
    char path[4096];
    REAL("write", call_write);
    int number = fault("write", name_of(fd, path, sizeof path));
    ssize_t done = real(fd, bytes, number ? len / 2 : len);
    if (!number) return done;
    errno = number;
    return -1;
}

static int sync_by(call_sync *real, int fd) {
    char path[4096];
    const char *name = name_of(fd, path, sizeof path);
    int number = fault("fsync", name);
    int done = number ? -1 : real(fd);
    synced(name, done == 0);
    if (number) errno = number;
    return done;
}

int fsync(int fd) {
    REAL("fsync", call_sync);
    return sync_by(real, fd);
}

int fdatasync(int fd) {
    REAL("fdatasync", call_sync);
    return sync_by(real, fd);
}

int ftruncate64(int fd, off_t len) {
    char path[4096];
    REAL("ftruncate64", call_truncate);
    const char *name = name_of(fd, path, sizeof path);
    int number = fault("ftruncate", name);
    if (number) {
        errno = number;
        return -1;
    }
    int done = real(fd, len);
    if (!done) cut(name, len);
    return done;
}

int ftruncate(int fd, off_t len) { return ftruncate64(fd, len); }

int rename(const char *from, const char *to) {
    REAL("rename", call_rename);
    int number = fault("rename", base(from));
    if (number) {
        errno = number;
        return -1;
    }
    int done = real(from, to);
    if (!done && file_of(base(to)) == HEAD) cut(base(to), 0);
    return done;
}

int unlink(const char *path) {
    REAL("unlink", call_unlink);
    int done = real(path);
    if (!done) cut(base(path), 0);
    return done;
}

static int open_by(call_open *real, const char *path, int flags, mode_t mode) {
    int number = fault("open", base(path));
    if (!number) return real(path, flags, mode);
    errno = number;
    return -1;
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        va_list more; \
        va_start(more, flags); \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0; \
        va_end(more); \
        REAL(#name, call_open); \
        return open_by(real, path, flags, mode); \
    }

OPEN(open)
OPEN(open64)
