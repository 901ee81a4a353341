/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The producer's header against docs/ring-abi.md: this program knows the layout by its own offsets and looks at the raw
 * bytes of the file. Nothing here uses the header's structures (but where it says so).
 *
 *   ring_test [--seed N] [--count N] [--only TEST]
 *
 * The seed is printed; --count is the number of random operations. Exit code 0 only if every test passed.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/futex.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* The header's system calls go through here, so that a test can act, or let one fail, between two of its steps. */
static void (*before_lock)(void);
static int interrupts, mmap_errors, link_errors;
/* Instead of what the kernel tells of the box and of randomness: the file `faked` as `different`, all others as `alike`. */
static const char *alike, *faked, *different;
static long getrandom_call;

static int hooked_fcntl(int fd, int command, struct flock *lock)
{
    void (*const act)(void) = before_lock;
    before_lock = NULL;
    if (act != NULL)
        act();
    return fcntl(fd, command, lock);
}

static int hooked_open(const char *path, int flags, ...)
{
    int mode;
    va_list list;
    va_start(list, flags);
    mode = va_arg(list, int);
    va_end(list);
    if (interrupts > 0) {
        interrupts--;
        errno = EINTR;
        return -1;
    }
    if (alike != NULL && (strncmp(path, "/proc/", 6) == 0 || strncmp(path, "/sys/", 5) == 0
                          || strcmp(path, "/dev/urandom") == 0))
        path = faked != NULL && strcmp(path, faked) == 0 ? different : alike;
    return open(path, flags, mode);
}

static void *hooked_mmap(void *at, size_t length, int protection, int flags, int fd, off_t offset)
{
    if (mmap_errors > 0 && --mmap_errors == 0) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    return mmap(at, length, protection, flags, fd, offset);
}

static int hooked_link(const char *from, const char *to)
{
    if (link_errors > 0 && --link_errors == 0) {
        errno = EPERM;
        return -1;
    }
    return link(from, to);
}

#define fcntl hooked_fcntl
#define open hooked_open
#define mmap hooked_mmap
#define link hooked_link
static long real_getrandom(void)
{
    return SYS_getrandom;
}
#undef SYS_getrandom
#define SYS_getrandom getrandom_call
#include "../../include/sophon_ring.h"
#undef fcntl
#undef open
#undef mmap
#undef link

/* ---- Assertions ------------------------------------------------------------------------------------------------- */

static const char *test_name = "";

#define FAIL(...) \
    do { \
        fflush(stdout); \
        fprintf(stderr, "%s:%d: in %s: ", __FILE__, __LINE__, test_name); \
        fprintf(stderr, __VA_ARGS__); \
        fprintf(stderr, "\n"); \
        exit(1); \
    } while (0)
#define CHECK(condition) \
    do { \
        if (!(condition)) \
            FAIL("%s", #condition); \
    } while (0)
#define EQUAL(got, wanted) \
    do { \
        const long long got_ = (long long)(got), wanted_ = (long long)(wanted); \
        if (got_ != wanted_) \
            FAIL("%s is %lld (0x%llx), not %s = %lld (0x%llx)", #got, got_, (unsigned long long)got_, #wanted, wanted_, \
                 (unsigned long long)wanted_); \
    } while (0)

/* ---- Randomness, time, files ------------------------------------------------------------------------------------ */

static uint64_t seed = 0;

static uint64_t next_random(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9E3779B97F4A7C15));
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

static uint64_t below(uint64_t *state, uint64_t limit)
{
    return next_random(state) % limit;
}

static void nap_us(long us)
{
    struct timespec time;
    time.tv_sec = us / 1000000;
    time.tv_nsec = us % 1000000 * 1000;
    nanosleep(&time, NULL);
}

static char folder[4000];
static char path[4096];
static char path_new[4104];
static char path_bad[4104];
static char path_wake[4104];

static int exists(const char *name)
{
    struct stat found;
    return lstat(name, &found) == 0;
}

static ino_t inode(const char *name)
{
    struct stat found;
    CHECK(lstat(name, &found) == 0);
    return found.st_ino;
}

static void remove_all(void)
{
    DIR *const entries = opendir(folder);
    struct dirent *entry;
    CHECK(entries != NULL);
    while ((entry = readdir(entries)) != NULL) {
        char name[4400];
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        snprintf(name, sizeof name, "%s/%s", folder, entry->d_name);
        remove(name);
    }
    closedir(entries);
}

static void write_file(const char *name, const void *bytes, size_t length)
{
    FILE *const file = fopen(name, "wb");
    CHECK(file != NULL);
    CHECK(fwrite(bytes, 1, length, file) == length);
    CHECK(fclose(file) == 0);
}

static int open_descriptors(void)
{
    DIR *const entries = opendir("/proc/self/fd");
    int count = 0;
    CHECK(entries != NULL);
    while (readdir(entries) != NULL)
        count++;
    closedir(entries);
    return count;
}

static int mappings_of_rings(void)
{
    FILE *const maps = fopen("/proc/self/maps", "r");
    char line[8192];
    int count = 0;
    CHECK(maps != NULL);
    while (fgets(line, sizeof line, maps) != NULL)
        if (strstr(line, folder) != NULL)
            count++;
    fclose(maps);
    return count;
}

static pid_t start(void (*child)(void))
{
    pid_t pid;
    fflush(NULL);
    pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        child();
        fflush(NULL);
        _exit(0);
    }
    return pid;
}

static int ended(pid_t pid)
{
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    return status;
}

/* Runs it in a child, which must end well. */
static void in_child(void (*child)(void))
{
    EQUAL(ended(start(child)), 0);
}

/* ---- The layout, once more -------------------------------------------------------------------------------------- */

enum {
    HEADER = 4096,
    MAGIC = 0x000, VERSION = 0x008, HEADER_SIZE = 0x00C, CAPACITY = 0x010, ID = 0x018,
    HEAD = 0x080, SEQUENCE = 0x088, DROPPED = 0x090, PRODUCER_PID = 0x098, FIFO_PID = 0x09C, PUBLICATIONS = 0x0A0,
    FIFO_INODE = 0x0A8,
    TAIL = 0x100, CONSUMED = 0x108, WAITING = 0x110, CONSUMER_PID = 0x114, RESYNCS = 0x118
};

/* A mapping of our own of a ring's file, and a consumer's private position. */
struct view {
    unsigned char *bytes;
    uint64_t size;
    uint64_t capacity;
    uint64_t position;
    int fd;
};

static uint32_t get32(const unsigned char *at)
{
    uint32_t value;
    memcpy(&value, at, 4);
    return value;
}

static uint64_t get64(const unsigned char *at)
{
    uint64_t value;
    memcpy(&value, at, 8);
    return value;
}

static void *word_at(const struct view *view, int offset)
{
    return view->bytes + offset;
}

static uint64_t load64(const struct view *view, int offset)
{
    return __atomic_load_n((uint64_t *)word_at(view, offset), __ATOMIC_ACQUIRE);
}

static uint32_t load32(const struct view *view, int offset)
{
    return __atomic_load_n((uint32_t *)word_at(view, offset), __ATOMIC_ACQUIRE);
}

static void store64(const struct view *view, int offset, uint64_t value)
{
    __atomic_store_n((uint64_t *)word_at(view, offset), value, __ATOMIC_RELEASE);
}

static void store32(const struct view *view, int offset, uint32_t value)
{
    __atomic_store_n((uint32_t *)word_at(view, offset), value, __ATOMIC_RELEASE);
}

static struct view view_of(const char *name)
{
    struct view view;
    struct stat found;
    view.fd = open(name, O_RDWR | O_CLOEXEC);
    CHECK(view.fd >= 0);
    CHECK(fstat(view.fd, &found) == 0);
    view.size = (uint64_t)found.st_size;
    view.bytes = mmap(NULL, view.size, PROT_READ | PROT_WRITE, MAP_SHARED, view.fd, 0);
    CHECK(view.bytes != MAP_FAILED);
    view.capacity = view.size - HEADER;
    view.position = load64(&view, TAIL);
    return view;
}

static void close_view(struct view *view)
{
    munmap(view->bytes, view->size);
    close(view->fd);
}

static uint64_t round8(uint64_t n)
{
    return (n + 7) / 8 * 8;
}

static uint64_t section_size(uint64_t length)
{
    return length > 0 ? 8 + round8(length) : 0;
}

/* An event as the ring has it. */
struct seen {
    uint64_t at;                    /* its position */
    uint64_t length;
    uint64_t sequence;
    int64_t timestamp_ms;
    float score;
    int32_t person_type, device_type;
    const unsigned char *section[9];
    uint32_t section_length[9];
    int fillers;
};

/* Takes a record apart, and asserts everything that the ABI says of one. */
static void take_apart(const unsigned char *record, uint64_t length, struct seen *seen)
{
    uint64_t at = 40;
    uint32_t last = 0;
    memset(seen, 0, sizeof *seen);
    seen->length = length;
    EQUAL(get32(record), length);
    EQUAL(get32(record + 4), 1);
    seen->sequence = get64(record + 8);
    seen->timestamp_ms = (int64_t)get64(record + 16);
    memcpy(&seen->score, record + 24, 4);
    seen->person_type = (int32_t)get32(record + 28);
    seen->device_type = (int32_t)get32(record + 32);
    EQUAL(get32(record + 36), 0);
    while (at < length) {
        const uint32_t kind = get32(record + at);
        const uint32_t bytes = get32(record + at + 4);
        uint64_t i;
        CHECK(length - at >= 8);
        CHECK(kind <= 8);
        CHECK(8 + round8(bytes) <= length - at);
        if (kind == 0) {
            seen->fillers++;
        } else {
            CHECK(bytes > 0);
            CHECK(kind > last);     /* once each; our producer writes them in order */
            last = kind;
            seen->section[kind] = record + at + 8;
            seen->section_length[kind] = bytes;
            for (i = bytes; i < round8(bytes); i++)
                EQUAL(record[at + 8 + i], 0);
        }
        at += 8 + round8(bytes);
    }
    EQUAL(at, length);
}

/* The next event at the consumer's position: 0 if there is none. Padding is passed over, `tail` is not touched. */
static int next_event(struct view *view, struct seen *seen)
{
    const uint64_t head = load64(view, HEAD);
    uint64_t offset, left;
    const unsigned char *record;
    uint32_t length;
    CHECK(head - view->position <= view->capacity);
    EQUAL(head % 8, 0);
    if (head == view->position)
        return 0;
    offset = view->position % view->capacity;
    record = view->bytes + HEADER + offset;
    length = get32(record);
    left = view->capacity - offset;
    if (get32(record + 4) == 2) {
        EQUAL(length, left);
        view->position += length;
        CHECK(head - view->position > 0);       /* never published without the record behind it */
        offset = 0;
        record = view->bytes + HEADER;
        length = get32(record);
        left = view->capacity;
    }
    CHECK(length >= 40 && length % 8 == 0);
    CHECK(length <= left);
    CHECK(length <= view->capacity / 2);
    CHECK(length <= head - view->position);
    take_apart(record, length, seen);
    seen->at = view->position;
    view->position += length;
    return 1;
}

static void release(struct view *view)
{
    store64(view, TAIL, view->position);
}

static int drain(struct view *view)
{
    struct seen seen;
    int count = 0;
    while (next_event(view, &seen)) {
        count++;
        release(view);
    }
    release(view);
    return count;
}

/* ---- Events ----------------------------------------------------------------------------------------------------- */

static sophon_event plain_event(void)
{
    sophon_event event;
    memset(&event, 0, sizeof event);
    event.device_type = -1;
    event.score = 0.5f;
    return event;
}

/* An event that is a function of one number, with room for what it points to. */
struct drawn {
    sophon_event event;
    char text[6][400];
    unsigned char *pictures;
};

static void draw(struct drawn *drawn, uint64_t number, uint64_t largest_picture)
{
    uint64_t state = number;
    uint64_t lengths[2];
    const char *texts[6];
    size_t i, j;
    for (i = 0; i < 6; i++) {
        const size_t length = below(&state, 4) == 0 ? 0 : (size_t)below(&state, below(&state, 8) == 0 ? 399 : 40);
        for (j = 0; j < length; j++)
            drawn->text[i][j] = (char)(1 + below(&state, 255));
        drawn->text[i][length] = '\0';
        texts[i] = length == 0 && below(&state, 2) == 0 ? NULL : drawn->text[i];
    }
    for (i = 0; i < 2; i++)
        lengths[i] = below(&state, 4) == 0 ? 0 : below(&state, 1 + below(&state, largest_picture));
    drawn->pictures = malloc(lengths[0] + lengths[1] + 16);
    CHECK(drawn->pictures != NULL);
    for (j = 0; j < lengths[0] + lengths[1]; j += 8) {
        const uint64_t eight = next_random(&state);
        memcpy(drawn->pictures + j, &eight, 8);
    }
    memset(&drawn->event, 0, sizeof drawn->event);
    drawn->event.identity_id = texts[0];
    drawn->event.identity_name = texts[1];
    drawn->event.group_name = texts[2];
    drawn->event.group_id = texts[3];
    drawn->event.device_ip = texts[4];
    drawn->event.ext_json = texts[5];
    drawn->event.timestamp_ms = (int64_t)next_random(&state);
    drawn->event.score = (float)below(&state, 1000) / 1000.0f;
    drawn->event.person_type = (int32_t)below(&state, 6);
    drawn->event.device_type = (int32_t)below(&state, 6) - 1;
    drawn->event.reg_pic = drawn->pictures;
    drawn->event.reg_pic_len = lengths[0];
    drawn->event.spot_pic = drawn->pictures + lengths[0];
    drawn->event.spot_pic_len = lengths[1];
}

static void same_text(const struct seen *seen, int kind, const char *text)
{
    const size_t length = text == NULL ? 0 : strlen(text);
    EQUAL(seen->section_length[kind], length);
    CHECK(length == 0 || memcmp(seen->section[kind], text, length) == 0);
}

static void same_picture(const struct seen *seen, int kind, const void *picture, size_t length)
{
    EQUAL(seen->section_length[kind], length);
    CHECK(length == 0 || memcmp(seen->section[kind], picture, length) == 0);
}

static void same_event(const struct seen *seen, const sophon_event *event)
{
    same_text(seen, 1, event->identity_id);
    same_text(seen, 2, event->identity_name);
    same_text(seen, 3, event->group_name);
    same_text(seen, 4, event->group_id);
    same_text(seen, 5, event->device_ip);
    same_text(seen, 6, event->ext_json);
    same_picture(seen, 7, event->reg_pic, event->reg_pic_len);
    same_picture(seen, 8, event->spot_pic, event->spot_pic_len);
    EQUAL(seen->timestamp_ms, event->timestamp_ms);
    CHECK(memcmp(&seen->score, &event->score, 4) == 0);
    EQUAL(seen->person_type, event->person_type);
    EQUAL(seen->device_type, event->device_type);
}

/* What the record of an event takes, by the page. */
static uint64_t record_size(const sophon_event *event, uint64_t reg_len, uint64_t spot_len)
{
    const char *const texts[6] = {event->identity_id, event->identity_name, event->group_name,
                                  event->group_id, event->device_ip, event->ext_json};
    uint64_t size = 40 + section_size(reg_len) + section_size(spot_len);
    int i;
    for (i = 0; i < 6; i++)
        size += section_size(texts[i] == NULL ? 0 : strlen(texts[i]));
    return size;
}

static unsigned char junk[1 << 20];

/* Publishes an event whose record is exactly `size` bytes long. */
static int publish_sized(sophon_ring *ring, uint64_t size)
{
    sophon_event event = plain_event();
    CHECK(size >= 56 && size % 8 == 0);
    event.spot_pic = junk;
    event.spot_pic_len = size - 48;
    return sophon_ring_publish(ring, &event);
}

static sophon_ring *open_ring(uint64_t capacity)
{
    sophon_ring *ring = NULL;
    EQUAL(sophon_ring_open(&ring, path, capacity), 0);
    CHECK(ring != NULL);
    return ring;
}

static void refused(uint64_t capacity, int error)
{
    sophon_ring *ring = (sophon_ring *)(void *)junk;
    const int descriptors = open_descriptors();
    const int mappings = mappings_of_rings();
    EQUAL(sophon_ring_open(&ring, path, capacity), error);
    CHECK(ring == NULL);
    EQUAL(open_descriptors(), descriptors);
    EQUAL(mappings_of_rings(), mappings);
}

/* ---- Tests ------------------------------------------------------------------------------------------------------ */

static void header(void)
{
    static const uint64_t capacities[][2] = {{0, 65536}, {1, 65536}, {65536, 65536}, {65537, 131072}, {100000, 131072},
                                             {1 << 20, 1 << 20}, {(1 << 20) + 1, 1 << 21}};
    unsigned char ids[7][16];
    size_t i, j;
    umask(0);
    for (i = 0; i < 7; i++) {
        sophon_ring *ring;
        struct view view;
        struct stat found;
        remove_all();
        ring = open_ring(capacities[i][0]);
        CHECK(!exists(path_new));
        view = view_of(path);
        EQUAL(view.size, 4096 + capacities[i][1]);
        CHECK(lstat(path, &found) == 0);
        EQUAL(found.st_mode & 07777, 0600);
        CHECK((uint64_t)found.st_blocks * 512 >= view.size);
        CHECK(memcmp(view.bytes, "SPOHRING", 8) == 0);
        EQUAL(get64(view.bytes + MAGIC), UINT64_C(0x474E4952484F5053));
        EQUAL(get32(view.bytes + VERSION), 1);
        EQUAL(get32(view.bytes + HEADER_SIZE), 4096);
        EQUAL(get64(view.bytes + CAPACITY), capacities[i][1]);
        EQUAL(get32(view.bytes + PRODUCER_PID), getpid());
        EQUAL(get32(view.bytes + FIFO_PID), getpid());
        memcpy(ids[i], view.bytes + ID, 16);
        for (j = 0; j < i; j++)
            CHECK(memcmp(ids[i], ids[j], 16) != 0);
        for (j = 0; j < HEADER; j++)
            if (j >= ID + 16 && (j < PRODUCER_PID || j >= FIFO_PID + 4) && (j < FIFO_INODE || j >= FIFO_INODE + 8))
                EQUAL(view.bytes[j], 0);
        CHECK(fcntl(view.fd, F_GETFD) == FD_CLOEXEC);
        for (j = 3; j < 100; j++) {                     /* the ring's own descriptor too */
            const int flags = fcntl((int)j, F_GETFD);
            struct stat other;
            if (flags >= 0 && fstat((int)j, &other) == 0 && other.st_ino == found.st_ino)
                CHECK(flags & FD_CLOEXEC);
        }
        close_view(&view);
        sophon_ring_close(ring);
        CHECK(exists(path));
    }
    remove_all();
    refused((UINT64_C(1) << 30) + 1, -EINVAL);
    refused(UINT64_MAX, -EINVAL);
    CHECK(!exists(path));
}

static int pending(int fifo)
{
    int bytes = -1;
    CHECK(ioctl(fifo, FIONREAD, &bytes) == 0);
    return bytes;
}

/* A byte for each event while the consumer sleeps on the FIFO, none while it does not, and no event waits for room in it. */
static void fifo(void)
{
    sophon_ring *ring;
    struct view view;
    struct stat found;
    uint64_t inode;
    int fd, i;
    umask(0);
    remove_all();
    ring = open_ring(65536);
    view = view_of(path);
    CHECK(lstat(path_wake, &found) == 0 && S_ISFIFO(found.st_mode));
    EQUAL(found.st_mode & 07777, 0600);
    inode = found.st_ino;
    EQUAL(get64(view.bytes + FIFO_INODE), inode);
    fd = open(path_wake, O_RDWR | O_NONBLOCK);
    CHECK(fd >= 0);
    for (i = 0; i < 3; i++) {
        store32(&view, WAITING, (uint32_t)i);
        EQUAL(publish_sized(ring, 64), 0);
        EQUAL(pending(fd), i == 2);
    }
    EQUAL(drain(&view), 3);
    release(&view);
    while (write(fd, "", 1) == 1)
        continue;
    EQUAL(publish_sized(ring, 64), 0);
    sophon_ring_close(ring);
    EQUAL(get32(view.bytes + FIFO_PID), 0);
    CHECK(exists(path_wake));
    close(fd);

    ring = open_ring(65536);                            /* the next one goes on with it */
    EQUAL(get32(view.bytes + FIFO_PID), getpid());
    EQUAL(get64(view.bytes + FIFO_INODE), inode);
    CHECK(unlink(path) == 0 && unlink(path_wake) == 0);
    while (!exists(path)) {                             /* it looks at its name ten times a second */
        EQUAL(publish_sized(ring, 64), 0);
        nap_us(10000);
    }
    close_view(&view);
    view = view_of(path);
    CHECK(lstat(path_wake, &found) == 0 && S_ISFIFO(found.st_mode));
    EQUAL(get64(view.bytes + FIFO_INODE), found.st_ino);
    fd = open(path_wake, O_RDWR | O_NONBLOCK);
    store32(&view, WAITING, 2);
    EQUAL(publish_sized(ring, 64), 0);
    EQUAL(pending(fd), 1);
    close(fd);
    close_view(&view);
    sophon_ring_close(ring);
}

/* Whatever else has its name stays as it is, and the futex does. */
static void no_fifo(void)
{
    int kind;
    umask(0);
    for (kind = 0; kind < 5; kind++) {
        sophon_ring *ring;
        struct view view;
        struct stat before, after;
        remove_all();
        if (kind == 0)
            CHECK(close(open(path_wake, O_CREAT | O_WRONLY, 0600)) == 0);
        else if (kind == 1)
            CHECK(mkdir(path_wake, 0700) == 0);
        else if (kind == 2)
            CHECK(symlink(path_bad, path_wake) == 0 && mkfifo(path_bad, 0600) == 0);
        else
            CHECK(mkfifo(path_wake, kind == 3 ? 0622 : 0644) == 0);
        CHECK(lstat(path_wake, &before) == 0);
        ring = open_ring(65536);
        view = view_of(path);
        EQUAL(get32(view.bytes + FIFO_PID), 0);
        EQUAL(get64(view.bytes + FIFO_INODE), 0);
        store32(&view, WAITING, 2);
        EQUAL(publish_sized(ring, 64), 0);
        EQUAL(drain(&view), 1);
        sophon_ring_close(ring);
        CHECK(lstat(path_wake, &after) == 0);
        EQUAL(after.st_ino, before.st_ino);
        EQUAL(after.st_mode, before.st_mode);
        close_view(&view);
    }
    remove_all();
}

/* One event, byte by byte. */
static void record(void)
{
    static const unsigned char wanted[] = {
        176, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0,
        0xEF, 0xCD, 0xAB, 0x89, 0x67, 0x45, 0x23, 0x01, 0x00, 0x00, 0x60, 0x3F, 5, 0, 0, 0,
        4, 0, 0, 0, 0, 0, 0, 0,
        1, 0, 0, 0, 4, 0, 0, 0, '1', '0', '4', '2', 0, 0, 0, 0,
        2, 0, 0, 0, 8, 0, 0, 0, 'e', 'i', 'g', 'h', 't', 0xE4, 0xBD, 0xA0,
        3, 0, 0, 0, 1, 0, 0, 0, 'g', 0, 0, 0, 0, 0, 0, 0,
        4, 0, 0, 0, 3, 0, 0, 0, 'g', 'i', 'd', 0, 0, 0, 0, 0,
        5, 0, 0, 0, 7, 0, 0, 0, '1', '.', '2', '.', '3', '.', '4', 0,
        6, 0, 0, 0, 2, 0, 0, 0, '{', '}', 0, 0, 0, 0, 0, 0,
        7, 0, 0, 0, 9, 0, 0, 0, 0xFF, 0xD8, 0xFF, 1, 2, 3, 4, 5, 6, 0, 0, 0, 0, 0, 0, 0,
        8, 0, 0, 0, 8, 0, 0, 0, 0xFF, 0xD8, 0xFF, 9, 0, 0, 0xFF, 0xD9};
    sophon_ring *ring;
    struct view view;
    sophon_event event = plain_event();
    struct seen seen;
    remove_all();
    ring = open_ring(0);
    view = view_of(path);
    memset(view.bytes + HEADER, 0x55, view.capacity);
    event.identity_id = "1042";
    event.identity_name = "eight\xE4\xBD\xA0";
    event.group_name = "g";
    event.group_id = "gid";
    event.device_ip = "1.2.3.4";
    event.ext_json = "{}";
    event.timestamp_ms = INT64_C(0x0123456789ABCDEF);
    event.score = 0.875f;
    event.person_type = 5;
    event.device_type = 4;
    event.reg_pic = "\xFF\xD8\xFF\1\2\3\4\5\6";
    event.reg_pic_len = 9;
    event.spot_pic = "\xFF\xD8\xFF\x09\0\0\xFF\xD9";
    event.spot_pic_len = 8;
    EQUAL(sophon_ring_publish(ring, &event), 0);
    EQUAL(load64(&view, HEAD), sizeof wanted);
    EQUAL(load64(&view, SEQUENCE), 1);
    EQUAL(load32(&view, PUBLICATIONS), 1);
    CHECK(memcmp(view.bytes + HEADER, wanted, sizeof wanted) == 0);
    EQUAL(view.bytes[HEADER + sizeof wanted], 0x55);
    CHECK(next_event(&view, &seen));
    same_event(&seen, &event);

    /* Nothing in it: 40 bytes. NULL and "" are the same; what is not UTF-8 goes as it is. */
    event = plain_event();
    event.identity_id = "";
    EQUAL(sophon_ring_publish(ring, &event), 0);
    CHECK(next_event(&view, &seen));
    EQUAL(seen.length, 40);
    EQUAL(seen.sequence, 2);
    EQUAL(seen.device_type, -1);
    event.group_id = "\xFF\xC0\x80";
    EQUAL(sophon_ring_publish(ring, &event), 0);
    CHECK(next_event(&view, &seen));
    same_event(&seen, &event);
    CHECK(!next_event(&view, &seen));
    EQUAL(load64(&view, DROPPED), 0);
    sophon_ring_close(ring);
    close_view(&view);
}

static void arguments(void)
{
    static const float scores[] = {NAN, -NAN, INFINITY, -INFINITY};
    sophon_ring *ring;
    struct view view;
    sophon_event event = plain_event();
    void *reg, *spot;
    size_t i;
    remove_all();
    EQUAL(sophon_ring_open(NULL, path, 0), -EINVAL);
    ring = (sophon_ring *)(void *)junk;
    EQUAL(sophon_ring_open(&ring, NULL, 0), -EINVAL);
    CHECK(ring == NULL);
    EQUAL(sophon_ring_open(&ring, "", 0), -EINVAL);
    EQUAL(sophon_ring_publish(NULL, &event), -EINVAL);
    EQUAL(sophon_ring_reserve(NULL, &event, 0, 0, NULL, NULL), -EINVAL);
    EQUAL(sophon_ring_commit(NULL, 0, 0), -EINVAL);
    EQUAL(sophon_ring_dropped(NULL), 0);
    sophon_ring_abort(NULL);
    sophon_ring_close(NULL);

    ring = open_ring(0);
    view = view_of(path);
    EQUAL(sophon_ring_publish(ring, NULL), -EINVAL);
    EQUAL(sophon_ring_reserve(ring, NULL, 0, 0, NULL, NULL), -EINVAL);
    EQUAL(sophon_ring_commit(ring, 0, 0), -EINVAL);
    sophon_ring_abort(ring);
    for (i = 0; i < 4; i++) {
        event.score = scores[i];
        EQUAL(sophon_ring_publish(ring, &event), -EINVAL);
        EQUAL(sophon_ring_reserve(ring, &event, 0, 0, NULL, NULL), -EINVAL);
    }
    event.score = -3.4e38f;
    for (i = 0; i < 20; i++) {
        event.person_type = (int32_t)i - 10;
        EQUAL(sophon_ring_publish(ring, &event), event.person_type < 0 || event.person_type > 5 ? -EINVAL : 0);
    }
    event.person_type = 0;
    for (i = 0; i < 20; i++) {
        event.device_type = (int32_t)i - 10;
        EQUAL(sophon_ring_publish(ring, &event), event.device_type < -1 || event.device_type > 4 ? -EINVAL : 0);
    }
    event = plain_event();
    event.reg_pic_len = 1;
    EQUAL(sophon_ring_publish(ring, &event), -EINVAL);
    event.reg_pic_len = 0;
    event.spot_pic_len = 1;
    EQUAL(sophon_ring_publish(ring, &event), -EINVAL);
    EQUAL(sophon_ring_reserve(ring, &event, 1, 0, NULL, &spot), -EINVAL);
    EQUAL(sophon_ring_reserve(ring, &event, 0, 1, &reg, NULL), -EINVAL);
    event.spot_pic_len = 0;
    event.spot_pic = junk;
    EQUAL(sophon_ring_publish(ring, &event), 0);
    EQUAL(load64(&view, SEQUENCE), 13);
    EQUAL(drain(&view), 13);
    EQUAL(sophon_ring_dropped(ring), 0);
    sophon_ring_close(ring);
    close_view(&view);
}

/* -EMSGSIZE: exactly half the ring goes, nothing above it does, no sum wraps. */
static void size_limit(void)
{
    static const size_t lengths[] = {32768 - 48 + 1, 65536, UINT32_MAX - 60, UINT32_MAX, (size_t)UINT32_MAX + 1,
                                     (size_t)UINT32_MAX + 9, SIZE_MAX / 2, SIZE_MAX - 47, SIZE_MAX - 7, SIZE_MAX};
    sophon_ring *ring;
    struct view view;
    sophon_event event = plain_event();
    void *reg = junk, *spot = junk;
    char *text = malloc(40001);
    size_t i;
    CHECK(text != NULL);
    remove_all();
    ring = open_ring(65536);
    view = view_of(path);
    for (i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        event.reg_pic = event.spot_pic = junk;
        event.reg_pic_len = lengths[i];
        EQUAL(sophon_ring_publish(ring, &event), -EMSGSIZE);
        event.spot_pic_len = lengths[i];
        EQUAL(sophon_ring_publish(ring, &event), -EMSGSIZE);
        event.reg_pic_len = 0;
        EQUAL(sophon_ring_publish(ring, &event), -EMSGSIZE);
        event.spot_pic_len = 0;
        EQUAL(sophon_ring_reserve(ring, &event, lengths[i], 0, &reg, &spot), -EMSGSIZE);
        EQUAL(sophon_ring_reserve(ring, &event, 0, lengths[i], &reg, &spot), -EMSGSIZE);
        EQUAL(sophon_ring_reserve(ring, &event, lengths[i], lengths[i], &reg, &spot), -EMSGSIZE);
        EQUAL(sophon_ring_reserve(ring, &event, SIZE_MAX - lengths[i], lengths[i], &reg, &spot), -EMSGSIZE);
    }
    CHECK(reg == NULL && spot == NULL);
    memset(text, 'x', 40000);
    text[40000] = '\0';
    event = plain_event();
    event.ext_json = text;
    EQUAL(sophon_ring_publish(ring, &event), -EMSGSIZE);
    text[32768 - 48 + 1] = '\0';
    EQUAL(sophon_ring_publish(ring, &event), -EMSGSIZE);
    EQUAL(load64(&view, HEAD), 0);
    EQUAL(load64(&view, SEQUENCE), 0);
    EQUAL(sophon_ring_dropped(ring), 0);                /* these will never fit: not "the ring was full" */
    text[32768 - 48] = '\0';
    EQUAL(sophon_ring_publish(ring, &event), 0);
    EQUAL(drain(&view), 1);
    EQUAL(publish_sized(ring, 32768), 0);
    EQUAL(publish_sized(ring, 32768 + 8), -EMSGSIZE);
    EQUAL(drain(&view), 1);
    /* The largest one fits the empty ring wherever head is. */
    for (i = 0; i < 3000; i++) {
        EQUAL(publish_sized(ring, 56 + 8 * (i % 5)), 0);
        EQUAL(drain(&view), 1);
        EQUAL(publish_sized(ring, 32768), 0);
        EQUAL(drain(&view), 1);
    }
    sophon_ring_close(ring);
    close_view(&view);
    free(text);
}

static void full(void)
{
    sophon_ring *ring;
    struct view view;
    struct seen seen;
    uint64_t i;
    remove_all();
    ring = open_ring(65536);
    view = view_of(path);

    /* Full to the last byte: 16 * 4096. */
    for (i = 0; i < 16; i++)
        EQUAL(publish_sized(ring, 4096), 0);
    EQUAL(load64(&view, HEAD), 65536);
    EQUAL(publish_sized(ring, 56), -ENOSPC);
    EQUAL(load64(&view, DROPPED), 1);
    EQUAL(sophon_ring_dropped(ring), 1);
    EQUAL(load64(&view, HEAD), 65536);
    EQUAL(load64(&view, SEQUENCE), 16);

    /* One released: exactly that much goes in. */
    CHECK(next_event(&view, &seen));
    EQUAL(publish_sized(ring, 56), -ENOSPC);            /* read is not released */
    release(&view);
    EQUAL(publish_sized(ring, 4104), -ENOSPC);
    EQUAL(publish_sized(ring, 4096), 0);
    EQUAL(publish_sized(ring, 56), -ENOSPC);
    EQUAL(sophon_ring_dropped(ring), 4);
    EQUAL(load64(&view, DROPPED), 4);
    EQUAL(drain(&view), 16);
    EQUAL(view.position, 65536 + 4096);

    /* The padding counts. head is at 4096: to 61440, then 16 KiB free and 4096 of them before the end. */
    EQUAL(publish_sized(ring, 28672), 0);
    EQUAL(publish_sized(ring, 28672), 0);
    EQUAL(load64(&view, HEAD) % 65536, 61440);
    CHECK(next_event(&view, &seen));
    EQUAL(load64(&view, TAIL) % 65536, 4096);
    EQUAL(publish_sized(ring, 4104), -ENOSPC);          /* 4096 of padding + 4104 > 8192 */
    EQUAL(publish_sized(ring, 4096), 0);                /* none needed */
    EQUAL(publish_sized(ring, 4104), -ENOSPC);
    EQUAL(publish_sized(ring, 4096), 0);
    EQUAL(publish_sized(ring, 56), -ENOSPC);
    release(&view);
    EQUAL(drain(&view), 3);
    sophon_ring_close(ring);
    close_view(&view);
}

static void padding(void)
{
    sophon_ring *ring;
    struct view view;
    struct seen seen;
    uint64_t short_by;
    for (short_by = 0; short_by <= 64; short_by += 8) {
        remove_all();
        ring = open_ring(65536);
        view = view_of(path);
        memset(view.bytes + HEADER, 0x55, view.capacity);
        EQUAL(publish_sized(ring, 32768), 0);
        EQUAL(publish_sized(ring, 30720), 0);
        EQUAL(drain(&view), 2);
        EQUAL(view.position, 65536 - 2048);
        EQUAL(publish_sized(ring, 2048 + short_by), 0);
        if (short_by == 0) {
            EQUAL(load64(&view, HEAD), 65536);
            EQUAL(get32(view.bytes + HEADER + 65536 - 2048), 2048);
            EQUAL(get32(view.bytes + HEADER + 65536 - 2048 + 4), 1);
        } else {
            EQUAL(load64(&view, HEAD), 65536 + 2048 + short_by);
            EQUAL(get32(view.bytes + HEADER + 65536 - 2048), 2048);
            EQUAL(get32(view.bytes + HEADER + 65536 - 2048 + 4), 2);
            EQUAL(get32(view.bytes + HEADER), 2048 + short_by);
        }
        CHECK(next_event(&view, &seen));
        EQUAL(seen.sequence, 3);
        release(&view);

        /* The shortest padding, 8 bytes. */
        while (65536 - view.position % 65536 > 32768) {
            EQUAL(publish_sized(ring, 16384), 0);
            EQUAL(drain(&view), 1);
        }
        if (65536 - view.position % 65536 >= 64 + 8) {
            EQUAL(publish_sized(ring, 65536 - view.position % 65536 - 8), 0);
            EQUAL(drain(&view), 1);
        }
        EQUAL(view.position % 65536, 65528);
        EQUAL(publish_sized(ring, 56), 0);
        EQUAL(get32(view.bytes + HEADER + 65528), 8);
        EQUAL(get32(view.bytes + HEADER + 65532), 2);
        EQUAL(drain(&view), 1);
        sophon_ring_close(ring);
        close_view(&view);
    }
}

/* A consumer gone mad costs events, never memory. */
static void tail_garbage(void)
{
    static const uint64_t offsets[] = {1, 8, 65536, 1 << 20, UINT64_MAX / 2, UINT64_MAX - 65536 * 3};
    sophon_ring *ring;
    struct view view;
    unsigned char *before;
    uint64_t dropped = 0;
    size_t i;
    remove_all();
    ring = open_ring(65536);
    view = view_of(path);
    for (i = 0; i < 10; i++) {
        EQUAL(publish_sized(ring, 32768), 0);
        EQUAL(drain(&view), 1);
    }
    before = malloc(view.capacity);
    CHECK(before != NULL);
    memcpy(before, view.bytes + HEADER, view.capacity);
    for (i = 0; i < sizeof offsets / sizeof *offsets; i++) {
        store64(&view, TAIL, view.position + offsets[i]);       /* ahead of head, up to all around */
        EQUAL(publish_sized(ring, 56), -ENOSPC);
        EQUAL(sophon_ring_dropped(ring), ++dropped);
    }
    /* The consumer, or whoever wrote that, is shown head again, and woken. */
    store64(&view, HEAD, 12345);
    store64(&view, TAIL, view.position - 4);
    i = load32(&view, PUBLICATIONS);
    EQUAL(publish_sized(ring, 56), -ENOSPC);
    EQUAL(load64(&view, DROPPED), ++dropped);
    EQUAL(load64(&view, HEAD), view.position);
    EQUAL(load32(&view, PUBLICATIONS), (uint32_t)(i + 1));
    store64(&view, TAIL, view.position - 65536 - 8);            /* more behind than the ring is large */
    EQUAL(publish_sized(ring, 56), -ENOSPC);
    EQUAL(load64(&view, DROPPED), ++dropped);
    CHECK(memcmp(before, view.bytes + HEADER, view.capacity) == 0);
    store64(&view, TAIL, view.position);
    EQUAL(publish_sized(ring, 56), 0);
    EQUAL(drain(&view), 1);
    /* And its scribbling over the producer's words does not move the producer. */
    store64(&view, HEAD, 12345);
    store64(&view, SEQUENCE, 99999);
    store64(&view, DROPPED, 99999);
    EQUAL(publish_sized(ring, 56), 0);
    EQUAL(load64(&view, HEAD), view.position + 56);
    EQUAL(load64(&view, SEQUENCE), 12);
    EQUAL(sophon_ring_dropped(ring), dropped);
    EQUAL(drain(&view), 1);
    free(before);
    sophon_ring_close(ring);
    close_view(&view);
}

/* A full ring whose head was overwritten, so that the consumer takes it for an empty one: found by fuzzing. */
static void head_garbage(void)
{
    sophon_ring *ring;
    struct view view;
    uint64_t head;
    uint32_t publications;
    remove_all();
    ring = open_ring(65536);
    view = view_of(path);
    while (publish_sized(ring, 16384) == 0) {
    }
    head = load64(&view, HEAD);
    publications = load32(&view, PUBLICATIONS);
    store64(&view, HEAD, load64(&view, TAIL));
    EQUAL(publish_sized(ring, 16384), -ENOSPC);
    EQUAL(load64(&view, HEAD), head);
    EQUAL(load32(&view, PUBLICATIONS), publications + 1);
    EQUAL(publish_sized(ring, 16384), -ENOSPC);                 /* it is merely full: nobody is woken */
    EQUAL(load32(&view, PUBLICATIONS), publications + 1);
    EQUAL(drain(&view), 4);
    EQUAL(publish_sized(ring, 16384), 0);
    EQUAL(drain(&view), 1);
    sophon_ring_close(ring);
    close_view(&view);
}

static void reservations(void)
{
    static const size_t maxima[] = {0, 1, 7, 8, 9, 16, 100, 5000};
    static const char shrink[] = {0, 1, 2, 3, 4};
    sophon_ring *ring;
    struct view view;
    struct seen seen;
    sophon_event event = plain_event();
    void *reg, *spot;
    uint64_t sequence = 0, head = 0;
    size_t r, s, i, j;
    int fillers = 0;
    remove_all();
    ring = open_ring(65536);
    view = view_of(path);
    event.identity_name = "reserved";
    event.reg_pic_len = event.spot_pic_len = 77;                /* ignored, as are the NULL pictures */
    for (r = 0; r < 8; r++) for (s = 0; s < 8; s++) for (i = 0; i < 5; i++) for (j = 0; j < 5; j++) {
        const size_t lengths[2][5] = {{0, 1, maxima[r] / 2, maxima[r] - 1, maxima[r]},
                                      {0, 1, maxima[s] / 2, maxima[s] - 1, maxima[s]}};
        const size_t reg_len = lengths[0][(int)shrink[i]], spot_len = lengths[1][(int)shrink[j]];
        uint64_t most, least;
        if (reg_len > maxima[r] || spot_len > maxima[s])
            continue;
        memset(view.bytes + HEADER, 0x55, view.capacity);
        reg = spot = junk;
        EQUAL(sophon_ring_reserve(ring, &event, maxima[r], maxima[s], maxima[r] > 0 || i % 2 ? &reg : NULL,
                                  maxima[s] > 0 || j % 2 ? &spot : NULL), 0);
        EQUAL(load64(&view, HEAD), head);                       /* nobody sees it yet */
        EQUAL(load64(&view, SEQUENCE), sequence);
        if (maxima[r] > 0) {
            EQUAL((uintptr_t)reg % 8, 0);
            memset(reg, 0xA1, maxima[r]);
            memset(reg, 0xA2, reg_len);
        } else if (i % 2) {
            CHECK(reg == NULL);
        }
        if (maxima[s] > 0) {
            EQUAL((uintptr_t)spot % 8, 0);
            memset(spot, 0xB1, maxima[s]);
            memset(spot, 0xB2, spot_len);
        } else if (j % 2) {
            CHECK(spot == NULL);
        }
        EQUAL(sophon_ring_commit(ring, reg_len, spot_len), 0);
        sequence++;
        CHECK(next_event(&view, &seen));
        EQUAL(seen.sequence, sequence);
        most = record_size(&event, maxima[r], spot_len);
        least = record_size(&event, reg_len, spot_len);
        /* Shortened, but for what lies before a spot picture. */
        EQUAL(seen.length, spot_len > 0 ? most : least);
        EQUAL(seen.fillers, spot_len > 0 && most > least);
        fillers += seen.fillers;
        EQUAL(seen.section_length[7], reg_len);
        EQUAL(seen.section_length[8], spot_len);
        for (most = 0; most < reg_len; most++)
            EQUAL(seen.section[7][most], 0xA2);
        for (most = 0; most < spot_len; most++)
            EQUAL(seen.section[8][most], 0xB2);
        same_text(&seen, 2, "reserved");
        CHECK(!next_event(&view, &seen));
        release(&view);
        head = view.position;
    }
    CHECK(fillers > 100);

    /* One at a time, and an error leaves it as it was. */
    EQUAL(sophon_ring_reserve(ring, &event, 1000, 2000, &reg, &spot), 0);
    {
        void *other_reg = junk, *other_spot = junk;
        EQUAL(sophon_ring_reserve(ring, &event, 1000, 2000, &other_reg, &other_spot), -EBUSY);
        CHECK(other_reg == NULL && other_spot == NULL);
        EQUAL(publish_sized(ring, 56), -EBUSY);
    }
    EQUAL(sophon_ring_commit(ring, 1001, 0), -EINVAL);
    EQUAL(sophon_ring_commit(ring, 0, 2001), -EINVAL);
    EQUAL(sophon_ring_commit(ring, SIZE_MAX, SIZE_MAX), -EINVAL);
    EQUAL(load64(&view, HEAD), head);
    memset(reg, 1, 1000);
    memset(spot, 2, 2000);
    EQUAL(sophon_ring_commit(ring, 1000, 2000), 0);
    EQUAL(sophon_ring_commit(ring, 1000, 2000), -EINVAL);
    EQUAL(drain(&view), 1);

    /* Given back. */
    head = load64(&view, HEAD);
    for (i = 0; i < 1000; i++) {
        EQUAL(sophon_ring_reserve(ring, &event, 20000, 12000, &reg, &spot), 0);
        sophon_ring_abort(ring);
    }
    EQUAL(sophon_ring_commit(ring, 0, 0), -EINVAL);
    EQUAL(load64(&view, HEAD), head);
    EQUAL(sophon_ring_dropped(ring), 0);

    /* A reservation that does not fit counts, and so does its maximum. */
    EQUAL(publish_sized(ring, 16384), 0);
    EQUAL(sophon_ring_reserve(ring, &event, 0, 32000, NULL, &spot), 0);
    EQUAL(sophon_ring_commit(ring, 0, 32000), 0);
    EQUAL(sophon_ring_reserve(ring, &event, 0, 32000, NULL, &spot), -ENOSPC);
    EQUAL(sophon_ring_dropped(ring), 1);
    EQUAL(load64(&view, DROPPED), 1);
    EQUAL(drain(&view), 2);

    /* Closed with one open: as if it had never been. */
    head = load64(&view, HEAD);
    EQUAL(sophon_ring_reserve(ring, &event, 1000, 0, &reg, NULL), 0);
    sophon_ring_close(ring);
    EQUAL(load64(&view, HEAD), head);
    close_view(&view);
}

static void expect_busy(void)
{
    refused(0, -EBUSY);
}

static void take_over_in_child(void)
{
    sophon_ring *const ring = open_ring(65536);
    EQUAL(publish_sized(ring, 64), 0);
    sophon_ring_close(ring);
}

static sophon_ring *parents_ring;

static void close_the_parents(void)
{
    sophon_ring_close(parents_ring);
}

static void locks(void)
{
    sophon_ring *ring;
    struct view view;
    struct flock lock;
    unsigned char id[16];
    remove_all();
    ring = open_ring(65536);
    view = view_of(path);
    memcpy(id, view.bytes + ID, 16);
    EQUAL(publish_sized(ring, 56), 0);
    expect_busy();                                      /* the same process */
    in_child(expect_busy);                              /* and another one */

    /* One byte, 0x080, exclusive: a consumer's byte 0x100 is free, as is all the rest. */
    memset(&lock, 0, sizeof lock);
    lock.l_type = F_WRLCK;
    CHECK(fcntl(view.fd, F_OFD_GETLK, &lock) == 0);
    EQUAL(lock.l_type, F_WRLCK);
    EQUAL(lock.l_start, 0x080);
    EQUAL(lock.l_len, 1);
    memset(&lock, 0, sizeof lock);
    lock.l_type = F_WRLCK;
    lock.l_start = 0x081;
    CHECK(fcntl(view.fd, F_OFD_SETLK, &lock) == 0);

    /* A forked child that closes its copy does not take the lock along. */
    parents_ring = ring;
    in_child(close_the_parents);
    in_child(expect_busy);

    sophon_ring_close(ring);
    in_child(take_over_in_child);
    ring = open_ring(0);
    CHECK(memcmp(id, view.bytes + ID, 16) == 0);
    EQUAL(get32(view.bytes + PRODUCER_PID), getpid());
    EQUAL(publish_sized(ring, 72), 0);
    EQUAL(load64(&view, HEAD), 56 + 64 + 72);
    EQUAL(load64(&view, SEQUENCE), 3);
    EQUAL(load32(&view, PUBLICATIONS), 3);
    EQUAL(drain(&view), 3);

    /* dropped goes on too. */
    store64(&view, TAIL, 8 * 99999);
    EQUAL(publish_sized(ring, 72), -ENOSPC);
    store64(&view, TAIL, view.position);
    sophon_ring_close(ring);
    ring = open_ring(0);
    EQUAL(sophon_ring_dropped(ring), 1);
    sophon_ring_close(ring);
    close_view(&view);
}

static int channel[2];

static void die_half_way(void)
{
    sophon_ring *ring = open_ring(65536);
    sophon_event event = plain_event();
    void *reg, *spot;
    EQUAL(publish_sized(ring, 56), 0);
    EQUAL(sophon_ring_reserve(ring, &event, 20000, 10000, &reg, &spot), 0);
    memset(reg, 0xAA, 10000);
    CHECK(write(channel[1], "x", 1) == 1);
    for (;;)
        pause();
}

static void publish_for_ever(void)
{
    sophon_ring *ring = open_ring(65536);
    CHECK(write(channel[1], "x", 1) == 1);
    for (;;) {
        struct drawn drawn;
        const uint64_t number = ring->sequence + 1;     /* the one private member that is looked at: the number to come */
        draw(&drawn, number, 3000);
        if (number % 3 == 0) {
            void *reg = NULL, *spot = NULL;
            if (sophon_ring_reserve(ring, &drawn.event, drawn.event.reg_pic_len, drawn.event.spot_pic_len + 100, &reg, &spot)
                == 0) {
                if (reg != NULL)
                    memcpy(reg, drawn.event.reg_pic, drawn.event.reg_pic_len);
                memcpy(spot, drawn.event.spot_pic, drawn.event.spot_pic_len);
                EQUAL(sophon_ring_commit(ring, drawn.event.reg_pic_len, drawn.event.spot_pic_len), 0);
            }
        } else {
            const int error = sophon_ring_publish(ring, &drawn.event);
            CHECK(error == 0 || error == -ENOSPC);
        }
        free(drawn.pictures);
    }
}

/* Reads what there is; every event is what its number makes it. */
static uint64_t read_numbered(struct view *view, uint64_t *last)
{
    struct seen seen;
    uint64_t count = 0;
    while (next_event(view, &seen)) {
        struct drawn drawn;
        CHECK(seen.sequence > *last);
        draw(&drawn, seen.sequence, 3000);
        same_event(&seen, &drawn.event);
        free(drawn.pictures);
        *last = seen.sequence;
        release(view);
        count++;
    }
    return count;
}

static void death(void)
{
    sophon_ring *ring;
    struct view view;
    struct seen seen;
    struct stat file;
    uint64_t state = seed, last = 0, read_in_all = 0;
    pid_t pid;
    char byte;
    int i;
    remove_all();
    CHECK(pipe(channel) == 0);
    pid = start(die_half_way);
    CHECK(read(channel[0], &byte, 1) == 1);
    view = view_of(path);
    refused(65536, -EBUSY);
    EQUAL(load64(&view, HEAD), 56);
    CHECK(kill(pid, SIGKILL) == 0);
    CHECK(WIFSIGNALED(ended(pid)));
    ring = open_ring(65536);
    EQUAL(load64(&view, HEAD), 56);
    EQUAL(load64(&view, SEQUENCE), 1);
    EQUAL(publish_sized(ring, 64), 0);
    CHECK(next_event(&view, &seen));
    EQUAL(seen.sequence, 1);
    CHECK(next_event(&view, &seen));
    EQUAL(seen.sequence, 2);
    EQUAL(seen.length, 64);
    CHECK(!next_event(&view, &seen));
    sophon_ring_close(ring);
    close_view(&view);

    /* At any moment. */
    remove_all();
    for (i = 0; i < 60; i++) {
        pid = start(publish_for_ever);
        CHECK(read(channel[0], &byte, 1) == 1);
        if (i == 0)
            view = view_of(path);
        for (nap_us((long)below(&state, 300)); below(&state, 6) != 0; nap_us((long)below(&state, 300)))
            read_in_all += read_numbered(&view, &last);
        CHECK(kill(pid, SIGKILL) == 0);
        CHECK(WIFSIGNALED(ended(pid)));
        if (below(&state, 2))
            read_in_all += read_numbered(&view, &last);
        CHECK(fstat(view.fd, &file) == 0);
        EQUAL(inode(path), file.st_ino);
        CHECK(!exists(path_bad));
    }
    read_in_all += read_numbered(&view, &last);
    CHECK(read_in_all > 100);
    CHECK(load64(&view, SEQUENCE) - read_in_all <= 60); /* at most one number skipped a death */
    close_view(&view);
    close(channel[0]);
    close(channel[1]);
}

static void capacity_change(void)
{
    sophon_ring *ring;
    struct view old, view;
    ino_t first;
    unsigned char id[16];
    remove_all();
    ring = open_ring(65536);
    EQUAL(publish_sized(ring, 56), 0);
    sophon_ring_close(ring);
    old = view_of(path);
    first = inode(path);
    memcpy(id, old.bytes + ID, 16);

    /* Something in it: kept as it is. */
    ring = open_ring(1 << 20);
    EQUAL(inode(path), first);
    EQUAL(publish_sized(ring, 40000), -EMSGSIZE);
    EQUAL(publish_sized(ring, 56), 0);
    EQUAL(load64(&old, SEQUENCE), 2);
    sophon_ring_close(ring);
    EQUAL(drain(&old), 2);

    /* Empty: replaced, in either direction. */
    ring = open_ring(1 << 20);
    CHECK(inode(path) != first);
    CHECK(!exists(path_new));
    CHECK(!exists(path_bad));
    view = view_of(path);
    EQUAL(view.capacity, 1 << 20);
    CHECK(memcmp(id, view.bytes + ID, 16) != 0);
    EQUAL(load64(&view, SEQUENCE), 0);
    in_child(expect_busy);
    EQUAL(publish_sized(ring, 40000), 0);
    EQUAL(load64(&view, SEQUENCE), 1);
    EQUAL(load32(&view, PUBLICATIONS), 1);
    EQUAL(load64(&view, HEAD), 40000);
    EQUAL(load64(&old, SEQUENCE), 2);
    EQUAL(drain(&view), 1);
    sophon_ring_close(ring);
    close_view(&old);
    close_view(&view);
    ring = open_ring(0);
    view = view_of(path);
    EQUAL(view.capacity, 65536);
    close_view(&view);
    sophon_ring_close(ring);

    /* Same capacity, empty: the same ring. */
    first = inode(path);
    sophon_ring_close(open_ring(10));
    EQUAL(inode(path), first);
}

/* A good ring with one thing wrong goes to .bad, whole. */
static void foreign(void)
{
    enum { GOOD, NO_BYTES, FEW_BYTES, TEXT, HEAD_BEHIND, HEAD_FAR, HEAD_CROOKED, TAIL_CROOKED, BAD_MAGIC, BAD_VERSION,
           BAD_HEADER_SIZE, BAD_CAPACITY, ODD_CAPACITY, LONGER, SHORTER, OTHER_USER, KINDS };
    int kind;
    for (kind = GOOD; kind < KINDS; kind++) {
        sophon_ring *ring;
        struct view view;
        ino_t first;
        pid_t pid;
        char byte;
        remove_all();
        ring = open_ring(65536);
        EQUAL(publish_sized(ring, 56), 0);
        sophon_ring_close(ring);
        view = view_of(path);
        first = inode(path);
        switch (kind) {
        case NO_BYTES: CHECK(truncate(path, 0) == 0); break;
        case FEW_BYTES: CHECK(truncate(path, 100) == 0); break;
        case TEXT: CHECK(remove(path) == 0); write_file(path, "notes", 5); first = inode(path); break;
        case HEAD_BEHIND: store64(&view, TAIL, 64); break;
        case HEAD_FAR: store64(&view, HEAD, 65536 + 8); break;
        case HEAD_CROOKED: store64(&view, HEAD, 60); break;
        case TAIL_CROOKED: store64(&view, TAIL, 4); break;
        case BAD_MAGIC: view.bytes[0] ^= 1; break;
        case BAD_VERSION: store32(&view, VERSION, 3); break;
        case BAD_HEADER_SIZE: store32(&view, HEADER_SIZE, 8192); break;
        case BAD_CAPACITY: store64(&view, CAPACITY, 131072); break;
        case ODD_CAPACITY: store64(&view, CAPACITY, 73728); CHECK(truncate(path, 4096 + 73728) == 0); break;
        case LONGER: CHECK(truncate(path, 4096 + 131072) == 0); break;
        case SHORTER: CHECK(truncate(path, 4096 + 32768) == 0); store64(&view, CAPACITY, 32768); break;
        case OTHER_USER: if (geteuid() != 0 || chown(path, 65534, 65534) != 0) { close_view(&view); continue; } break;
        default: break;
        }
        /* Its lock decides first, whatever is in it. */
        CHECK(pipe(channel) == 0);
        pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            const int fd = open(path, O_RDWR);
            CHECK(fd >= 0 && sophon_ring_lock_(fd) == 0);
            CHECK(write(channel[1], "x", 1) == 1);
            for (;;)
                pause();
        }
        CHECK(read(channel[0], &byte, 1) == 1);
        refused(65536, -EBUSY);
        EQUAL(inode(path), first);
        CHECK(kill(pid, SIGKILL) == 0);
        CHECK(WIFSIGNALED(ended(pid)));
        close(channel[0]);
        close(channel[1]);

        ring = open_ring(65536);
        if (kind == GOOD) {
            EQUAL(inode(path), first);
            CHECK(!exists(path_bad));
        } else {
            EQUAL(inode(path_bad), first);
            CHECK(inode(path) != first);
        }
        CHECK(!exists(path_new));
        EQUAL(publish_sized(ring, 56), 0);
        sophon_ring_close(ring);
        close_view(&view);
        view = view_of(path);
        EQUAL(drain(&view), kind == GOOD ? 2 : 1);
        close_view(&view);
    }
}

static void not_files(void)
{
    char other[4200];
    struct stat found;
    remove_all();
    snprintf(other, sizeof other, "%s/other", folder);
    write_file(other, "precious", 8);
    CHECK(symlink(other, path) == 0);
    refused(0, -EINVAL);
    CHECK(lstat(path, &found) == 0 && S_ISLNK(found.st_mode));
    CHECK(stat(other, &found) == 0 && found.st_size == 8);
    CHECK(remove(path) == 0);
    CHECK(symlink("nowhere", path) == 0);
    refused(0, -EINVAL);
    CHECK(remove(path) == 0);
    CHECK(mkdir(path, 0700) == 0);
    refused(0, -EINVAL);
    CHECK(rmdir(path) == 0);
    CHECK(mkfifo(path, 0600) == 0);
    refused(0, -EINVAL);
    CHECK(lstat(path, &found) == 0 && S_ISFIFO(found.st_mode));
    CHECK(remove(path) == 0);
    CHECK(!exists(path_new) && !exists(path_bad));
    {
        sophon_ring *ring = NULL;
        EQUAL(sophon_ring_open(&ring, "/dev/null", 0), -EINVAL);
        EQUAL(sophon_ring_open(&ring, "/no-such-folder/ring", 0), -ENOENT);
        CHECK(ring == NULL);
    }
    /* The way aside is blocked. */
    CHECK(mkdir(path_new, 0700) == 0);
    refused(0, -EISDIR);
    CHECK(rmdir(path_new) == 0);
    write_file(path, "notes", 5);
    CHECK(mkdir(path_bad, 0700) == 0);
    refused(0, -EISDIR);
    CHECK(rmdir(path_bad) == 0);
    write_file(path_bad, "older", 5);
    sophon_ring_close(open_ring(0));
    CHECK(stat(path_bad, &found) == 0 && found.st_size == 5);
}

/* What a producer leaves that was killed while it made a ring. */
static void leftovers(void)
{
    sophon_ring *ring;
    struct view view;
    ino_t first;
    int fd;
    remove_all();
    memset(junk, 0x77, sizeof junk);
    write_file(path_new, junk, 100000);
    ring = open_ring(0);
    CHECK(!exists(path_new));
    view = view_of(path);
    EQUAL(view.bytes[HEADER + 5000], 0);
    EQUAL(drain(&view), 0);
    close_view(&view);

    /* Two names of one ring. */
    EQUAL(publish_sized(ring, 56), 0);
    sophon_ring_close(ring);
    CHECK(link(path, path_new) == 0);
    first = inode(path);
    ring = open_ring(0);
    EQUAL(inode(path), first);
    CHECK(!exists(path_new));
    sophon_ring_close(ring);
    view = view_of(path);
    EQUAL(drain(&view), 1);
    close_view(&view);
    CHECK(link(path, path_new) == 0);
    ring = open_ring(1 << 20);                          /* empty: replaced, though its other name is in the way */
    CHECK(!exists(path_new));
    CHECK(inode(path) != first);
    sophon_ring_close(ring);

    /* A second name that is not ours to remove. */
    remove_all();
    ring = open_ring(0);
    sophon_ring_close(ring);
    CHECK(link(path, path_bad) == 0);
    sophon_ring_close(open_ring(0));
    CHECK(exists(path_bad));

    /* One who is alive and making it. */
    remove_all();
    write_file(path_new, "", 0);
    fd = open(path_new, O_RDWR);
    CHECK(fd >= 0 && sophon_ring_lock_(fd) == 0);
    refused(0, -EBUSY);
    CHECK(exists(path_new) && !exists(path));
    close(fd);
    sophon_ring_close(open_ring(0));
    CHECK(!exists(path_new));
}

static char elsewhere[4200];

static void replace_path(void)
{
    CHECK(rename(elsewhere, path) == 0);
}

static void remove_path(void)
{
    CHECK(unlink(path) == 0);
}

static void remove_path_new(void)
{
    CHECK(unlink(path_new) == 0);
}

static void replace_path_new(void)
{
    CHECK(unlink(path_new) == 0);
    write_file(path_new, "half a header", 13);
}

static void make_path(void)
{
    write_file(path, junk, 1);
    CHECK(rename(elsewhere, path) == 0);
}

/* Between opening a file and getting its lock, the name may have gone to another one. */
static void replaced_meanwhile(void)
{
    sophon_ring *ring;
    struct view view;
    ino_t second;
    remove_all();
    snprintf(elsewhere, sizeof elsewhere, "%s/elsewhere", folder);
    EQUAL(sophon_ring_open(&ring, elsewhere, 0), 0);
    EQUAL(publish_sized(ring, 64), 0);
    sophon_ring_close(ring);
    second = inode(elsewhere);
    sophon_ring_close(open_ring(0));
    before_lock = replace_path;
    ring = open_ring(0);
    CHECK(before_lock == NULL);
    EQUAL(inode(path), second);
    EQUAL(publish_sized(ring, 64), 0);
    view = view_of(path);
    EQUAL(drain(&view), 2);                             /* it went to the ring that the name names */
    close_view(&view);
    sophon_ring_close(ring);

    before_lock = remove_path;
    ring = open_ring(0);
    EQUAL(publish_sized(ring, 64), 0);
    view = view_of(path);
    EQUAL(drain(&view), 1);
    close_view(&view);
    sophon_ring_close(ring);

    /* The same for the one that is being made: taken away, */
    remove_all();
    before_lock = remove_path_new;
    ring = open_ring(0);
    CHECK(before_lock == NULL && !exists(path_new));
    EQUAL(publish_sized(ring, 64), 0);
    view = view_of(path);
    EQUAL(drain(&view), 1);
    close_view(&view);
    sophon_ring_close(ring);
    /* and made again by another, */
    remove_all();
    before_lock = replace_path_new;
    ring = open_ring(0);
    CHECK(before_lock == NULL && !exists(path_new));
    view = view_of(path);
    EQUAL(drain(&view), 0);
    close_view(&view);
    sophon_ring_close(ring);
    /* and another is faster with the name. */
    remove_all();
    EQUAL(sophon_ring_open(&ring, elsewhere, 0), 0);
    EQUAL(publish_sized(ring, 64), 0);
    sophon_ring_close(ring);
    second = inode(elsewhere);
    before_lock = make_path;
    ring = open_ring(0);
    EQUAL(inode(path), second);
    CHECK(!exists(path_new));
    sophon_ring_close(ring);
}

static void failures(void)
{
    sophon_ring *ring;
    remove_all();
    interrupts = 3;
    sophon_ring_close(open_ring(0));
    interrupts = 1;
    sophon_ring_close(open_ring(0));
    mmap_errors = 1;                                    /* on taking over */
    refused(0, -ENOMEM);
    mmap_errors = 2;                                    /* on replacing */
    refused(1 << 20, -ENOMEM);
    CHECK(exists(path) && !exists(path_new));
    remove_all();
    mmap_errors = 1;                                    /* on making */
    refused(0, -ENOMEM);
    CHECK(!exists(path) && !exists(path_new));
    link_errors = 1;
    refused(0, -EPERM);
    CHECK(!exists(path) && !exists(path_new));
    ring = open_ring(0);
    sophon_ring_close(ring);
    EQUAL(mappings_of_rings(), 0);
}

/* ---- A name that is removed ------------------------------------------------------------------------------------- */

static int consumer_lock(int fd, short type)
{
    struct flock lock;
    memset(&lock, 0, sizeof lock);
    lock.l_type = type;
    lock.l_start = 0x100;
    lock.l_len = 1;
    return fcntl(fd, F_OFD_SETLK, &lock);
}

static int publish_now(sophon_ring *ring, uint64_t size)
{
    ring->look_at = 0;                                  /* as if a tenth of a second had gone by */
    return publish_sized(ring, size);
}

/* Nobody reads the old ring, or ever will: what is in it goes along, under the same ids. */
static void removed_unread(void)
{
    sophon_ring *ring;
    struct view old, fresh;
    struct seen seen;
    int i;
    remove_all();
    for (i = 0; i < 30000; i++)
        junk[i] = (unsigned char)(i * 7 + i / 256);
    ring = open_ring(65536);
    old = view_of(path);
    for (i = 0; i < 25; i++) {                          /* so far that what is unread goes across the end */
        EQUAL(publish_sized(ring, 2000), 0);
        EQUAL(drain(&old), 1);
    }
    EQUAL(publish_sized(ring, 30000), 0);
    EQUAL(publish_sized(ring, 19000), 0);
    EQUAL(publish_sized(ring, 30000), -ENOSPC);
    CHECK(unlink(path) == 0);
    EQUAL(publish_now(ring, 64), 0);
    fresh = view_of(path);
    CHECK(memcmp(fresh.bytes + ID, old.bytes + ID, 16) == 0);
    EQUAL(load32(&fresh, PRODUCER_PID), getpid());
    EQUAL(load32(&old, PRODUCER_PID), 0);
    EQUAL(load64(&fresh, DROPPED), 1);
    EQUAL(sophon_ring_dropped(ring), 1);
    for (i = 0; i < 3; i++) {
        CHECK(next_event(&fresh, &seen));
        EQUAL(seen.sequence, 26 + i);
        if (i == 0)
            CHECK(memcmp(seen.section[8], junk, 30000 - 48) == 0);
    }
    CHECK(!next_event(&fresh, &seen));
    release(&fresh);
    EQUAL(publish_now(ring, 64), 0);                    /* and it goes on there */
    EQUAL(drain(&fresh), 1);
    CHECK(!exists(path_new) && !exists(path_bad));
    close_view(&old);
    close_view(&fresh);
    sophon_ring_close(ring);
}

/* The uplink reads the old ring to its end: the new one is another. */
static void removed_while_read(void)
{
    sophon_ring *ring;
    struct view old, fresh;
    void *room;
    sophon_event event = plain_event();
    remove_all();
    ring = open_ring(65536);
    old = view_of(path);
    EQUAL(consumer_lock(old.fd, F_WRLCK), 0);
    EQUAL(publish_sized(ring, 64), 0);
    CHECK(unlink(path) == 0);
    ring->look_at = 0;
    EQUAL(sophon_ring_reserve(ring, &event, 0, 100, NULL, &room), 0);
    fresh = view_of(path);
    CHECK(unlink(path) == 0);                           /* again, under a reservation: that one stays where it is */
    ring->look_at = 0;
    memset(room, 1, 100);
    EQUAL(sophon_ring_commit(ring, 0, 100), 0);
    CHECK(!exists(path));
    EQUAL(drain(&old), 1);
    EQUAL(drain(&fresh), 1);
    CHECK(memcmp(fresh.bytes + ID, old.bytes + ID, 16) != 0);
    close_view(&old);
    close_view(&fresh);
    sophon_ring_close(ring);
}

/* Where no new ring can be made, or must not, the old one is used on, and nothing is left behind. */
static void removed_and_not_made(void)
{
    char gone[4200];
    sophon_ring *ring;
    struct view view;
    struct timespec now;
    remove_all();
    ring = open_ring(65536);
    view = view_of(path);
    snprintf(gone, sizeof gone, "%s.gone", path);
    EQUAL(link(path, gone), 0);
    CHECK(unlink(path) == 0);
    EQUAL(publish_now(ring, 64), 0);                    /* it still has a name: perhaps it is where it is to be read */
    CHECK(!exists(path));
    EQUAL(drain(&view), 1);
    CHECK(unlink(gone) == 0);
    link_errors = 1;
    EQUAL(publish_now(ring, 64), 0);
    EQUAL(link_errors, 0);
    CHECK(!exists(path) && !exists(path_new));
    EQUAL(consumer_lock(view.fd, F_WRLCK), 0);          /* it keeps no lock of the other side */
    EQUAL(consumer_lock(view.fd, F_UNLCK), 0);
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);        /* it is not tried again at once */
    CHECK(ring->look_at - (now.tv_sec * 1000 + now.tv_nsec / 1000000) > 5000);
    EQUAL(publish_sized(ring, 64), 0);
    CHECK(!exists(path));
    EQUAL(drain(&view), 2);
    /* Another file at the path is another's business. */
    write_file(path, "another's", 9);
    EQUAL(publish_now(ring, 64), 0);
    EQUAL(drain(&view), 1);
    CHECK(unlink(path) == 0);
    close_view(&view);
    sophon_ring_close(ring);
}

/* A process that has another working folder by now makes nothing there. */
static void removed_elsewhere(void)
{
    sophon_ring *ring;
    struct view view;
    remove_all();
    CHECK(chdir(folder) == 0);
    EQUAL(sophon_ring_open(&ring, "ring", 0), 0);
    view = view_of(path);
    CHECK(unlink("ring") == 0);
    CHECK(chdir("/") == 0);
    EQUAL(publish_now(ring, 64), 0);
    CHECK(access("/ring", F_OK) != 0);
    EQUAL(drain(&view), 1);
    CHECK(chdir(folder) == 0);
    EQUAL(publish_now(ring, 64), 0);
    CHECK(exists(path));
    CHECK(chdir("/") == 0);
    close_view(&view);
    sophon_ring_close(ring);
}

/* Who closes in order takes its pid out of the header; who dies, and a child of who lives, does not. */
static void die_with_it(void)
{
    open_ring(0);
    _exit(0);
}

static void closed_or_died(void)
{
    struct view view;
    remove_all();
    sophon_ring_close(open_ring(0));
    view = view_of(path);
    EQUAL(load32(&view, PRODUCER_PID), 0);
    in_child(die_with_it);
    CHECK(load32(&view, PRODUCER_PID) != 0);
    parents_ring = open_ring(0);
    in_child(close_the_parents);
    EQUAL(load32(&view, PRODUCER_PID), getpid());
    sophon_ring_close(parents_ring);
    EQUAL(load32(&view, PRODUCER_PID), 0);
    close_view(&view);
}

/* ---- Ids where the kernel has no random numbers ----------------------------------------------------------------- */

static int by_bytes(const void *one, const void *other)
{
    return memcmp(one, other, 16);
}

static void ids(void)
{
    enum { COUNT = 20000 };
    static const char *const sources[] = {"/proc/sys/kernel/random/boot_id", "/proc/device-tree/serial-number",
                                          "/sys/block/mmcblk0/device/cid", "/proc/stat", "/sys/class/net/lo/address"};
    static unsigned char made[COUNT][16];
    char one[4200], other[4200];
    uint64_t same[2] = {0, 0}, mixed[2];
    sophon_ring *ring;
    struct stat found;
    size_t i;
    remove_all();
    snprintf(one, sizeof one, "%s/one", folder);
    snprintf(other, sizeof other, "%s/other", folder);
    write_file(one, "0123456789abcdef", 16);
    write_file(other, "0123456789abcdeg", 16);
    getrandom_call = -1;
    alike = one;
    for (i = 0; i < COUNT; i++)
        sophon_ring_make_id_(made[i], 0);
    qsort(made, COUNT, 16, by_bytes);
    for (i = 1; i < COUNT; i++)
        CHECK(memcmp(made[i - 1], made[i], 16) != 0);
    /* The same box in the same boot is the same; another box or another boot is not. */
    sophon_ring_mix_box_(same);
    for (i = 0; i < sizeof sources / sizeof *sources; i++) {
        if (i == 4 && stat(sources[i], &found) != 0)
            continue;                                   /* no network card at all, not even that one */
        mixed[0] = mixed[1] = 0;
        sophon_ring_mix_box_(mixed);
        CHECK(memcmp(mixed, same, sizeof same) == 0);
        faked = sources[i];
        different = other;
        mixed[0] = mixed[1] = 0;
        sophon_ring_mix_box_(mixed);
        CHECK(mixed[0] != same[0] && mixed[1] != same[1]);
        faked = NULL;
    }
    /* Nothing of all that can be had: a ring is made all the same. */
    alike = "/nowhere";
    ring = open_ring(0);
    sophon_ring_close(ring);
    alike = NULL;
    getrandom_call = real_getrandom();
    unlink(one);
    unlink(other);
}

/* On filesystems of their own: a full tmpfs, and one that cannot allocate in advance. */
static void other_filesystems(void)
{
    char mounted[4100];
    sophon_ring *ring = NULL;
    struct view view;
    struct stat found;
    FILE *sparse;
    snprintf(mounted, sizeof mounted, "%s", folder);
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0
        || mount("none", mounted, "tmpfs", 0, "size=256k") != 0) {
        printf("  (other_filesystems: skipped, no right to mount)\n");
        return;
    }
    refused(1 << 20, -ENOSPC);
    CHECK(!exists(path) && !exists(path_new));
    sophon_ring_close(open_ring(65536));
    refused(1 << 18, -ENOSPC);                          /* replacing: the old one stays */
    CHECK(exists(path) && !exists(path_new));
    sophon_ring_close(open_ring(65536));

    /* A ring with holes, as a copying tool makes one: they are filled before anything is written into them. */
    view = view_of(path);
    sparse = fopen(path_bad, "wb");
    CHECK(sparse != NULL && fwrite(view.bytes, 1, HEADER, sparse) == HEADER && fclose(sparse) == 0);
    close_view(&view);
    CHECK(truncate(path_bad, HEADER + 65536) == 0 && rename(path_bad, path) == 0);
    ring = open_ring(65536);
    CHECK(lstat(path, &found) == 0 && found.st_blocks * 512 >= HEADER + 65536);
    sophon_ring_close(ring);
    CHECK(truncate(path, HEADER) == 0 && truncate(path, HEADER + 65536) == 0);
    memset(junk, 1, 200000);
    write_file(path_bad, junk, 200000);
    refused(65536, -ENOSPC);

    if (mount("none", mounted, "ramfs", 0, NULL) != 0) {
        printf("  (other_filesystems: no ramfs)\n");
        return;
    }
    ring = open_ring(65536);                            /* no fallocate there */
    EQUAL(publish_sized(ring, 32768), 0);
    view = view_of(path);
    EQUAL(view.capacity, 65536);
    EQUAL(drain(&view), 1);
    close_view(&view);
    sophon_ring_close(ring);
}

static uint64_t operations = 100000;

/* Random publishing, reserving, giving back and reading, against a model that says what must happen. */
static void random_operations(void)
{
    static const uint64_t capacities[] = {65536, 131072, 1 << 20};
    struct { uint64_t number, limit, sequence; } *outstanding = malloc(40000 * sizeof *outstanding);
    uint64_t state = seed, done = 0, published = 0, refused_count = 0, too_large = 0, wraps = 0;
    size_t c;
    CHECK(outstanding != NULL);
    for (c = 0; c < 3; c++) {
        const uint64_t capacity = capacities[c];
        uint64_t head = 0, tail = 0, sequence = 0, dropped = 0, first = 0, count = 0;
        sophon_ring *ring;
        struct view view;
        remove_all();
        ring = open_ring(capacity);
        view = view_of(path);
        for (; done < operations * (c + 1) / 3; done++) {
            const uint64_t what = below(&state, 100);
            struct drawn drawn;
            if (what < 55) {
                const uint64_t number = next_random(&state);
                const uint64_t limit = below(&state, 50) == 0 ? capacity * 2 / 3 : capacity / 40;
                const int reserve = what < 20;
                uint64_t reg_more, spot_more, need, end, used, padding_bytes, actual;
                int wanted, got;
                void *reg = NULL, *spot = NULL;
                draw(&drawn, number, limit);
                reg_more = reserve && below(&state, 2) ? below(&state, 300) : 0;
                spot_more = reserve && below(&state, 2) ? below(&state, 300) : 0;
                need = record_size(&drawn.event, drawn.event.reg_pic_len + reg_more, drawn.event.spot_pic_len + spot_more);
                end = capacity - head % capacity;
                padding_bytes = need > end ? end : 0;
                used = head - tail;
                wanted = need > capacity / 2 ? -EMSGSIZE : padding_bytes + need > capacity - used ? -ENOSPC : 0;
                got = reserve ? sophon_ring_reserve(ring, &drawn.event, drawn.event.reg_pic_len + reg_more,
                                                    drawn.event.spot_pic_len + spot_more, &reg, &spot)
                              : sophon_ring_publish(ring, &drawn.event);
                EQUAL(got, wanted);
                if (got == -ENOSPC)
                    dropped++, refused_count++;
                else if (got == -EMSGSIZE)
                    too_large++;
                if (got == 0 && reserve) {
                    if (reg != NULL)
                        memset(reg, 0xEE, drawn.event.reg_pic_len + reg_more);
                    if (spot != NULL)
                        memset(spot, 0xEE, drawn.event.spot_pic_len + spot_more);
                    if (drawn.event.reg_pic_len > 0)
                        memcpy(reg, drawn.event.reg_pic, drawn.event.reg_pic_len);
                    if (drawn.event.spot_pic_len > 0)
                        memcpy(spot, drawn.event.spot_pic, drawn.event.spot_pic_len);
                    if (below(&state, 10) == 0) {
                        sophon_ring_abort(ring);
                        got = 1;
                    } else {
                        EQUAL(sophon_ring_commit(ring, drawn.event.reg_pic_len, drawn.event.spot_pic_len), 0);
                    }
                }
                if (got == 0) {
                    actual = record_size(&drawn.event,
                                         drawn.event.reg_pic_len + (drawn.event.spot_pic_len > 0 ? reg_more : 0),
                                         drawn.event.spot_pic_len);
                    head += padding_bytes + actual;
                    wraps += padding_bytes > 0;
                    outstanding[(first + count) % 40000].number = number;
                    outstanding[(first + count) % 40000].limit = limit;
                    outstanding[(first + count) % 40000].sequence = ++sequence;
                    count++;
                    published++;
                }
                free(drawn.pictures);
                EQUAL(load64(&view, HEAD), head);
                EQUAL(load64(&view, SEQUENCE), sequence);
                EQUAL(load64(&view, DROPPED), dropped);
                EQUAL(load32(&view, PUBLICATIONS), sequence);
                EQUAL(sophon_ring_dropped(ring), dropped);
            } else if (what < 98) {
                struct seen seen;
                if (count == 0) {
                    CHECK(!next_event(&view, &seen));
                    continue;
                }
                CHECK(next_event(&view, &seen));
                EQUAL(seen.sequence, outstanding[first % 40000].sequence);
                draw(&drawn, outstanding[first % 40000].number, outstanding[first % 40000].limit);
                same_event(&seen, &drawn.event);
                free(drawn.pictures);
                first++;
                count--;
                if (below(&state, 4) != 0) {
                    release(&view);
                    tail = view.position;
                }
            } else if (what == 98) {
                /* Another producer goes on. */
                sophon_ring_close(ring);
                ring = open_ring(below(&state, 2) && head != tail ? 1 << 22 : capacity);
            } else {
                release(&view);
                tail = view.position;
            }
        }
        sophon_ring_close(ring);
        close_view(&view);
    }
    free(outstanding);
    printf("  (%" PRIu64 " operations: %" PRIu64 " published, %" PRIu64 " full, %" PRIu64 " too large, %" PRIu64 " wraps)\n",
           done, published, refused_count, too_large, wraps);
    CHECK(published > done / 5 && refused_count > 0 && too_large > 0 && wraps > 10);
}

/* ---- Two processes ---------------------------------------------------------------------------------------------- */

static uint64_t wake_events;
static int in_lockstep;
static uint32_t sleeps_on;                              /* 1: the futex, 2: the FIFO */

static void spin(uint64_t turns)
{
    while (turns-- > 0)
        __asm__ volatile("" ::: "memory");
}

/* Sleeps until a byte comes, and reads all there are: 0 if none comes in 5 s. */
static int sleep_on_fifo(int fifo)
{
    char bytes[512];
    struct pollfd wanted;
    wanted.fd = fifo;
    wanted.events = POLLIN;
    if (poll(&wanted, 1, 5000) != 1)
        return 0;
    while (read(fifo, bytes, sizeof bytes) > 0)
        continue;
    return 1;
}

/* The same on the futex. */
static int sleep_on_futex(const struct view *view, uint32_t publications)
{
    const struct timespec bound = {5, 0};
    return syscall(SYS_futex, word_at(view, PUBLICATIONS), FUTEX_WAIT, publications, &bound, NULL, 0) == 0
        || errno != ETIMEDOUT;
}

/* The consumer of the ABI's page, but with a bound of 5 s: within it, nothing may be outstanding. */
static void sleeping_consumer(void)
{
    const int fifo = open(path_wake, O_RDWR | O_NONBLOCK);
    struct view view = view_of(path);
    struct seen seen;
    uint64_t last = 0, sleeps = 0, state = seed + 1;
    store32(&view, CONSUMER_PID, (uint32_t)getpid());
    while (last < wake_events) {
        const uint32_t publications = load32(&view, PUBLICATIONS);
        while (next_event(&view, &seen)) {
            EQUAL(seen.sequence, last + 1);
            last = seen.sequence;
            EQUAL(seen.section_length[8], last % 200 + 1);
            EQUAL(seen.section[8][last % 200], last % 251);
            store64(&view, CONSUMED, last);
            release(&view);
        }
        if (load64(&view, HEAD) != view.position || last >= wake_events)
            continue;
        if (in_lockstep)
            spin(below(&state, 1000));                  /* the next one may come here, or any moment later */
        __atomic_store_n((uint32_t *)word_at(&view, WAITING), sleeps_on, __ATOMIC_RELAXED);
#ifndef __SANITIZE_THREAD__
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
        if (load32(&view, PUBLICATIONS) == publications) {
            sleeps++;
            if (!(sleeps_on == 2 ? sleep_on_fifo(fifo) : sleep_on_futex(&view, publications)))
                FAIL("slept 5 s, with %" PRIu64 " of %" PRIu64 " events read and %s", last, wake_events,
                     load64(&view, HEAD) != view.position ? "more in the ring: a lost wake-up" : "no more in the ring");
        }
        __atomic_store_n((uint32_t *)word_at(&view, WAITING), 0, __ATOMIC_RELAXED);
    }
    printf("  (%" PRIu64 " events, slept %" PRIu64 " times)\n", last, sleeps);
    CHECK(sleeps > wake_events / 1000);
}

static void still_there(pid_t pid)
{
    if (waitpid(pid, NULL, WNOHANG) != 0)
        FAIL("the consumer gave up");
}

static void sleeping(void)
{
    sophon_ring *ring;
    struct view view;
    unsigned char picture[256];
    uint64_t state = seed, number, turns = 0;
    pid_t pid;
    remove_all();
    ring = open_ring(65536);
    view = view_of(path);
    pid = start(sleeping_consumer);
    while (load32(&view, CONSUMER_PID) == 0)
        nap_us(100);
    for (number = 1; number <= wake_events; number++) {
        sophon_event event = plain_event();
        int error;
        memset(picture, (int)(number % 251), sizeof picture);
        event.spot_pic = picture;
        event.spot_pic_len = number % 200 + 1;
        while ((error = sophon_ring_publish(ring, &event)) == -ENOSPC) {
            if (++turns % 4096 == 0)
                still_there(pid);
            sched_yield();
        }
        EQUAL(error, 0);
        if (in_lockstep) {
            /* Wait until it is read, and publish the next one just when the consumer is on its way to sleep. */
            for (turns = 0; load64(&view, CONSUMED) < number; turns++)
                if (turns > 10000) {
                    if (turns % 4096 == 0)
                        still_there(pid);
                    sched_yield();
                }
            spin(below(&state, 1000));
        } else if (below(&state, 8) == 0) {
            nap_us((long)below(&state, 200));
        }
    }
    EQUAL(ended(pid), 0);
    sophon_ring_close(ring);
    close_view(&view);
}

static void wake_up(void)
{
    wake_events = operations / 5;
    in_lockstep = 0;
    for (sleeps_on = 1; sleeps_on <= 2; sleeps_on++)
        sleeping();
}

static void wake_up_in_lockstep(void)
{
    wake_events = operations * 3 / 2;
    in_lockstep = 1;
    for (sleeps_on = 1; sleeps_on <= 2; sleeps_on++)
        sleeping();
}

/* ---- Two threads, for the thread sanitizer ---------------------------------------------------------------------- */

static struct view shared_view;
static uint64_t thread_events;
static int by_publications;

/* Reads through the producer's own mapping, which is the only one whose accesses a sanitizer can bring together. */
static void *reading_thread(void *nothing)
{
    struct seen seen;
    uint64_t last = 0;
    while (last < thread_events) {
        if (by_publications) {
            /* Whoever sees the number must see the event, without another look at head. */
            const uint32_t seen_publications = load32(&shared_view, PUBLICATIONS);
            if (seen_publications > last) {
                uint64_t offset = shared_view.position % shared_view.capacity;
                const unsigned char *at = shared_view.bytes + HEADER + offset;
                if (get32(at + 4) == 2) {
                    shared_view.position += get32(at);
                    at = shared_view.bytes + HEADER;
                }
                take_apart(at, get32(at), &seen);
                shared_view.position += seen.length;
                EQUAL(seen.sequence, ++last);
                release(&shared_view);
            } else {
                sched_yield();
            }
        } else if (next_event(&shared_view, &seen)) {
            EQUAL(seen.sequence, ++last);
            EQUAL(seen.section[8][0], last % 251);
            release(&shared_view);
        } else {
            sched_yield();
        }
    }
    return nothing;
}

static void threads(void)
{
    sophon_ring *ring;
    unsigned char picture[2000];
    uint64_t number;
    pthread_t thread;
    for (by_publications = 0; by_publications < 2; by_publications++) {
        remove_all();
        ring = open_ring(65536);
        thread_events = operations / 5;
        shared_view.bytes = (unsigned char *)(void *)ring->header;
        shared_view.capacity = 65536;
        shared_view.position = 0;
        CHECK(pthread_create(&thread, NULL, reading_thread, NULL) == 0);
        for (number = 1; number <= thread_events; number++) {
            sophon_event event = plain_event();
            int error;
            memset(picture, (int)(number % 251), sizeof picture);
            event.spot_pic = picture;
            event.spot_pic_len = number * 7 % sizeof picture + 1;
            while ((error = sophon_ring_publish(ring, &event)) == -ENOSPC)
                sched_yield();
            EQUAL(error, 0);
        }
        CHECK(pthread_join(thread, NULL) == 0);
        sophon_ring_close(ring);
    }
}

/* ---- Every instruction ------------------------------------------------------------------------------------------ */

#ifdef __x86_64__
static sophon_event stepped_event;
static int stepped_reservation;

static void be_traced(void)
{
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
        _exit(77);
}

/* Stops before and after what is to be looked at. The event goes behind a padding record. */
static void stepped_publish(void)
{
    sophon_ring *const ring = open_ring(65536);
    struct view view = view_of(path);
    void *reg, *spot;
    be_traced();
    EQUAL(publish_sized(ring, 32768), 0);
    EQUAL(publish_sized(ring, 32768 - 64), 0);
    EQUAL(drain(&view), 2);
    raise(SIGSTOP);
    if (stepped_reservation) {
        EQUAL(sophon_ring_reserve(ring, &stepped_event, 100, 200, &reg, &spot), 0);
        memcpy(reg, stepped_event.reg_pic, stepped_event.reg_pic_len);
        memcpy(spot, stepped_event.spot_pic, stepped_event.spot_pic_len);
        EQUAL(sophon_ring_commit(ring, stepped_event.reg_pic_len, stepped_event.spot_pic_len), 0);
    } else {
        EQUAL(sophon_ring_publish(ring, &stepped_event), 0);
    }
    raise(SIGSTOP);
}

static void stepped_open(void)
{
    be_traced();
    raise(SIGSTOP);
    open_ring(65536);
    raise(SIGSTOP);
}

/* Waits for the first stop: 0 if it may not be traced. */
static int stopped(pid_t pid)
{
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
        printf("  (every_instruction: skipped, no right to trace)\n");
        return 0;
    }
    CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
    return 1;
}

/* One instruction: 0 at the second stop. Notes a fence (mfence, or a locked instruction), and a system call that wakes. */
static int step(pid_t pid, int *fenced, int *woke)
{
    struct user_regs_struct registers;
    long code;
    int status;
    CHECK(ptrace(PTRACE_GETREGS, pid, NULL, &registers) == 0);
    code = ptrace(PTRACE_PEEKTEXT, pid, (void *)(uintptr_t)registers.rip, NULL);
    if ((code & 0xFFFFFF) == 0xF0AE0F || (code & 0xFF) == 0xF0)
        *fenced = 1;
    if ((code & 0xFFFF) == 0x050F && ((registers.rax == SYS_futex && registers.rsi == FUTEX_WAKE)
                                      || registers.rax == SYS_write)) {
        CHECK(*fenced);
        *woke = registers.rax == SYS_futex ? 1 : 2;
    }
    CHECK(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) == 0);
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(WIFSTOPPED(status));
    if (WSTOPSIG(status) == SIGTRAP)
        return 1;
    EQUAL(WSTOPSIG(status), SIGSTOP);
    CHECK(kill(pid, SIGKILL) == 0);
    CHECK(WIFSIGNALED(ended(pid)));
    return 0;
}

/* A producer may be killed between any two instructions: after each of them, the file is looked at as a successor would. */
static void every_instruction(void)
{
    struct view view;
    struct seen seen;
    uint64_t head, publishing = 0, opening = 0;
    int i, fenced = 0, woke, waiting;
    pid_t pid;
    stepped_event = plain_event();
    stepped_event.identity_id = "stepped";
    stepped_event.reg_pic = "registered";
    stepped_event.reg_pic_len = 10;
    stepped_event.spot_pic = "on the spot";
    stepped_event.spot_pic_len = 11;
    for (i = 0; i < 6; i++) {
        stepped_reservation = i / 3;
        waiting = i % 3;
        remove_all();
        pid = start(stepped_publish);
        if (!stopped(pid))
            return;
        view = view_of(path);
        head = load64(&view, HEAD);
        EQUAL(load64(&view, SEQUENCE), 2);
        for (woke = 0; step(pid, &fenced, &woke); publishing++) {
            const uint64_t now = load64(&view, HEAD), sequence = load64(&view, SEQUENCE);
            const uint32_t publications = load32(&view, PUBLICATIONS);
            CHECK(sequence == 2 || sequence == 3);
            CHECK(publications == 2 || publications == 3);
            if (now != head) {
                EQUAL(sequence, 3);                     /* else a successor would give the number once more */
                view.position = head;
                CHECK(next_event(&view, &seen));
                EQUAL(seen.sequence, 3);
                same_event(&seen, &stepped_event);
                EQUAL(view.position, now);
            }
            if (publications == 2)
                fenced = 0;                             /* it counts between this number and the look at `waiting` */
            if (now == head) {
                EQUAL(publications, 2);                 /* else a consumer would sleep upon it */
            }
            /* The consumer wants to sleep at the last moment: before the number that it looks at has changed. */
            if (waiting && publications == 3)
                store32(&view, WAITING, (uint32_t)waiting);
        }
        CHECK(load64(&view, HEAD) != head);
        EQUAL(woke, waiting);
        close_view(&view);
    }

    remove_all();
    pid = start(stepped_open);
    CHECK(stopped(pid));
    while (step(pid, &fenced, &woke)) {
        opening++;
        if (exists(path)) {
            view = view_of(path);
            EQUAL(view.capacity, 65536);
            CHECK(memcmp(view.bytes, "SPOHRING\1\0\0\0\0\x10\0\0\0\0\1\0\0\0\0\0", 24) == 0);
            CHECK(get64(view.bytes + ID) != 0);
            close_view(&view);
        }
    }
    CHECK(exists(path));
    printf("  (%" PRIu64 " instructions of publishing, %" PRIu64 " of opening)\n", publishing, opening);
}
#else
static void every_instruction(void)
{
    printf("  (every_instruction: skipped, x86_64 only)\n");
}
#endif

/* Many producers that all want the same name: one at a time has it, and no event is lost or torn. */
static void contending_producer(void)
{
    uint64_t state = seed + (uint64_t)getpid();
    int turns, published = 0;
    for (turns = 0; turns < 400; turns++) {
        sophon_ring *ring;
        const int error = sophon_ring_open(&ring, path, UINT64_C(65536) << below(&state, 2));
        CHECK(error == 0 || error == -EBUSY);
        if (error == -EBUSY) {
            sched_yield();
            continue;
        }
        if (sophon_ring_dropped(ring) == 0 && publish_sized(ring, 64) == 0)
            published++;
        sophon_ring_close(ring);
    }
    CHECK(write(channel[1], &published, sizeof published) == sizeof published);
}

static void contention(void)
{
    pid_t pids[4];
    struct view view;
    int i, published, in_all = 0, read_here = 0;
    remove_all();
    CHECK(pipe(channel) == 0);
    for (i = 0; i < 4; i++)
        pids[i] = start(contending_producer);
    for (i = 0; i < 4; i++) {
        EQUAL(ended(pids[i]), 0);
        CHECK(read(channel[0], &published, sizeof published) == sizeof published);
        in_all += published;
    }
    view = view_of(path);
    read_here = drain(&view);                           /* nobody read: nothing was empty, nothing was replaced but once */
    EQUAL(read_here, in_all);
    CHECK(in_all > 0);
    CHECK(!exists(path_new) && !exists(path_bad));
    close_view(&view);
    close(channel[0]);
    close(channel[1]);
}

static pid_t main_pid;

static void clean_up(void)
{
    if (getpid() == main_pid) {
        remove_all();
        rmdir(folder);
    }
}

static const struct {
    const char *name;
    void (*run)(void);
    int in_child;
} tests[] = {
    {"header", header, 0}, {"fifo", fifo, 0}, {"no_fifo", no_fifo, 0}, {"record", record, 0}, {"arguments", arguments, 0}, {"size_limit", size_limit, 0},
    {"full", full, 0}, {"padding", padding, 0}, {"tail_garbage", tail_garbage, 0},
    {"head_garbage", head_garbage, 0}, {"reservations", reservations, 0},
    {"locks", locks, 0}, {"death", death, 0}, {"capacity_change", capacity_change, 0}, {"foreign", foreign, 0},
    {"not_files", not_files, 0}, {"leftovers", leftovers, 0}, {"replaced_meanwhile", replaced_meanwhile, 0},
    {"failures", failures, 0}, {"removed_unread", removed_unread, 0}, {"removed_while_read", removed_while_read, 0},
    {"removed_and_not_made", removed_and_not_made, 0}, {"removed_elsewhere", removed_elsewhere, 0},
    {"closed_or_died", closed_or_died, 0}, {"ids", ids, 0}, {"other_filesystems", other_filesystems, 1}, {"random_operations", random_operations, 0},
    {"contention", contention, 0}, {"every_instruction", every_instruction, 0}, {"wake_up", wake_up, 0},
    {"wake_up_in_lockstep", wake_up_in_lockstep, 0}, {"threads", threads, 0}};

int main(int count, char **arguments_given)
{
    const char *only = NULL;
    const char *parent = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    size_t i, passed = 0;
    int a, descriptors;
    struct timespec now;
    getrandom_call = real_getrandom();
    clock_gettime(CLOCK_REALTIME, &now);
    seed = (uint64_t)now.tv_nsec ^ (uint64_t)getpid() << 32;
    for (a = 1; a + 1 < count; a += 2) {
        if (strcmp(arguments_given[a], "--seed") == 0)
            seed = strtoull(arguments_given[a + 1], NULL, 0);
        else if (strcmp(arguments_given[a], "--count") == 0)
            operations = strtoull(arguments_given[a + 1], NULL, 0);
        else if (strcmp(arguments_given[a], "--only") == 0)
            only = arguments_given[a + 1];
        else
            a = count;
    }
    if (a != count) {
        fprintf(stderr, "usage: ring_test [--seed N] [--count N] [--only TEST]\n");
        return 2;
    }
    snprintf(folder, sizeof folder, "%s/ring_test.XXXXXX", parent);
    CHECK(mkdtemp(folder) != NULL);
    main_pid = getpid();
    CHECK(atexit(clean_up) == 0);
    snprintf(path, sizeof path, "%s/ring", folder);
    snprintf(path_new, sizeof path_new, "%s.new", path);
    snprintf(path_bad, sizeof path_bad, "%s.bad", path);
    snprintf(path_wake, sizeof path_wake, "%s.wake", path);
    printf("ring_test: seed %" PRIu64 "\n", seed);
    descriptors = open_descriptors();
    for (i = 0; i < sizeof tests / sizeof *tests; i++) {
        if (only != NULL && strcmp(only, tests[i].name) != 0)
            continue;
        test_name = tests[i].name;
        if (tests[i].in_child)
            in_child(tests[i].run);
        else
            tests[i].run();
        EQUAL(open_descriptors(), descriptors);
        EQUAL(mappings_of_rings(), 0);
        printf("  %s: ok\n", tests[i].name);
        fflush(stdout);
        passed++;
    }
    printf("ring_test: %zu tests passed\n", passed);
    return passed > 0 ? 0 : 1;
}
