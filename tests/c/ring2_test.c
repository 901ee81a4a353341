/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What ABI 2 adds to include/sophon_ring.h: named pictures, members at the top level, and how a ring becomes one of that version.
 * The reader is written here anew from docs/ring-abi.md. Prints its seed; --seed N takes another one, --count N more operations.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "../../include/sophon_ring.h"

#include <sys/wait.h>

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: seed %llu: %s\n", __FILE__, __LINE__, (unsigned long long)first_seed, #condition); \
            exit(1); \
        } \
    } while (0)

#define CAPACITY (UINT64_C(1) << 18)
#define MOST 16

static uint64_t first_seed = 1, state;
static char path[200];
static unsigned char bytes[1 << 17];

static uint64_t below(uint64_t limit)
{
    uint64_t z = (state += UINT64_C(0x9E3779B97F4A7C15));
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    return ((z ^ (z >> 27)) >> 11) % limit;
}

static uint32_t get32(const unsigned char *at)
{
    uint32_t value;
    memcpy(&value, at, 4);
    return value;
}

/* The last event of the ring, with each section where it is. */
struct seen {
    const unsigned char *at[32];
    uint32_t length[32];
    uint64_t size;
};

static struct seen last_event(sophon_ring *ring, uint64_t before)
{
    struct seen seen;
    const unsigned char *record;
    uint64_t at = 40, from = before % CAPACITY;
    memset(&seen, 0, sizeof seen);
    if (get32(ring->data + from + 4) == 2)
        from = 0;
    record = ring->data + from;
    CHECK(get32(record + 4) == 1);
    seen.size = get32(record);
    CHECK((from + seen.size) % CAPACITY == ring->head % CAPACITY);
    while (at < seen.size) {
        const uint32_t kind = get32(record + at), length = get32(record + at + 4);
        CHECK(kind < 32 && (kind <= 10 || kind >= 16));
        if (kind != 0) {
            CHECK(seen.at[kind] == NULL && length > 0);
            seen.at[kind] = record + at + 8;
            seen.length[kind] = length;
        }
        at += 8 + (length + 7) / 8 * 8;
    }
    CHECK(at == seen.size);
    return seen;
}

/* Everything was read. */
static void release(sophon_ring *ring)
{
    __atomic_store_n(&ring->header->tail, ring->head, __ATOMIC_RELEASE);
}

static void same(const struct seen *seen, uint32_t kind, const void *wanted, size_t length)
{
    CHECK(seen->length[kind] == length);
    CHECK(length == 0 || memcmp(seen->at[kind], wanted, length) == 0);
}

/* Removes the file whose name is `path` and this suffix, if it exists. */
static void remove_with(const char *suffix)
{
    char name[sizeof path + 16];
    sprintf(name, "%s%s", path, suffix);
    unlink(name);
}

static sophon_ring *open_new(void)
{
    sophon_ring *ring;
    unlink(path);
    CHECK(sophon_ring_open(&ring, path, CAPACITY) == 0);
    CHECK(ring->header->abi_version == 1);
    return ring;
}

static sophon_picture picture(const char *name, int32_t place, const void *data, size_t len)
{
    sophon_picture made;
    made.name = name;
    made.place = place;
    made.data = data;
    made.len = len;
    return made;
}

static sophon_event2 event_with(const sophon_picture *pictures, size_t count)
{
    sophon_event2 event;
    memset(&event, 0xFF, sizeof event);
    sophon_event2_init(&event);
    event.event.score = 0.5f;
    event.pictures = pictures;
    event.pictures_count = count;
    return event;
}

static void every_byte(void)
{
    sophon_ring *ring = open_new();
    sophon_picture pictures[2];
    struct seen seen;
    sophon_event2 event;
    static const char names[] = "\1\16recognize_face\0\4full";
    pictures[0] = picture("recognize_face", SOPHON_PLACE_EXT_DATA, "face!", 5);
    pictures[1] = picture("full", SOPHON_PLACE_TOP, "whole picture", 13);
    event = event_with(pictures, 2);
    event.event.identity_id = "7";
    event.event.reg_pic = "registered";
    event.event.reg_pic_len = 10;
    event.top_json = "{\"device_id\": 1}";
    CHECK(event.event.device_type == -1 && event.size == sizeof event);
    CHECK(sophon_ring_publish2(ring, &event) == 0);
    CHECK(ring->header->abi_version == 2);
    seen = last_event(ring, 0);
    same(&seen, 1, "7", 1);
    same(&seen, 7, "registered", 10);
    same(&seen, 9, "{\"device_id\": 1}", 16);
    same(&seen, 10, names, sizeof names - 1);
    same(&seen, 16, "face!", 5);
    same(&seen, 17, "whole picture", 13);
    CHECK(seen.size == 40 + 16 + 24 + 32 + 24 + 16 + 24);
    /* An event without anything new is one of ABI 1, byte for byte. */
    release(ring);
    {
        const uint64_t first = ring->head;
        sophon_event plain = event.event;
        event.top_json = "";
        event.pictures_count = 0;
        CHECK(sophon_ring_publish2(ring, &event) == 0);
        CHECK(sophon_ring_publish(ring, &plain) == 0);
        CHECK(2 * (ring->head - first) / 2 == ring->head - first);
        {
            const uint64_t size = (ring->head - first) / 2;
            const unsigned char *one = ring->data + first, *two = one + size;
            CHECK(memcmp(one, two, 8) == 0 && memcmp(one + 16, two + 16, size - 16) == 0);
        }
    }
    sophon_ring_close(ring);
}

static void refused(sophon_ring *ring, const sophon_event2 *event, int error)
{
    const uint64_t head = ring->head, dropped = ring->dropped;
    void *reg, *spot, *rooms[MOST];
    size_t i;
    for (i = 0; i < MOST; i++)
        rooms[i] = rooms;
    CHECK(sophon_ring_publish2(ring, event) == error);
    CHECK(sophon_ring_reserve2(ring, event, &reg, &spot, rooms) == error);
    for (i = 0; event->size >= sizeof *event && i < event->pictures_count && i < MOST; i++)
        CHECK(rooms[i] == NULL);
    CHECK(ring->head == head && !ring->reserved && reg == NULL && spot == NULL);
    CHECK(ring->dropped == dropped + (error == -ENOSPC ? 2 : 0));
}

static void arguments(void)
{
    static const char *const bad[] = { "", "a b", "a\"", "a\r\n", "\303\251", "identity_id", "identity_name", "group_name",
                                       "reg_pic", "timestamp", "score", "ext_data",
                                       "12345678901234567890123456789012345678901234567890123456789012345" };
    static const char *const bad_below[] = { "spot_pic", "device_ip", "person_type", "device_type" };
    static const char longest[] = "1234567890123456789012345678901234567890123456789012345678901234";
    sophon_ring *ring = open_new();
    sophon_picture pictures[MOST + 1];
    sophon_event2 event = event_with(pictures, 1);
    char name[MOST + 1][4];
    size_t i;
    for (i = 0; i < sizeof bad / sizeof *bad; i++) {
        pictures[0] = picture(bad[i], SOPHON_PLACE_TOP, "x", 1);
        refused(ring, &event, -EINVAL);
    }
    for (i = 0; i < sizeof bad_below / sizeof *bad_below; i++) {
        pictures[0] = picture(bad_below[i], SOPHON_PLACE_EXT_DATA, "x", 1);
        refused(ring, &event, -EINVAL);
        pictures[0].place = SOPHON_PLACE_TOP;       /* nobody else's there */
        CHECK(sophon_ring_publish2(ring, &event) == 0);
        release(ring);
    }
    pictures[0] = picture(NULL, SOPHON_PLACE_TOP, "x", 1);
    refused(ring, &event, -EINVAL);
    pictures[0] = picture("x", 2, "x", 1);
    refused(ring, &event, -EINVAL);
    pictures[0] = picture("x", -1, "x", 1);
    refused(ring, &event, -EINVAL);
    pictures[0] = picture(longest, SOPHON_PLACE_TOP, "x", 1);
    CHECK(sophon_ring_publish2(ring, &event) == 0);
    release(ring);

    /* No data is an error of publish, and nothing to reserve. */
    pictures[0] = picture("x", SOPHON_PLACE_TOP, NULL, 1);
    CHECK(sophon_ring_publish2(ring, &event) == -EINVAL);
    CHECK(sophon_ring_reserve2(ring, &event, NULL, NULL, NULL) == -EINVAL);
    pictures[0].len = 0;
    CHECK(sophon_ring_reserve2(ring, &event, NULL, NULL, NULL) == 0);
    CHECK(sophon_ring_publish2(ring, &event) == -EBUSY);
    sophon_ring_abort(ring);

    /* Twice at one place, not at two. */
    pictures[0] = picture("x", SOPHON_PLACE_TOP, "x", 1);
    pictures[1] = picture("x", SOPHON_PLACE_TOP, "y", 1);
    event.pictures_count = 2;
    refused(ring, &event, -EINVAL);
    pictures[1].place = SOPHON_PLACE_EXT_DATA;
    CHECK(sophon_ring_publish2(ring, &event) == 0);
    release(ring);

    for (i = 0; i <= MOST; i++) {
        sprintf(name[i], "n%u", (unsigned)i);
        pictures[i] = picture(name[i], SOPHON_PLACE_TOP, "x", 1);
    }
    event.pictures_count = MOST + 1;
    refused(ring, &event, -EINVAL);
    event.pictures_count = MOST;
    CHECK(sophon_ring_publish2(ring, &event) == 0);
    release(ring);
    event.pictures = NULL;
    refused(ring, &event, -EINVAL);

    event = event_with(NULL, 0);
    event.size = 0;
    refused(ring, &event, -EINVAL);
    event.size = sizeof event - 1;
    refused(ring, &event, -EINVAL);
    event.size = sizeof event + 64;                 /* of a caller that knows more: what it added is 0 here */
    CHECK(sophon_ring_publish2(ring, &event) == 0);
    CHECK(sophon_ring_publish2(ring, NULL) == -EINVAL && sophon_ring_publish2(NULL, &event) == -EINVAL);
    CHECK(sophon_ring_reserve2(ring, NULL, NULL, NULL, NULL) == -EINVAL);
    sophon_event2_init(NULL);

    /* Of each length alone, and of the sum. */
    event = event_with(pictures, 1);
    pictures[0] = picture("x", SOPHON_PLACE_TOP, bytes, SIZE_MAX);
    refused(ring, &event, -EMSGSIZE);
    pictures[0].len = CAPACITY / 2 - 40 - 8 - 16 + 1;
    refused(ring, &event, -EMSGSIZE);
    pictures[0].len -= 1;
    CHECK(sophon_ring_publish2(ring, &event) == 0);
    refused(ring, &event, -ENOSPC);
    CHECK(ring->dropped == 2);
    sophon_ring_close(ring);
}

/* What is published of a reservation is what a shorter event would be, with fillers where a picture cannot move. */
static void commits(void)
{
    sophon_ring *ring = open_new();
    sophon_picture pictures[2];
    sophon_event2 event = event_with(pictures, 2);
    void *rooms[2], *reg, *spot;
    size_t lens[2];
    int turn;
    pictures[0] = picture("one", SOPHON_PLACE_TOP, NULL, 500);
    pictures[1] = picture("two", SOPHON_PLACE_EXT_DATA, NULL, 700);
    event.event.reg_pic_len = 100;
    event.event.spot_pic_len = 300;
    for (turn = 0; turn < 16; turn++) {
        const size_t reg_len = turn & 1 ? 99 : 0, spot_len = turn & 2 ? 300 : 0;
        const uint64_t before = ring->head;
        struct seen seen;
        CHECK(sophon_ring_reserve2(ring, &event, &reg, &spot, rooms) == 0);
        CHECK((uintptr_t)reg % 8 == 0 && (uintptr_t)rooms[0] % 8 == 0 && (uintptr_t)rooms[1] % 8 == 0);
        memset(reg, 1, 100);
        memset(spot, 2, 300);
        memset(rooms[0], 3, 500);
        memset(rooms[1], 4, 700);
        lens[0] = 501;
        lens[1] = 700;
        CHECK(sophon_ring_commit2(ring, reg_len, spot_len, lens) == -EINVAL && ring->reserved);
        lens[0] = turn & 4 ? 1 : 0;
        lens[1] = turn & 8 ? 699 : 0;
        CHECK(sophon_ring_commit2(ring, reg_len, spot_len, lens) == 0);
        seen = last_event(ring, before);
        CHECK(seen.length[7] == reg_len && seen.length[8] == spot_len);
        CHECK(seen.length[16] == lens[0] && seen.length[17] == lens[1]);
        CHECK(reg_len == 0 || seen.at[7][98] == 1);
        CHECK(spot_len == 0 || seen.at[8][299] == 2);
        CHECK(lens[0] == 0 || seen.at[16][0] == 3);
        CHECK(lens[1] == 0 || seen.at[17][698] == 4);
        CHECK(turn != 0 || seen.size == 40 + 8 + 16);       /* all of it given back */
        release(ring);
    }
    /* The commit of ABI 1: without the named ones. */
    {
        const uint64_t before = ring->head;
        struct seen seen;
        CHECK(sophon_ring_reserve2(ring, &event, &reg, &spot, rooms) == 0);
        CHECK(sophon_ring_commit(ring, 100, 0) == 0);
        seen = last_event(ring, before);
        CHECK(seen.length[7] == 100 && seen.length[16] == 0 && seen.length[17] == 0 && seen.length[10] == 10);
    }
    sophon_ring_close(ring);
}

/* A sophon-uplink that reads `abi`, in another process; it says `written` with its pid, or another's. */
static int publish_beside(uint32_t abi, int is_its_own, int *version)
{
    sophon_ring *ring = open_new();
    sophon_picture face = picture("face", SOPHON_PLACE_EXT_DATA, "x", 1);
    sophon_event2 event = event_with(&face, 1);
    int up[2], down[2], result;
    char byte = 0;
    pid_t child;
    CHECK(pipe(up) == 0 && pipe(down) == 0);
    child = fork();
    if (child == 0) {
        const int fd = open(path, O_RDWR);
        struct flock lock;
        memset(&lock, 0, sizeof lock);
        lock.l_type = F_WRLCK;
        lock.l_whence = SEEK_SET;
        lock.l_start = 0x100;
        lock.l_len = 1;
        if (fcntl(fd, F_OFD_SETLK, &lock) != 0)
            _exit(1);
        ring->header->consumer_pid = (uint32_t)getpid();
        ring->header->consumer_abi_pid = is_its_own ? (uint32_t)getpid() : 1;
        ring->header->consumer_abi = abi;
        if (write(up[1], "x", 1) != 1)
            _exit(1);
        close(down[1]);
        _exit(read(down[0], &byte, 1) != 0);
    }
    close(up[1]);
    CHECK(read(up[0], &byte, 1) == 1);
    result = sophon_ring_publish2(ring, &event);
    *version = (int)ring->header->abi_version;
    /* An event without anything new goes through in any case. */
    event.pictures_count = 0;
    CHECK(sophon_ring_publish2(ring, &event) == 0 && sophon_ring_publish(ring, &event.event) == 0);
    CHECK(ring->dropped == 0 && ring->sequence == (result == 0 ? 3u : 2u));
    close(down[1]);
    close(down[0]);
    close(up[0]);
    {
        int status;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
    }
    /* The reader is gone, and with it what was in the way. */
    event.pictures_count = 1;
    CHECK(sophon_ring_publish2(ring, &event) == 0 && ring->header->abi_version == 2);
    /* Nobody keeps the reader's lock. */
    {
        struct flock lock;
        const int fd = open(path, O_RDWR);
        memset(&lock, 0, sizeof lock);
        lock.l_type = F_WRLCK;
        lock.l_whence = SEEK_SET;
        lock.l_start = 0x100;
        lock.l_len = 1;
        CHECK(fcntl(fd, F_OFD_SETLK, &lock) == 0);
        close(fd);
    }
    sophon_ring_close(ring);
    return result;
}

static void versions(void)
{
    int version;
    CHECK(publish_beside(0, 0, &version) == -EPROTONOSUPPORT && version == 1);
    CHECK(publish_beside(1, 1, &version) == -EPROTONOSUPPORT && version == 1);
    CHECK(publish_beside(2, 0, &version) == -EPROTONOSUPPORT && version == 1);   /* the word of one that was killed */
    CHECK(publish_beside(2, 1, &version) == 0 && version == 2);
    CHECK(publish_beside(3, 1, &version) == 0 && version == 2);

    /* Taken over with what is in it, whatever its version is; and renewed under its own. */
    {
        sophon_ring *ring = open_new();
        sophon_picture face = picture("face", SOPHON_PLACE_EXT_DATA, "x", 1);
        sophon_event2 event = event_with(&face, 1);
        CHECK(sophon_ring_publish(ring, &event.event) == 0 && ring->header->abi_version == 1);
        sophon_ring_close(ring);
        CHECK(sophon_ring_open(&ring, path, CAPACITY) == 0 && ring->sequence == 1 && ring->header->abi_version == 1);
        CHECK(sophon_ring_publish2(ring, &event) == 0 && ring->sequence == 2 && ring->header->abi_version == 2);
        sophon_ring_close(ring);
        CHECK(sophon_ring_open(&ring, path, CAPACITY) == 0 && ring->sequence == 2 && ring->header->abi_version == 2);
        CHECK(unlink(path) == 0);
        ring->look_at = 0;
        event.pictures_count = 0;
        CHECK(sophon_ring_publish2(ring, &event) == 0 && ring->sequence == 3 && ring->header->abi_version == 2);
        CHECK(access(path, F_OK) == 0);
        /* Of a version that nobody knows yet: set aside. */
        ring->header->abi_version = 3;
        sophon_ring_close(ring);
        CHECK(sophon_ring_open(&ring, path, CAPACITY) == 0 && ring->sequence == 0 && ring->header->abi_version == 1);
        sophon_ring_close(ring);
    }
}

static void random_events(uint64_t count)
{
    sophon_ring *ring = open_new();
    uint64_t i;
    for (i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)below(256);
    while (count-- > 0) {
        sophon_picture pictures[MOST];
        char name[MOST][8];
        const size_t named = below(MOST + 1);
        sophon_event2 event = event_with(pictures, named);
        const uint64_t before = ring->head;
        struct seen seen;
        size_t lens[MOST], j;
        for (j = 0; j < named; j++) {
            sprintf(name[j], "%c%u", (char)('a' + (int)below(26)), (unsigned)j);
            pictures[j] = picture(name[j], (int32_t)below(2), bytes + below(1000), below(4) == 0 ? 0 : below(6000));
            lens[j] = pictures[j].len == 0 ? 0 : below(pictures[j].len + 1);
        }
        event.event.reg_pic = bytes;
        event.event.reg_pic_len = below(2) * below(5000);
        event.event.spot_pic = bytes + 1;
        event.event.spot_pic_len = below(2) * below(5000);
        event.top_json = below(2) ? "{}" : NULL;
        if (below(2)) {
            CHECK(sophon_ring_publish2(ring, &event) == 0);
            for (j = 0; j < named; j++)
                lens[j] = pictures[j].len;
        } else {
            void *reg, *spot, *rooms[MOST];
            CHECK(sophon_ring_reserve2(ring, &event, &reg, &spot, rooms) == 0);
            for (j = 0; j < named; j++)
                if (lens[j] > 0)
                    memcpy(rooms[j], pictures[j].data, lens[j]);
            if (event.event.reg_pic_len > 0)
                memcpy(reg, bytes, event.event.reg_pic_len);
            if (event.event.spot_pic_len > 0)
                memcpy(spot, bytes + 1, event.event.spot_pic_len);
            if (below(8) == 0) {
                sophon_ring_abort(ring);
                CHECK(ring->head == before);
                continue;
            }
            CHECK(sophon_ring_commit2(ring, event.event.reg_pic_len, event.event.spot_pic_len, lens) == 0);
        }
        seen = last_event(ring, before);
        same(&seen, 7, event.event.reg_pic, event.event.reg_pic_len);
        same(&seen, 8, event.event.spot_pic, event.event.spot_pic_len);
        same(&seen, 9, event.top_json, event.top_json == NULL ? 0 : 2);
        for (j = 0; j < MOST; j++)
            same(&seen, 16 + (uint32_t)j, j < named ? pictures[j].data : NULL, j < named ? lens[j] : 0);
        release(ring);
    }
    sophon_ring_close(ring);
}

int main(int count, char **given)
{
    uint64_t operations = 20000;
    int i;
    for (i = 1; i + 1 < count; i += 2) {
        if (strcmp(given[i], "--seed") == 0)
            first_seed = strtoull(given[i + 1], NULL, 10);
        else if (strcmp(given[i], "--count") == 0)
            operations = strtoull(given[i + 1], NULL, 10);
    }
    state = first_seed;
    sprintf(path, "%s/ring2_test.%ld", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp", (long)getpid());
    printf("ring2_test: seed %llu\n", (unsigned long long)first_seed);
    every_byte();
    arguments();
    commits();
    versions();
    random_events(operations);
    remove_with(".bad");
    remove_with(".bad.wake");
    remove_with(".wake");
    remove_with("");
    printf("ring2_test: all is well\n");
    return 0;
}
