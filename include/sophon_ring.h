/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sophon_ring.h: passes a face recognizer's events to sophon-uplink through a ring in shared memory.
 *
 * C99 or C++11, gcc or clang, 64-bit little-endian Linux (4.9 and up). Include this file; there is no library to link
 * and no macro to define first. The ring is a file on tmpfs, by default /dev/shm/sophonfog.events, which
 * sophon-uplink reads. Start order does not matter; a successor continues where a dead process stopped.
 *
 *     sophon_ring *ring;
 *     int error = sophon_ring_open(&ring, "/dev/shm/sophonfog.events", 16u << 20);
 *     if (error != 0) { fprintf(stderr, "event ring: %s\n", strerror(-error)); return; }
 *
 *     sophon_event event;
 *     memset(&event, 0, sizeof event);
 *     event.identity_id = "1042";
 *     event.identity_name = "Li Lei";
 *     event.group_name = "Staff";
 *     event.timestamp_ms = now_in_milliseconds;
 *     event.score = 0.93f;
 *     event.device_type = -1;                        // not reported: 0 would be a gate
 *
 *     // The pictures are JPEGs in memory: one copy, into the ring.
 *     event.reg_pic = registered;  event.reg_pic_len = registered_bytes;
 *     event.spot_pic = spot;       event.spot_pic_len = spot_bytes;
 *     error = sophon_ring_publish(ring, &event);     // -ENOSPC: the ring is full, the event is counted as dropped
 *
 *     // Or the encoder writes the picture straight into the ring: no copy.
 *     void *room;
 *     error = sophon_ring_reserve(ring, &event, 0, 200000, NULL, &room);
 *     if (error == 0) {
 *         size_t bytes = encode_jpeg(frame, room, 200000);               // 0: it failed
 *         if (bytes > 0) sophon_ring_commit(ring, 0, bytes);
 *         else sophon_ring_abort(ring);
 *     }
 *
 *     // Further pictures and members at the top level (ABI 2).
 *     sophon_picture face;
 *     sophon_event2 more;
 *     sophon_event2_init(&more);                     // everything "none", device_type "not reported"
 *     more.event = event;
 *     more.top_json = "{\"device_id\": \"9d1c\"}";
 *     face.name = "recognize_face";  face.place = SOPHON_PLACE_EXT_DATA;
 *     face.data = cut_out;           face.len = cut_out_bytes;
 *     more.pictures = &face;         more.pictures_count = 1;
 *     error = sophon_ring_publish2(ring, &more);     // -EPROTONOSUPPORT: this sophon-uplink reads ABI 1 only
 *
 *     sophon_ring_close(ring);
 *
 * Threads: only one thread at a time may use a ring. There are no locks inside. A recognizer with several threads
 * puts its own mutex around the calls (around everything from sophon_ring_reserve to its commit or abort), or gives
 * each thread a ring of its own.
 *
 * Cost of an event: its bytes are copied once (not at all between reserve and commit), plus a few atomic stores and
 * one fence. There is no lock and no allocation. The only system calls are the one that wakes sophon-uplink while it
 * sleeps, and a check of the ring's name at most ten times a second. No call waits.
 *
 * Errors are returned as negative numbers of <errno.h>; the value of `errno` itself is undefined after a call.
 *
 * fork: the child shares the ring's lock and must not use the ring (sophon_ring_close is allowed, and does not affect
 * the parent's lock). While such a child lives, the ring stays locked, even if the parent dies. So children that
 * outlive the recognizer must exec, which closes the ring's descriptor.
 *
 * Death: a process that is killed at any moment, even inside one of these functions, leaves a valid ring. Published
 * events are delivered, unpublished ones are not in the ring, and the next sophon_ring_open takes the ring over.
 *
 * A removed name: if something removes the ring's file while the recognizer uses it (a cleanup script, or RemoveIPC
 * when its user logs out), the next publish or reserve creates a new ring of the same capacity. Events that
 * sophon-uplink has not read move to the new ring, or, if sophon-uplink has the old ring open, it reads that to its
 * end. That one call takes as long as sophon_ring_open. If no new ring can be created, the old one stays in use, and
 * the next attempt follows after 10 s.
 *
 * Users: the ring belongs to its user alone (mode 0600), and in /dev/shm only that user and root can remove it. So if
 * a recognizer is tried as root first and then started as its own user, sophon_ring_open returns -EACCES until root
 * removes the files: `rm /dev/shm/sophonfog.events*`. If root finds the ring of another user, it renames it to
 * PATH.bad.
 *
 * Versions: a ring begins as ABI 1, which every sophon-uplink reads, and becomes ABI 2 with the first event that
 * needs it. So a recognizer that uses only sophon_event works with every sophon-uplink. While a sophon-uplink is
 * attached that reads only ABI 1, the first event of ABI 2 is refused. Once the ring is ABI 2, such a sophon-uplink
 * refuses the ring and logs that. Events that are in the ring then stay in it.
 *
 * Growth: sophon_event never changes. sophon_event2 grows at its end. Its member `size` tells how much of it the
 * caller knows; the rest counts as 0. Set `size` with sophon_event2_init(). An event that a sophon-uplink could
 * misread needs a new ABI version, and changes the ring to that version as described above.
 *
 * Waking: sophon-uplink sleeps on a FIFO next to the ring, `path`.wake. sophon_ring_open creates it for this user
 * alone (mode 0600) and leaves it there. It is opened for reading too, so writing never raises SIGPIPE. If it cannot
 * be created, or another file has its name, a futex in the ring is used instead, which takes some microseconds
 * longer.
 *
 * The layout is in docs/ring-abi.md, byte by byte; it is asserted below.
 */
#ifndef SOPHON_RING_H
#define SOPHON_RING_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#if !defined(__linux__) || !defined(__GNUC__)
#error "sophon_ring.h needs Linux and gcc or clang"
#endif
#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "sophon_ring.h: the ring is for little-endian machines only"
#endif

/* Unused static functions must not cause warnings in programs. */
#define SOPHON_RING_FUNCTION_ static inline __attribute__((__unused__))

#ifdef __cplusplus
extern "C" {
#endif

/* The newest layout version that this header writes. sophon-uplink refuses rings of versions that it does not know. */
#define SOPHON_RING_ABI_VERSION 2u

/* The most named pictures of an event, and the longest name in bytes. */
#define SOPHON_RING_MAX_PICTURES 16u
#define SOPHON_RING_MAX_NAME 64u

/* An open ring. Only this header uses its members. */
typedef struct sophon_ring sophon_ring;

/* One recognized face. All pointers are read during the call only; their targets may be freed after it. */
typedef struct sophon_event {
    const char *identity_id;            /* UTF-8 (not checked here); NULL counts as "" in every string */
    const char *identity_name;
    const char *group_name;             /* NULL or "": group_id is reported instead */
    const char *group_id;
    const char *device_ip;              /* NULL or "": not reported */
    const char *ext_json;               /* NULL, or a JSON object to merge into ext_data */
    int64_t     timestamp_ms;           /* Unix epoch, UTC */
    float       score;                  /* finite */
    int32_t     person_type;            /* 1..5; 0: not reported */
    int32_t     device_type;            /* 0..4; -1: not reported */
    const void *reg_pic;  size_t reg_pic_len;    /* JPEG; NULL/0: none */
    const void *spot_pic; size_t spot_pic_len;
} sophon_event;

/* The place of a named picture in the body. */
#define SOPHON_PLACE_TOP 0              /* next to reg_pic */
#define SOPHON_PLACE_EXT_DATA 1         /* next to spot_pic */

/* A named picture. */
typedef struct sophon_picture {
    const char *name;                   /* 1 to 64 of the characters A-Z a-z 0-9 _ - . */
    int32_t     place;                  /* SOPHON_PLACE_... */
    const void *data;                   /* JPEG; ignored by sophon_ring_reserve2 */
    size_t      len;                    /* its length in bytes; for sophon_ring_reserve2 its maximum; 0: left out */
} sophon_picture;

/* A recognized face with further pictures or members. Begin with sophon_event2_init(). */
typedef struct sophon_event2 {
    size_t       size;                  /* sizeof(sophon_event2) of the caller */
    sophon_event event;
    const char  *top_json;              /* NULL, or a JSON object: top-level members; documented keys take precedence */
    const sophon_picture *pictures;     /* NULL, or an array: no two with the same name at the same place, no documented key */
    size_t       pictures_count;        /* 0 to 16 */
} sophon_event2;

/*
 * Creates the ring at `path`, or takes over the one there: events that sophon-uplink has not read yet are kept.
 *
 * ring      set to the ring; set to NULL on an error.
 * path      the ring's file, in an existing folder, on tmpfs. `path`.new, `path`.bad and `path`.wake are next to it.
 * capacity  bytes for events, 0 to 1 GiB; rounded up to a power of two, and to at least 64 KiB. One event may fill
 *           half of it. A ring that is taken over with events in it keeps its capacity. All of it is allocated here,
 *           so that a full tmpfs is an error of this call, and never a SIGBUS later.
 *
 * An existing file that is not a valid ring, or belongs neither to this user nor to root, is renamed to `path`.bad.
 *
 * Returns 0, or -EINVAL (NULL, an empty path, a capacity above 1 GiB, a path to a folder, a device or a symbolic
 * link), -EBUSY (another live producer, in this or another process, holds the ring or is creating it), -ENOSPC (no
 * room on the tmpfs), -EACCES (the folder is not writable, or the ring is another user's: see "Users" above), or
 * another -errno of a system call (-ENOENT, -ENOMEM...). After an error nothing is left open.
 *
 * Makes system calls, and accesses the disk if `path` is on one. Never waits for another process.
 */
SOPHON_RING_FUNCTION_ int sophon_ring_open(sophon_ring **ring, const char *path, uint64_t capacity);

/*
 * Publishes an event: copies its strings and pictures into the ring.
 *
 * Returns 0, or
 * -EINVAL    ring or event is NULL, score is not finite, person_type is not 0..5, device_type is not -1..4, or a picture
 *            is NULL and its length is not 0. Nothing was written.
 * -EMSGSIZE  the event is larger than half the ring and can never fit. Nothing was written, and it is not counted.
 * -ENOSPC    the ring is full, because sophon-uplink is not running or is too slow. The event is counted as dropped:
 *            go on with the next one.
 * -EBUSY     a reservation is open.
 */
SOPHON_RING_FUNCTION_ int sophon_ring_publish(sophon_ring *ring, const sophon_event *event);

/*
 * Reserves room in the ring for an event whose pictures are written later, for instance by a JPEG encoder. Everything
 * else of `event` is copied now; its pictures (pointers and lengths) are ignored.
 *
 * reg_pic_max, spot_pic_max   the maximum length of each picture, in bytes; 0: no picture.
 * reg_pic, spot_pic           set to where to write, aligned to 8 bytes, valid until commit, abort or close; set to
 *                             NULL if the maximum is 0. The argument itself may be NULL then. Writing beyond the
 *                             maximum damages the ring.
 *
 * Nothing is visible to sophon-uplink before sophon_ring_commit. Errors are those of sophon_ring_publish (the maxima
 * count for -EMSGSIZE and -ENOSPC), and -EINVAL if a picture has a maximum but its argument is NULL. After an error
 * both pointers are NULL, and no reservation is open, except after -EBUSY: the earlier reservation stays as it was.
 */
SOPHON_RING_FUNCTION_ int sophon_ring_reserve(sophon_ring *ring, const sophon_event *event, size_t reg_pic_max,
                                              size_t spot_pic_max, void **reg_pic, void **spot_pic);

/*
 * Publishes the reserved event, with pictures of these lengths (0: without that picture). Unused bytes of the
 * reservation are returned at once. Only those between a shortened picture and a later one are returned together
 * with the event.
 *
 * Returns 0, or -EINVAL: no reservation is open, or a length is more than its maximum; then the reservation stays
 * open.
 */
SOPHON_RING_FUNCTION_ int sophon_ring_commit(sophon_ring *ring, size_t reg_pic_len, size_t spot_pic_len);

/* Initializes `event` with nothing reported: all members 0, `size` set, device_type -1. Ignores NULL. */
SOPHON_RING_FUNCTION_ void sophon_event2_init(sophon_event2 *event);

/*
 * Like sophon_ring_publish, for an event with further pictures or members. Errors are the same, and
 *
 * -EINVAL    also: `size` is smaller than that of the first sophon_event2, more than 16 pictures, a picture without
 *            data, a name or a place that is not allowed, the same name twice at one place, or a key of the
 *            documented event (identity_id, identity_name, group_name, reg_pic, timestamp, score, ext_data at the
 *            top; device_ip, person_type, device_type, spot_pic in ext_data). Nothing was written.
 * -EPROTONOSUPPORT   the sophon-uplink that reads this ring knows only ABI 1. Nothing was written, and the event is
 *            not counted as dropped. Update sophon-uplink, or publish the event without the new parts. An event without
 *            top_json and without named pictures never gets this error.
 * another -errno   a lock on the ring's file failed, with the first event that needs ABI 2. Nothing was written.
 */
SOPHON_RING_FUNCTION_ int sophon_ring_publish2(sophon_ring *ring, const sophon_event2 *event);

/*
 * Like sophon_ring_reserve. The lengths of reg_pic, spot_pic and each named picture in `event` are the maxima in
 * bytes; its pointers to pictures are ignored.
 *
 * reg_pic, spot_pic   as for sophon_ring_reserve.
 * rooms               an array of pictures_count pointers, set like those two, unless `event` is NULL or not initialized;
 *                     may be NULL if no named picture has a maximum.
 */
SOPHON_RING_FUNCTION_ int sophon_ring_reserve2(sophon_ring *ring, const sophon_event2 *event, void **reg_pic,
                                               void **spot_pic, void **rooms);

/*
 * Like sophon_ring_commit. `lens` is an array with the length of each named picture, in the order of the reservation.
 * NULL: without any of them (as with sophon_ring_commit).
 */
SOPHON_RING_FUNCTION_ int sophon_ring_commit2(sophon_ring *ring, size_t reg_pic_len, size_t spot_pic_len,
                                              const size_t *lens);

/* Cancels a reservation, as if it had never been made. Does nothing if none is open, or if ring is NULL. */
SOPHON_RING_FUNCTION_ void sophon_ring_abort(sophon_ring *ring);

/* The number of events refused with -ENOSPC since the ring was created, for all its producers. 0 if ring is NULL. */
SOPHON_RING_FUNCTION_ uint64_t sophon_ring_dropped(const sophon_ring *ring);

/*
 * Closes the ring. Published events stay in the file for sophon-uplink, an open reservation is cancelled, and another
 * producer may open the ring. Frees `ring`. Does nothing if it is NULL.
 */
SOPHON_RING_FUNCTION_ void sophon_ring_close(sophon_ring *ring);

/* ------------------------------------------------------------------------------------------------------------------ *
 * Everything from here on is private: every name ends in _ and may change in any release.
 * ------------------------------------------------------------------------------------------------------------------ */

#ifdef __cplusplus
#define SOPHON_RING_NULL_ nullptr
#define SOPHON_RING_CAST_(type, value) static_cast<type>(value)
#define SOPHON_RING_ASSERT_(name, condition) static_assert(condition, #name)
#else
#define SOPHON_RING_NULL_ NULL
#define SOPHON_RING_CAST_(type, value) ((type)(value))
/* _Static_assert is not C99, and compilers warn about it. An array of -1 elements is an error in any C. */
#define SOPHON_RING_ASSERT_(name, condition) typedef char sophon_ring_assert_##name##_[(condition) ? 1 : -1]
#endif

#define SOPHON_RING_MAGIC_ UINT64_C(0x474E4952484F5053)
#define SOPHON_RING_HEADER_SIZE_ 4096u
#define SOPHON_RING_MIN_CAPACITY_ (UINT64_C(1) << 16)
#define SOPHON_RING_MAX_CAPACITY_ (UINT64_C(1) << 30)
#define SOPHON_RING_EVENT_ 1u
#define SOPHON_RING_PADDING_ 2u
#define SOPHON_RING_FILLER_ 0u
#define SOPHON_RING_FIRST_TEXT_ 1u
#define SOPHON_RING_TEXTS_ 6u
#define SOPHON_RING_REG_PIC_ 7u
#define SOPHON_RING_SPOT_PIC_ 8u
#define SOPHON_RING_TOP_JSON_ 9u
#define SOPHON_RING_NAMES_ 10u
#define SOPHON_RING_NAMED_PIC_ 16u      /* for the first name; the next numbers are for the next names */
#define SOPHON_RING_OLDEST_ABI_ 1u

/* The first page of the file. The producer's words and the consumer's are 128 bytes apart. */
struct sophon_ring_header_ {
    uint64_t magic;
    uint32_t abi_version;
    uint32_t header_size;
    uint64_t capacity;
    uint8_t  id[16];
    uint8_t  reserved_0[0x080 - 0x028];
    uint64_t head;                      /* the producer's words */
    uint64_t sequence;
    uint64_t dropped;
    uint32_t producer_pid;
    uint32_t fifo_pid;                  /* equals producer_pid if that one writes to the FIFO */
    uint32_t publications;
    uint32_t reserved_1;
    uint64_t fifo_inode;                /* the inode of the FIFO */
    uint8_t  reserved_2[0x100 - 0x0B0];
    uint64_t tail;                      /* the consumer's words */
    uint64_t consumed;
    uint32_t waiting;                   /* not 0 while it may sleep: 1 on the futex, 2 on the FIFO */
    uint32_t consumer_pid;
    uint64_t resyncs;
    uint32_t consumer_abi;              /* the newest version that the consumer reads */
    uint32_t consumer_abi_pid;          /* equals consumer_pid if that one wrote consumer_abi */
    uint8_t  reserved_3[0x1000 - 0x128];
};

struct sophon_ring_record_ {
    uint32_t length;
    uint32_t kind;
    uint64_t sequence;
    int64_t  timestamp_ms;
    float    score;
    int32_t  person_type;
    int32_t  device_type;
    uint32_t reserved;
};

/* A section's first 8 bytes; a padding record has only these. */
struct sophon_ring_section_ {
    uint32_t kind;
    uint32_t length;
};

#define SOPHON_RING_AT_(type, member, offset) \
    SOPHON_RING_ASSERT_(type##_##member, offsetof(struct sophon_ring_##type##_, member) == (offset))
SOPHON_RING_ASSERT_(pointers_are_64_bit, sizeof(void *) == 8 && sizeof(size_t) == 8);
SOPHON_RING_ASSERT_(float_is_32_bit, sizeof(float) == 4);
SOPHON_RING_ASSERT_(header_is_a_page, sizeof(struct sophon_ring_header_) == SOPHON_RING_HEADER_SIZE_);
SOPHON_RING_AT_(header, magic, 0x000);
SOPHON_RING_AT_(header, abi_version, 0x008);
SOPHON_RING_AT_(header, header_size, 0x00C);
SOPHON_RING_AT_(header, capacity, 0x010);
SOPHON_RING_AT_(header, id, 0x018);
SOPHON_RING_AT_(header, head, 0x080);
SOPHON_RING_AT_(header, sequence, 0x088);
SOPHON_RING_AT_(header, dropped, 0x090);
SOPHON_RING_AT_(header, producer_pid, 0x098);
SOPHON_RING_AT_(header, fifo_pid, 0x09C);
SOPHON_RING_AT_(header, publications, 0x0A0);
SOPHON_RING_AT_(header, fifo_inode, 0x0A8);
SOPHON_RING_AT_(header, tail, 0x100);
SOPHON_RING_AT_(header, consumed, 0x108);
SOPHON_RING_AT_(header, waiting, 0x110);
SOPHON_RING_AT_(header, consumer_pid, 0x114);
SOPHON_RING_AT_(header, resyncs, 0x118);
SOPHON_RING_AT_(header, consumer_abi, 0x120);
SOPHON_RING_AT_(header, consumer_abi_pid, 0x124);
SOPHON_RING_ASSERT_(record_is_40_bytes, sizeof(struct sophon_ring_record_) == 40);
SOPHON_RING_AT_(record, length, 0);
SOPHON_RING_AT_(record, kind, 4);
SOPHON_RING_AT_(record, sequence, 8);
SOPHON_RING_AT_(record, timestamp_ms, 16);
SOPHON_RING_AT_(record, score, 24);
SOPHON_RING_AT_(record, person_type, 28);
SOPHON_RING_AT_(record, device_type, 32);
SOPHON_RING_AT_(record, reserved, 36);
SOPHON_RING_ASSERT_(section_is_8_bytes, sizeof(struct sophon_ring_section_) == 8);
SOPHON_RING_AT_(section, kind, 0);
SOPHON_RING_AT_(section, length, 4);

/* Definitions that strict -std=c99 and old headers hide. */
#ifdef O_CLOEXEC
#define SOPHON_RING_O_CLOEXEC_ O_CLOEXEC
#else
#define SOPHON_RING_O_CLOEXEC_ 02000000
#endif
#ifdef O_PATH
#define SOPHON_RING_O_PATH_ O_PATH
#else
#define SOPHON_RING_O_PATH_ 010000000
#endif
#if defined(O_NOFOLLOW)
#define SOPHON_RING_O_NOFOLLOW_ O_NOFOLLOW
#elif defined(__aarch64__) || defined(__powerpc64__)
#define SOPHON_RING_O_NOFOLLOW_ 0100000
#elif defined(__x86_64__) || defined(__riscv) || defined(__loongarch__)
#define SOPHON_RING_O_NOFOLLOW_ 0400000
#else
#error "sophon_ring.h: unknown machine: define _GNU_SOURCE before any #include"
#endif
#define SOPHON_RING_F_OFD_SETLK_ 37
#define SOPHON_RING_CLOCK_REALTIME_ 0
#define SOPHON_RING_CLOCK_PROCESS_ 2
#define SOPHON_RING_CLOCK_COARSE_ 6
#define SOPHON_RING_CLOCK_BOOTTIME_ 7
#define SOPHON_RING_GRND_NONBLOCK_ 1
#define SOPHON_RING_FUTEX_WAKE_ 1
#define SOPHON_RING_ON_FIFO_ 2u
#if defined(SYS_getrandom)
#define SOPHON_RING_SYS_GETRANDOM_ SYS_getrandom
#elif defined(__x86_64__)
#define SOPHON_RING_SYS_GETRANDOM_ 318
#else
#define SOPHON_RING_SYS_GETRANDOM_ 278
#endif

/* The C library's syscall() under our own name, because its prototype depends on the feature-test macros. */
extern long sophon_ring_syscall_(long number, ...) __asm__("syscall");

/* The same for clock_gettime(), which reads the time without a system call, and for its struct timespec. */
struct sophon_ring_time_ {
    int64_t seconds;
    int64_t nanoseconds;
};
extern int sophon_ring_clock_gettime_(int clock, struct sophon_ring_time_ *now) __asm__("clock_gettime");

/* The interval between checks of the ring's name, and after a failure to create a new ring, in milliseconds. */
#define SOPHON_RING_LOOK_ 100
#define SOPHON_RING_LOOK_LATER_ 10000

/* Returned by the steps of sophon_ring_open if another process was faster: try again. Not an errno. */
#define SOPHON_RING_AGAIN_ (-100000)
#define SOPHON_RING_TRIES_ 100

struct sophon_ring {
    struct sophon_ring_header_ *header; /* the mapping */
    unsigned char *data;                /* the mapping after the header */
    int fd;                             /* holds the lock */
    int fifo;                           /* wakes sophon-uplink; -1: only the futex is used */
    int reserved;                       /* a reservation is open */
    uint64_t capacity;
    uint64_t head;                      /* these four are private; the header has copies that are not read back */
    uint64_t sequence;
    uint64_t dropped;
    uint32_t publications;
    uint32_t padding;                   /* of the reservation: length of the padding before its record */
    uint32_t pictures;                  /* of the reservation: number of pictures, named ones included */
    struct sophon_ring_room_ {
        uint32_t at;                    /* offset of its section in the record, if there is one */
        uint32_t max;
    } room[2 + SOPHON_RING_MAX_PICTURES];
    char *path;                         /* as given to sophon_ring_open */
    char *spare;                        /* a buffer for the path and a suffix */
    uint64_t folder[2];                 /* device and inode number of its folder */
    int64_t look_at;                    /* when to check the name again, in ms of the coarse clock */
};

SOPHON_RING_FUNCTION_ uint64_t sophon_ring_round_up_(uint64_t length)
{
    return (length + 7) & ~UINT64_C(7);
}

/* The size of a section with `length` bytes; an empty one is left out. */
SOPHON_RING_FUNCTION_ uint64_t sophon_ring_section_size_(uint64_t length)
{
    return length == 0 ? 0 : sizeof(struct sophon_ring_section_) + sophon_ring_round_up_(length);
}

/* Writes a section's first 8 bytes, and clears the bytes between its content and the next multiple of 8. */
SOPHON_RING_FUNCTION_ void sophon_ring_put_section_(unsigned char *at, uint32_t kind, uint64_t length)
{
    struct sophon_ring_section_ section;
    section.kind = kind;
    section.length = SOPHON_RING_CAST_(uint32_t, length);
    memcpy(at, &section, sizeof section);
    memset(at + sizeof section + length, 0, sophon_ring_round_up_(length) - length);
}

/* The record that is being written. */
SOPHON_RING_FUNCTION_ unsigned char *sophon_ring_record_at_(const sophon_ring *ring)
{
    return ring->data + ((ring->head + ring->padding) & (ring->capacity - 1));
}

/* Wakes the consumer if it may sleep: step 6 of "Publishing" in the ABI. */
SOPHON_RING_FUNCTION_ void sophon_ring_wake_(sophon_ring *ring)
{
    uint32_t waiting;
    ring->publications++;
    /* Release: a consumer that sees this number also sees the new head. With relaxed it could sleep on the new number. */
    __atomic_store_n(&ring->header->publications, ring->publications, __ATOMIC_RELEASE);
    /* Either we see `waiting`, or the consumer, which has a fence between the two accesses as well, sees the number. */
#if defined(__SANITIZE_THREAD__) && !defined(__clang__) && __GNUC__ >= 11
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wtsan"
#endif
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
#if defined(__SANITIZE_THREAD__) && !defined(__clang__) && __GNUC__ >= 11
#pragma GCC diagnostic pop
#endif
    waiting = __atomic_load_n(&ring->header->waiting, __ATOMIC_RELAXED);
    if (waiting == SOPHON_RING_ON_FIFO_ && ring->fifo >= 0) {
        /* Full: there are enough wake-ups to be read already. */
        if (write(ring->fifo, "", 1) < 0)
            return;
    } else if (waiting != 0) {
        sophon_ring_syscall_(SYS_futex, &ring->header->publications, SOPHON_RING_FUTEX_WAKE_, INT32_MAX,
                             SOPHON_RING_NULL_, SOPHON_RING_NULL_, 0);
    }
}

/*
 * Counts an event that found no room. If the consumer may not have seen `head`, publishes `head` again: that is so if
 * `tail` is implausible, or if something has overwritten `head` and the consumer waits for events that were published
 * already.
 */
SOPHON_RING_FUNCTION_ int sophon_ring_refuse_(sophon_ring *ring, uint64_t tail)
{
    ring->dropped++;
    __atomic_store_n(&ring->header->dropped, ring->dropped, __ATOMIC_RELAXED);
    if (ring->head - tail > ring->capacity || tail % 8 != 0
        || __atomic_load_n(&ring->header->head, __ATOMIC_RELAXED) != ring->head) {
        __atomic_store_n(&ring->header->head, ring->head, __ATOMIC_RELEASE);
        sophon_ring_wake_(ring);
    }
    return -ENOSPC;
}

SOPHON_RING_FUNCTION_ void sophon_ring_look_at_name_(sophon_ring *ring);
SOPHON_RING_FUNCTION_ int sophon_ring_become_2_(sophon_ring *ring);

/* The content of a record: texts in the order of their sections, the names, and the maximum length of each picture. */
struct sophon_ring_plan_ {
    const char *text[SOPHON_RING_TEXTS_ + 1];
    size_t      text_length[SOPHON_RING_TEXTS_ + 1];
    const sophon_picture *named;
    size_t      names;                  /* how many names */
    size_t      names_length;           /* length of the names' section */
    size_t      max[2 + SOPHON_RING_MAX_PICTURES];
    int         needs_2;
};

/* Whether `event` is at least as long as the first version of sophon_event2. */
SOPHON_RING_FUNCTION_ int sophon_ring_is_event2_(const sophon_event2 *event)
{
    const size_t first = offsetof(sophon_event2, pictures_count) + sizeof event->pictures_count;
    return event != SOPHON_RING_NULL_ && event->size >= first;
}

/* The length of a picture's name; 0 if the name is not allowed. */
SOPHON_RING_FUNCTION_ size_t sophon_ring_name_length_(const sophon_picture *picture)
{
    static const char *const top[] = { "identity_id", "identity_name", "group_name", "reg_pic",
                                       "timestamp", "score", "ext_data", SOPHON_RING_NULL_ };
    static const char *const ext_data[] = { "device_ip", "person_type", "device_type", "spot_pic", SOPHON_RING_NULL_ };
    const char *const *key = picture->place == SOPHON_PLACE_TOP ? top : ext_data;
    const char *const name = picture->name;
    size_t length = 0;
    if (name == SOPHON_RING_NULL_ || (picture->place != SOPHON_PLACE_TOP && picture->place != SOPHON_PLACE_EXT_DATA))
        return 0;
    for (; name[length] != '\0'; length++) {
        const char c = name[length];
        if (length == SOPHON_RING_MAX_NAME || !((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')
                                                || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.'))
            return 0;
    }
    for (; *key != SOPHON_RING_NULL_; key++)
        if (strcmp(*key, name) == 0)
            return 0;
    return length;
}

/* The plan for an event of version 1; its pictures have at most these lengths. */
SOPHON_RING_FUNCTION_ void sophon_ring_plan_event_(struct sophon_ring_plan_ *plan, const sophon_event *event,
                                                   size_t reg_pic_max, size_t spot_pic_max)
{
    memset(plan, 0, sizeof *plan);
    plan->text[0] = event->identity_id;
    plan->text[1] = event->identity_name;
    plan->text[2] = event->group_name;
    plan->text[3] = event->group_id;
    plan->text[4] = event->device_ip;
    plan->text[5] = event->ext_json;
    plan->max[0] = reg_pic_max;
    plan->max[1] = spot_pic_max;
}

/* The plan for an event of version 2. */
SOPHON_RING_FUNCTION_ int sophon_ring_plan_event2_(struct sophon_ring_plan_ *plan, const sophon_event2 *event)
{
    size_t i, j;
    sophon_ring_plan_event_(plan, &event->event, event->event.reg_pic_len, event->event.spot_pic_len);
    plan->text[SOPHON_RING_TEXTS_] = event->top_json;
    if (event->pictures_count > SOPHON_RING_MAX_PICTURES
        || (event->pictures == SOPHON_RING_NULL_ && event->pictures_count > 0))
        return -EINVAL;
    plan->named = event->pictures;
    plan->names = event->pictures_count;
    for (i = 0; i < plan->names; i++) {
        const size_t length = sophon_ring_name_length_(&plan->named[i]);
        if (length == 0)
            return -EINVAL;
        for (j = 0; j < i; j++)
            if (plan->named[i].place == plan->named[j].place && strcmp(plan->named[i].name, plan->named[j].name) == 0)
                return -EINVAL;
        plan->names_length += 2 + length;
        plan->max[2 + i] = plan->named[i].len;
    }
    plan->needs_2 = plan->names > 0 || (event->top_json != SOPHON_RING_NULL_ && *event->top_json != '\0');
    return 0;
}

/* The maximum length of the record; 0 if it is above `half`. Each length is checked first, so no sum can overflow. */
SOPHON_RING_FUNCTION_ uint64_t sophon_ring_measure_(struct sophon_ring_plan_ *plan, uint64_t half)
{
    uint64_t need = sizeof(struct sophon_ring_record_) + sophon_ring_section_size_(plan->names_length);
    size_t i;
    for (i = 0; i < 2 + plan->names; i++) {
        if (plan->max[i] > half)
            return 0;
        need += sophon_ring_section_size_(plan->max[i]);
    }
    for (i = 0; i <= SOPHON_RING_TEXTS_; i++) {
        plan->text_length[i] = plan->text[i] == SOPHON_RING_NULL_ ? 0 : strlen(plan->text[i]);
        if (plan->text_length[i] > half)
            return 0;
        need += sophon_ring_section_size_(plan->text_length[i]);
    }
    return need > half ? 0 : need;
}

/* Writes the sections before the pictures, and returns where they end. */
SOPHON_RING_FUNCTION_ unsigned char *sophon_ring_put_texts_(unsigned char *at, const struct sophon_ring_plan_ *plan)
{
    size_t i;
    for (i = 0; i <= SOPHON_RING_TEXTS_; i++) {
        const size_t length = plan->text_length[i];
        const uint32_t kind = i == SOPHON_RING_TEXTS_ ? SOPHON_RING_TOP_JSON_
                                                      : SOPHON_RING_FIRST_TEXT_ + SOPHON_RING_CAST_(uint32_t, i);
        if (length == 0)
            continue;
        sophon_ring_put_section_(at, kind, length);
        memcpy(at + sizeof(struct sophon_ring_section_), plan->text[i], length);
        at += sophon_ring_section_size_(length);
    }
    if (plan->names > 0) {
        unsigned char *name = at + sizeof(struct sophon_ring_section_);
        sophon_ring_put_section_(at, SOPHON_RING_NAMES_, plan->names_length);
        for (i = 0; i < plan->names; i++) {
            const size_t length = strlen(plan->named[i].name);
            *name++ = SOPHON_RING_CAST_(unsigned char, plan->named[i].place);
            *name++ = SOPHON_RING_CAST_(unsigned char, length);
            memcpy(name, plan->named[i].name, length);
            name += length;
        }
        at += sophon_ring_section_size_(plan->names_length);
    }
    return at;
}

/*
 * Checks an event, finds room for it, and writes all of it except its pictures: steps 1 to 4 of "Publishing" in the
 * ABI. The consumer does not see the reservation that this leaves.
 */
SOPHON_RING_FUNCTION_ int sophon_ring_place_(sophon_ring *ring, const sophon_event *event,
                                             struct sophon_ring_plan_ *plan)
{
    struct sophon_ring_record_ record;
    unsigned char *at;
    uint64_t need, left, tail, used, padding;
    uint32_t score_bits;
    size_t i;
    int error;

    /* Tests the bits, because isfinite() is a constant under -ffast-math. */
    memcpy(&score_bits, &event->score, sizeof score_bits);
    if ((score_bits & 0x7F800000u) == 0x7F800000u || event->person_type < 0 || event->person_type > 5
        || event->device_type < -1 || event->device_type > 4)
        return -EINVAL;
    if (ring->reserved)
        return -EBUSY;
    need = sophon_ring_measure_(plan, ring->capacity / 2);      /* a ring that replaces this one has the same capacity */
    if (need == 0)
        return -EMSGSIZE;

    sophon_ring_look_at_name_(ring);
    error = plan->needs_2 ? sophon_ring_become_2_(ring) : 0;
    if (error != 0)
        return error;
    left = ring->capacity - (ring->head & (ring->capacity - 1));
    padding = need > left ? left : 0;
    tail = __atomic_load_n(&ring->header->tail, __ATOMIC_ACQUIRE);
    used = ring->head - tail;
    if (used > ring->capacity || tail % 8 != 0 || padding + need > ring->capacity - used)
        return sophon_ring_refuse_(ring, tail);

    if (padding > 0) {
        record.length = SOPHON_RING_CAST_(uint32_t, padding);
        record.kind = SOPHON_RING_PADDING_;
        ring->padding = 0;
        memcpy(sophon_ring_record_at_(ring), &record, 8);
    }
    ring->padding = SOPHON_RING_CAST_(uint32_t, padding);

    at = sophon_ring_record_at_(ring);
    record.length = 0;                  /* commit sets it and the sequence number */
    record.kind = SOPHON_RING_EVENT_;
    record.sequence = 0;
    record.timestamp_ms = event->timestamp_ms;
    record.score = event->score;
    record.person_type = event->person_type;
    record.device_type = event->device_type;
    record.reserved = 0;
    memcpy(at, &record, sizeof record);
    at = sophon_ring_put_texts_(at + sizeof record, plan);
    ring->pictures = SOPHON_RING_CAST_(uint32_t, 2 + plan->names);
    for (i = 0; i < ring->pictures; i++) {
        ring->room[i].at = SOPHON_RING_CAST_(uint32_t, at - sophon_ring_record_at_(ring));
        ring->room[i].max = SOPHON_RING_CAST_(uint32_t, plan->max[i]);
        at += sophon_ring_section_size_(plan->max[i]);
    }
    ring->reserved = 1;
    return 0;
}

/* Where to write picture number `i` of the reservation; NULL if it has no such picture. */
SOPHON_RING_FUNCTION_ unsigned char *sophon_ring_room_(const sophon_ring *ring, size_t i)
{
    return ring->room[i].max == 0 ? SOPHON_RING_NULL_ : sophon_ring_record_at_(ring) + ring->room[i].at
                                                          + sizeof(struct sophon_ring_section_);
}

/* Whether every picture of `event` with a length has data. */
SOPHON_RING_FUNCTION_ int sophon_ring_has_pictures_(const sophon_event *event)
{
    return (event->reg_pic != SOPHON_RING_NULL_ || event->reg_pic_len == 0)
        && (event->spot_pic != SOPHON_RING_NULL_ || event->spot_pic_len == 0);
}

/* Copies a picture into its place in the record. */
SOPHON_RING_FUNCTION_ void sophon_ring_put_picture_(const sophon_ring *ring, size_t i, const void *data, size_t length)
{
    if (length > 0)
        memcpy(sophon_ring_room_(ring, i), data, length);
}

SOPHON_RING_FUNCTION_ int sophon_ring_publish(sophon_ring *ring, const sophon_event *event)
{
    struct sophon_ring_plan_ plan;
    int error;
    if (ring == SOPHON_RING_NULL_ || event == SOPHON_RING_NULL_ || !sophon_ring_has_pictures_(event))
        return -EINVAL;
    sophon_ring_plan_event_(&plan, event, event->reg_pic_len, event->spot_pic_len);
    error = sophon_ring_place_(ring, event, &plan);
    if (error != 0)
        return error;
    sophon_ring_put_picture_(ring, 0, event->reg_pic, event->reg_pic_len);
    sophon_ring_put_picture_(ring, 1, event->spot_pic, event->spot_pic_len);
    return sophon_ring_commit(ring, event->reg_pic_len, event->spot_pic_len);
}

SOPHON_RING_FUNCTION_ int sophon_ring_publish2(sophon_ring *ring, const sophon_event2 *event)
{
    struct sophon_ring_plan_ plan;
    size_t i;
    int error;
    if (ring == SOPHON_RING_NULL_ || !sophon_ring_is_event2_(event) || !sophon_ring_has_pictures_(&event->event))
        return -EINVAL;
    error = sophon_ring_plan_event2_(&plan, event);
    for (i = 0; i < plan.names && error == 0; i++)
        if (plan.named[i].data == SOPHON_RING_NULL_ && plan.named[i].len > 0)
            error = -EINVAL;
    if (error == 0)
        error = sophon_ring_place_(ring, &event->event, &plan);
    if (error != 0)
        return error;
    sophon_ring_put_picture_(ring, 0, event->event.reg_pic, event->event.reg_pic_len);
    sophon_ring_put_picture_(ring, 1, event->event.spot_pic, event->event.spot_pic_len);
    for (i = 0; i < plan.names; i++)
        sophon_ring_put_picture_(ring, 2 + i, plan.named[i].data, plan.named[i].len);
    return sophon_ring_commit2(ring, event->event.reg_pic_len, event->event.spot_pic_len, plan.max + 2);
}

SOPHON_RING_FUNCTION_ int sophon_ring_reserve(sophon_ring *ring, const sophon_event *event, size_t reg_pic_max,
                                              size_t spot_pic_max, void **reg_pic, void **spot_pic)
{
    struct sophon_ring_plan_ plan;
    int error;
    if (reg_pic != SOPHON_RING_NULL_)
        *reg_pic = SOPHON_RING_NULL_;
    if (spot_pic != SOPHON_RING_NULL_)
        *spot_pic = SOPHON_RING_NULL_;
    if (ring == SOPHON_RING_NULL_ || event == SOPHON_RING_NULL_ || (reg_pic == SOPHON_RING_NULL_ && reg_pic_max > 0)
        || (spot_pic == SOPHON_RING_NULL_ && spot_pic_max > 0))
        return -EINVAL;
    sophon_ring_plan_event_(&plan, event, reg_pic_max, spot_pic_max);
    error = sophon_ring_place_(ring, event, &plan);
    if (error != 0)
        return error;
    if (reg_pic != SOPHON_RING_NULL_)
        *reg_pic = sophon_ring_room_(ring, 0);
    if (spot_pic != SOPHON_RING_NULL_)
        *spot_pic = sophon_ring_room_(ring, 1);
    return 0;
}

SOPHON_RING_FUNCTION_ int sophon_ring_reserve2(sophon_ring *ring, const sophon_event2 *event, void **reg_pic,
                                               void **spot_pic, void **rooms)
{
    struct sophon_ring_plan_ plan;
    void **target[2];
    size_t i;
    int error;
    target[0] = reg_pic;
    target[1] = spot_pic;
    for (i = 0; i < 2; i++)
        if (target[i] != SOPHON_RING_NULL_)
            *target[i] = SOPHON_RING_NULL_;
    if (!sophon_ring_is_event2_(event))
        return -EINVAL;
    for (i = 0; rooms != SOPHON_RING_NULL_ && i < event->pictures_count && i < SOPHON_RING_MAX_PICTURES; i++)
        rooms[i] = SOPHON_RING_NULL_;
    if (ring == SOPHON_RING_NULL_)
        return -EINVAL;
    error = sophon_ring_plan_event2_(&plan, event);
    for (i = 0; i < 2 + plan.names && error == 0; i++)
        if (plan.max[i] > 0 && (i < 2 ? target[i] : rooms) == SOPHON_RING_NULL_)
            error = -EINVAL;
    if (error == 0)
        error = sophon_ring_place_(ring, &event->event, &plan);
    if (error != 0)
        return error;
    for (i = 0; i < 2; i++)
        if (target[i] != SOPHON_RING_NULL_)
            *target[i] = sophon_ring_room_(ring, i);
    for (i = 0; i < plan.names && rooms != SOPHON_RING_NULL_; i++)
        rooms[i] = sophon_ring_room_(ring, 2 + i);
    return 0;
}

SOPHON_RING_FUNCTION_ int sophon_ring_commit(sophon_ring *ring, size_t reg_pic_len, size_t spot_pic_len)
{
    return sophon_ring_commit2(ring, reg_pic_len, spot_pic_len, SOPHON_RING_NULL_);
}

SOPHON_RING_FUNCTION_ int sophon_ring_commit2(sophon_ring *ring, size_t reg_pic_len, size_t spot_pic_len,
                                              const size_t *lens)
{
    size_t used[2 + SOPHON_RING_MAX_PICTURES];
    unsigned char *record;
    uint32_t length, i;
    uint64_t sequence;
    if (ring == SOPHON_RING_NULL_ || !ring->reserved)
        return -EINVAL;
    for (i = 0; i < ring->pictures; i++) {
        used[i] = i == 0 ? reg_pic_len : i == 1 ? spot_pic_len : lens == SOPHON_RING_NULL_ ? 0 : lens[i - 2];
        if (used[i] > ring->room[i].max)
            return -EINVAL;
    }

    record = sophon_ring_record_at_(ring);
    length = ring->room[0].at;
    for (i = 0; i < ring->pictures; i++) {
        const uint32_t kind = i == 0 ? SOPHON_RING_REG_PIC_ : i == 1 ? SOPHON_RING_SPOT_PIC_
                                                                     : SOPHON_RING_NAMED_PIC_ + i - 2;
        if (used[i] == 0)
            continue;
        /* A filler for what the pictures before did not use, because this one cannot move. Its bytes stay as they are. */
        if (length < ring->room[i].at) {
            struct sophon_ring_section_ filler;
            filler.kind = SOPHON_RING_FILLER_;
            filler.length = ring->room[i].at - length - SOPHON_RING_CAST_(uint32_t, sizeof filler);
            memcpy(record + length, &filler, sizeof filler);
        }
        sophon_ring_put_section_(record + ring->room[i].at, kind, used[i]);
        length = ring->room[i].at + SOPHON_RING_CAST_(uint32_t, sophon_ring_section_size_(used[i]));
    }
    sequence = ring->sequence + 1;
    memcpy(record + offsetof(struct sophon_ring_record_, length), &length, sizeof length);
    memcpy(record + offsetof(struct sophon_ring_record_, sequence), &sequence, sizeof sequence);

    /* Sequence before head: so a successor may skip a number, but never assigns one twice. */
    ring->sequence = sequence;
    __atomic_store_n(&ring->header->sequence, ring->sequence, __ATOMIC_RELAXED);
    ring->head += ring->padding + length;
    __atomic_store_n(&ring->header->head, ring->head, __ATOMIC_RELEASE);
    ring->reserved = 0;
    sophon_ring_wake_(ring);
    return 0;
}

SOPHON_RING_FUNCTION_ void sophon_event2_init(sophon_event2 *event)
{
    if (event == SOPHON_RING_NULL_)
        return;
    memset(event, 0, sizeof *event);
    event->size = sizeof *event;
    event->event.device_type = -1;
}

SOPHON_RING_FUNCTION_ void sophon_ring_abort(sophon_ring *ring)
{
    if (ring != SOPHON_RING_NULL_)
        ring->reserved = 0;
}

SOPHON_RING_FUNCTION_ uint64_t sophon_ring_dropped(const sophon_ring *ring)
{
    return ring == SOPHON_RING_NULL_ ? 0 : ring->dropped;
}

/* open(), repeated if a signal interrupts it. Returns the descriptor, or -errno. */
SOPHON_RING_FUNCTION_ int sophon_ring_open_file_(const char *path, int flags)
{
    int fd;
    do
        fd = open(path, flags | SOPHON_RING_O_CLOEXEC_ | SOPHON_RING_O_NOFOLLOW_, 0600);
    while (fd < 0 && errno == EINTR);
    return fd < 0 ? -errno : fd;
}

/* The status of the name itself, without opening it (that may affect a device) and without following a link. */
SOPHON_RING_FUNCTION_ int sophon_ring_look_(const char *path, struct stat *found)
{
    int error = 0;
    const int fd = sophon_ring_open_file_(path, SOPHON_RING_O_PATH_);
    if (fd < 0)
        return fd;
    if (fstat(fd, found) != 0)
        error = -errno;
    close(fd);
    return error;
}

/* 0 if `path` names the file behind `fd`, SOPHON_RING_AGAIN_ if it does not, or not any more. */
SOPHON_RING_FUNCTION_ int sophon_ring_still_names_(const char *path, int fd)
{
    struct stat named, held;
    const int error = sophon_ring_look_(path, &named);
    if (error != 0)
        return error == -ENOENT ? SOPHON_RING_AGAIN_ : error;
    if (fstat(fd, &held) != 0)
        return -errno;
    return named.st_dev == held.st_dev && named.st_ino == held.st_ino ? 0 : SOPHON_RING_AGAIN_;
}

SOPHON_RING_FUNCTION_ int sophon_ring_lock_byte_(int fd, short type, off_t byte)
{
    struct flock lock;
    memset(&lock, 0, sizeof lock);
    lock.l_type = type;
    lock.l_whence = SEEK_SET;
    lock.l_start = byte;
    lock.l_len = 1;
    if (fcntl(fd, SOPHON_RING_F_OFD_SETLK_, &lock) == 0)
        return 0;
    return errno == EAGAIN || errno == EACCES ? -EBUSY : -errno;
}

/* Takes the producer's lock. It lasts as long as the open file description: only the last close unlocks it. */
SOPHON_RING_FUNCTION_ int sophon_ring_lock_(int fd)
{
    return sophon_ring_lock_byte_(fd, F_WRLCK, offsetof(struct sophon_ring_header_, head));
}

/*
 * Changes the ring to version 2, unless its consumer does not read that: "Versions" in the ABI. The consumer's lock
 * is held meanwhile if it is free, so that no consumer that reads only version 1 can attach between the check and the
 * change.
 */
SOPHON_RING_FUNCTION_ int sophon_ring_become_2_(sophon_ring *ring)
{
    struct sophon_ring_header_ *const header = ring->header;
    const off_t consumer = offsetof(struct sophon_ring_header_, tail);
    int error;
    if (header->abi_version != SOPHON_RING_OLDEST_ABI_)
        return 0;
    error = sophon_ring_lock_byte_(ring->fd, F_WRLCK, consumer);
    if (error == 0) {
        __atomic_store_n(&header->abi_version, SOPHON_RING_ABI_VERSION, __ATOMIC_RELEASE);
        sophon_ring_lock_byte_(ring->fd, F_UNLCK, consumer);
        return 0;
    }
    if (error != -EBUSY)
        return error;
    if (__atomic_load_n(&header->consumer_abi, __ATOMIC_ACQUIRE) < SOPHON_RING_ABI_VERSION
        || __atomic_load_n(&header->consumer_abi_pid, __ATOMIC_RELAXED)
            != __atomic_load_n(&header->consumer_pid, __ATOMIC_RELAXED))
        return -EPROTONOSUPPORT;
    __atomic_store_n(&header->abi_version, SOPHON_RING_ABI_VERSION, __ATOMIC_RELEASE);
    return 0;
}

/* Opens the regular file at `path` and locks it: the holder of that lock may change the name. */
SOPHON_RING_FUNCTION_ int sophon_ring_open_locked_(const char *path)
{
    int error;
    const int fd = sophon_ring_open_file_(path, O_RDWR | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return fd == -ENOENT ? SOPHON_RING_AGAIN_ : fd;
    error = sophon_ring_lock_(fd);
    if (error == 0)
        error = sophon_ring_still_names_(path, fd);
    if (error == 0)
        return fd;
    close(fd);
    return error;
}

/* Allocates the file's pages. If the file system cannot do that, the file's length is enough. */
SOPHON_RING_FUNCTION_ int sophon_ring_allocate_(int fd, uint64_t size)
{
    /* In pieces: a signal interrupts only one, so that a program with a fast timer gets through all of them. */
    const uint64_t piece = UINT64_C(1) << 20;
    uint64_t at = 0;
    while (at < size) {
        const uint64_t length = size - at < piece ? size - at : piece;
        if (sophon_ring_syscall_(SYS_fallocate, SOPHON_RING_CAST_(long, fd), 0L, at, length) == 0)
            at += length;
        else if (errno == EOPNOTSUPP || errno == ENOSYS)
            return 0;
        else if (errno != EINTR)
            return -errno;
    }
    return 0;
}

SOPHON_RING_FUNCTION_ int sophon_ring_map_(sophon_ring *ring, int fd, uint64_t capacity)
{
    void *const memory = mmap(SOPHON_RING_NULL_, SOPHON_RING_HEADER_SIZE_ + capacity,
                              PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED)
        return -errno;
    ring->header = SOPHON_RING_CAST_(struct sophon_ring_header_ *, memory);
    ring->data = SOPHON_RING_CAST_(unsigned char *, memory) + SOPHON_RING_HEADER_SIZE_;
    ring->fd = fd;
    ring->capacity = capacity;
    return 0;
}

SOPHON_RING_FUNCTION_ void sophon_ring_unmap_(sophon_ring *ring)
{
    if (ring->header != SOPHON_RING_NULL_)
        munmap(ring->header, SOPHON_RING_HEADER_SIZE_ + ring->capacity);
    ring->header = SOPHON_RING_NULL_;
}

/*
 * A ring's id must not repeat, neither on this box after a boot nor on another box, because receivers drop events
 * that they know. A kernel that has just started may have no random numbers for minutes, and /dev/urandom then
 * returns the same ones at every boot of an image. So they are mixed with values that differ between boxes, boots,
 * processes and rings. Nothing here waits; values that are not available are left out.
 */
SOPHON_RING_FUNCTION_ void sophon_ring_mix_(uint64_t *mixed, const void *bytes, size_t length)
{
    size_t at = 0;
    uint64_t word = length;             /* so that no two sequences of texts give the same result */
    for (;;) {
        word = (word ^ mixed[0]) + UINT64_C(0x9E3779B97F4A7C15);
        word = (word ^ (word >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
        word = (word ^ (word >> 27)) * UINT64_C(0x94D049BB133111EB);
        mixed[0] = word ^ (word >> 31);
        word = (mixed[1] + mixed[0]) * UINT64_C(0xFF51AFD7ED558CCD);
        mixed[1] = word ^ (word >> 32);
        if (at == length)
            return;
        word = 0;
        memcpy(&word, SOPHON_RING_CAST_(const unsigned char *, bytes) + at, length - at < 8 ? length - at : 8);
        at += length - at < 8 ? length - at : 8;
    }
}

SOPHON_RING_FUNCTION_ void sophon_ring_mix_file_(uint64_t *mixed, const char *path)
{
    unsigned char bytes[4096];
    ssize_t got;
    const int fd = sophon_ring_open_file_(path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return;
    got = read(fd, bytes, sizeof bytes);
    close(fd);
    if (got > 0)
        sophon_ring_mix_(mixed, bytes, SOPHON_RING_CAST_(size_t, got));
}

/* The hardware address of every network card. */
SOPHON_RING_FUNCTION_ void sophon_ring_mix_cards_(uint64_t *mixed)
{
    char path[sizeof "/sys/class/net//address" + 255];
    DIR *const cards = opendir("/sys/class/net");
    const struct dirent *card;
    if (cards == SOPHON_RING_NULL_)
        return;
    while ((card = readdir(cards)) != SOPHON_RING_NULL_) {
        const size_t length = strlen(card->d_name);
        if (card->d_name[0] == '.' || length > 255)
            continue;
        memcpy(path, "/sys/class/net/", 15);
        memcpy(path + 15, card->d_name, length);
        memcpy(path + 15 + length, "/address", 9);
        sophon_ring_mix_file_(mixed, path);
    }
    closedir(cards);
}

/* Values that differ between boxes, and between boots. */
SOPHON_RING_FUNCTION_ void sophon_ring_mix_box_(uint64_t *mixed)
{
    static const char *const sources[] = {
        "/proc/sys/kernel/random/boot_id",
        "/proc/device-tree/serial-number",
        "/sys/block/mmcblk0/device/cid",            /* the flash chip's serial number */
        "/proc/stat",                               /* counts of interrupts and switches */
    };
    size_t i;
    for (i = 0; i < sizeof sources / sizeof *sources; i++)
        sophon_ring_mix_file_(mixed, sources[i]);
    sophon_ring_mix_cards_(mixed);
}

/* Random numbers, if the kernel has some now; they may not be random: see above. */
SOPHON_RING_FUNCTION_ void sophon_ring_random_(uint64_t *random)
{
    const long length = 2 * sizeof *random;
    long got;
    int fd;
    do  /* up to 256 bytes are returned at once or not at all */
        got = sophon_ring_syscall_(SOPHON_RING_SYS_GETRANDOM_, random, length, SOPHON_RING_GRND_NONBLOCK_);
    while (got < 0 && errno == EINTR);
    if (got == length)
        return;
    fd = sophon_ring_open_file_("/dev/urandom", O_RDONLY | O_NONBLOCK);
    if (fd < 0)
        return;
    while (read(fd, random, SOPHON_RING_CAST_(size_t, length)) < 0 && errno == EINTR)
        continue;
    close(fd);
}

SOPHON_RING_FUNCTION_ void sophon_ring_make_id_(uint8_t *id, int fd)
{
    static uint32_t count;
    static const int clocks[] = { SOPHON_RING_CLOCK_REALTIME_, SOPHON_RING_CLOCK_BOOTTIME_, SOPHON_RING_CLOCK_PROCESS_ };
    uint64_t random[2] = { 0, 0 }, mixed[2] = { 0, 0 };
    struct sophon_ring_time_ now;
    struct stat file;
    size_t i;
    const uint32_t numbers[2] = { __atomic_fetch_add(&count, 1, __ATOMIC_RELAXED),
                                  SOPHON_RING_CAST_(uint32_t, getpid()) };
    sophon_ring_mix_(mixed, numbers, sizeof numbers);
    if (fstat(fd, &file) == 0) {
        sophon_ring_mix_(mixed, &file.st_dev, sizeof file.st_dev);
        sophon_ring_mix_(mixed, &file.st_ino, sizeof file.st_ino);
    }
    for (i = 0; i < sizeof clocks / sizeof *clocks; i++)
        if (sophon_ring_clock_gettime_(clocks[i], &now) == 0)
            sophon_ring_mix_(mixed, &now, sizeof now);
    sophon_ring_mix_box_(mixed);
    /* Combined by XOR: if the random numbers are good, so is the id, whatever the other values are. */
    sophon_ring_random_(random);
    mixed[0] ^= random[0];
    mixed[1] ^= random[1];
    memcpy(id, mixed, sizeof mixed);
}

/* Lets a new, empty ring continue `old`: it takes over the id and the unread events. */
SOPHON_RING_FUNCTION_ void sophon_ring_inherit_(sophon_ring *ring, const sophon_ring *old)
{
    const uint64_t mask = ring->capacity - 1;
    uint64_t tail = __atomic_load_n(&old->header->tail, __ATOMIC_ACQUIRE);
    uint64_t from, length, first;
    if (old->head - tail > old->capacity || tail % 8 != 0)
        tail = old->head;
    from = tail & mask;
    length = old->head - tail;
    first = length < ring->capacity - from ? length : ring->capacity - from;
    memcpy(ring->data + from, old->data + from, first);
    memcpy(ring->data, old->data, length - first);
    memcpy(ring->header->id, old->header->id, sizeof ring->header->id);
    ring->header->abi_version = old->header->abi_version;
    ring->header->tail = tail;
    ring->header->consumed = __atomic_load_n(&old->header->consumed, __ATOMIC_RELAXED);
    ring->header->head = ring->head = old->head;
    ring->header->sequence = ring->sequence = old->sequence;
    ring->header->publications = ring->publications = old->publications;
}

/* Turns the new, empty file of `fd` into an empty ring, and maps it. */
SOPHON_RING_FUNCTION_ int sophon_ring_fill_(sophon_ring *ring, int fd, uint64_t capacity)
{
    const uint64_t size = SOPHON_RING_HEADER_SIZE_ + capacity;
    long cut;
    int error;
    do
        cut = sophon_ring_syscall_(SYS_ftruncate, SOPHON_RING_CAST_(long, fd), size);
    while (cut != 0 && errno == EINTR);
    if (cut != 0)
        return -errno;
    error = sophon_ring_allocate_(fd, size);
    if (error == 0)
        error = sophon_ring_map_(ring, fd, capacity);
    if (error != 0)
        return error;
    sophon_ring_make_id_(ring->header->id, fd);
    ring->header->magic = SOPHON_RING_MAGIC_;
    ring->header->abi_version = SOPHON_RING_OLDEST_ABI_;
    ring->header->header_size = SOPHON_RING_HEADER_SIZE_;
    ring->header->capacity = capacity;
    ring->header->producer_pid = SOPHON_RING_CAST_(uint32_t, getpid());
    return 0;
}

/*
 * Creates a ring as `fresh` and renames it to `path`. The name must be free, unless `replace` is set: then the caller
 * holds the lock of the ring that is replaced. No process ever sees an incomplete header under `path`. `old` is NULL,
 * or the ring whose unread events the new one takes over.
 */
SOPHON_RING_FUNCTION_ int sophon_ring_make_(sophon_ring *ring, const char *path, const char *fresh, uint64_t capacity,
                                            int replace, const sophon_ring *old)
{
    int error;
    int fd = sophon_ring_open_file_(fresh, O_RDWR | O_CREAT | O_EXCL);
    if (fd == -EEXIST) {
        /* Another process is creating one (-EBUSY), or was killed while creating one: then remove it. */
        fd = sophon_ring_open_locked_(fresh);
        if (fd < 0)
            return fd;
        error = unlink(fresh) == 0 ? SOPHON_RING_AGAIN_ : -errno;
        close(fd);
        return error;
    }
    if (fd < 0)
        return fd;
    /* Before it was locked, another process may have taken it for that of a dead process. */
    error = sophon_ring_lock_(fd);
    if (error == 0)
        error = sophon_ring_still_names_(fresh, fd);
    if (error != 0) {
        close(fd);
        return error == -EBUSY ? SOPHON_RING_AGAIN_ : error;
    }
    error = sophon_ring_fill_(ring, fd, capacity);
    if (error == 0 && old != SOPHON_RING_NULL_)
        sophon_ring_inherit_(ring, old);
    if (error == 0 && replace)
        error = rename(fresh, path) == 0 ? 0 : -errno;
    else if (error == 0)
        error = link(fresh, path) == 0 ? 0 : errno == EEXIST ? SOPHON_RING_AGAIN_ : -errno;
    if (error != 0 || !replace)
        unlink(fresh);
    if (error != 0) {
        sophon_ring_unmap_(ring);
        close(fd);
    }
    return error;
}

/*
 * Maps the ring of `fd`. Returns 1 if it is valid, and 0 if not. Another user's file is not valid, whatever its
 * content is: that user may have put it there to read faces and names from it.
 */
SOPHON_RING_FUNCTION_ int sophon_ring_adopt_(sophon_ring *ring, int fd, const struct stat *file)
{
    const struct sophon_ring_header_ *header;
    uint64_t capacity, tail;
    int error;
    if ((file->st_uid != geteuid() && file->st_uid != 0)
        || file->st_size < SOPHON_RING_CAST_(off_t, SOPHON_RING_HEADER_SIZE_ + SOPHON_RING_MIN_CAPACITY_)
        || file->st_size > SOPHON_RING_CAST_(off_t, SOPHON_RING_HEADER_SIZE_ + SOPHON_RING_MAX_CAPACITY_))
        return 0;
    capacity = SOPHON_RING_CAST_(uint64_t, file->st_size) - SOPHON_RING_HEADER_SIZE_;
    if ((capacity & (capacity - 1)) != 0)
        return 0;
    error = sophon_ring_map_(ring, fd, capacity);
    if (error != 0)
        return error;
    header = ring->header;
    ring->head = __atomic_load_n(&header->head, __ATOMIC_ACQUIRE);
    ring->sequence = __atomic_load_n(&header->sequence, __ATOMIC_RELAXED);
    ring->dropped = __atomic_load_n(&header->dropped, __ATOMIC_RELAXED);
    ring->publications = __atomic_load_n(&header->publications, __ATOMIC_RELAXED);
    tail = __atomic_load_n(&header->tail, __ATOMIC_ACQUIRE);
    if (header->magic == SOPHON_RING_MAGIC_ && header->abi_version >= SOPHON_RING_OLDEST_ABI_
        && header->abi_version <= SOPHON_RING_ABI_VERSION && header->header_size == SOPHON_RING_HEADER_SIZE_ && header->capacity == capacity
        && ring->head % 8 == 0 && tail % 8 == 0 && ring->head - tail <= capacity)
        return 1;
    sophon_ring_unmap_(ring);
    return 0;
}

/* One attempt at the table "Making, taking over, replacing" of the ABI. `spare`: `path`, with room for a suffix. */
SOPHON_RING_FUNCTION_ int sophon_ring_try_open_(sophon_ring *ring, const char *path, char *spare, uint64_t capacity)
{
    char *const suffix = spare + strlen(path);
    struct stat file;
    int fd;
    int error = sophon_ring_look_(path, &file);
    memcpy(suffix, ".new", 5);
    if (error == -ENOENT)
        return sophon_ring_make_(ring, path, spare, capacity, 0, SOPHON_RING_NULL_);
    if (error != 0)
        return error;
    if (!S_ISREG(file.st_mode))
        return -EINVAL;
    fd = sophon_ring_open_locked_(path);
    if (fd < 0)
        return fd;

    error = fstat(fd, &file) == 0 ? 0 : -errno;
    /* A process was killed between the two names of a new ring: `path` is valid, the other name is removed. */
    if (error == 0 && file.st_nlink > 1 && sophon_ring_still_names_(spare, fd) == 0)
        unlink(spare);
    if (error == 0)
        error = sophon_ring_adopt_(ring, fd, &file);
    if (error == 0) {
        memcpy(suffix, ".bad", 5);
        error = rename(path, spare) == 0 ? SOPHON_RING_AGAIN_ : -errno;
    } else if (error == 1 && ring->capacity != capacity
               && ring->head == __atomic_load_n(&ring->header->tail, __ATOMIC_ACQUIRE)) {
        sophon_ring_unmap_(ring);
        ring->head = ring->sequence = ring->dropped = 0;
        ring->publications = 0;
        error = sophon_ring_make_(ring, path, spare, capacity, 1, SOPHON_RING_NULL_);
    } else if (error == 1) {
        /* The file may have holes, if it was copied, or if its pages could not be allocated when it was created. */
        error = sophon_ring_allocate_(fd, SOPHON_RING_HEADER_SIZE_ + ring->capacity);
        if (error == 0) {
            __atomic_store_n(&ring->header->producer_pid, SOPHON_RING_CAST_(uint32_t, getpid()), __ATOMIC_RELAXED);
            return 0;
        }
        sophon_ring_unmap_(ring);
    }
    close(fd);
    return error;
}

/* The folder of `path`, as device and inode number. `spare` has room for the path and a suffix. */
SOPHON_RING_FUNCTION_ int sophon_ring_folder_of_(const char *path, char *spare, uint64_t *folder)
{
    struct stat found;
    const char *const slash = strrchr(path, '/');
    const size_t length = slash == SOPHON_RING_NULL_ ? 0 : SOPHON_RING_CAST_(size_t, slash - path) + 1;
    int error;
    memcpy(spare, path, length);
    memcpy(spare + length, ".", 2);     /* for a link to a folder, the folder itself */
    error = sophon_ring_look_(spare, &found);
    if (error != 0)
        return error;
    folder[0] = SOPHON_RING_CAST_(uint64_t, found.st_dev);
    folder[1] = SOPHON_RING_CAST_(uint64_t, found.st_ino);
    return 0;
}

/*
 * Opens the FIFO at `path` for reading and writing, and creates it if there is none. So opening does not wait for
 * sophon-uplink, writing never raises SIGPIPE, and bytes written before sophon-uplink opens it are kept. Returns
 * -errno if it does not belong to this user alone: sophon-uplink then sleeps on the futex.
 */
SOPHON_RING_FUNCTION_ int sophon_ring_open_fifo_(const char *path, struct stat *found)
{
    int fd;
    int error = mkfifo(path, 0600) == 0 || errno == EEXIST ? 0 : -errno;
    if (error == 0)
        error = sophon_ring_look_(path, found);
    if (error == 0 && !S_ISFIFO(found->st_mode))
        error = -EEXIST;
    if (error != 0)
        return error;
    fd = sophon_ring_open_file_(path, O_RDWR | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return fd;
    if (fstat(fd, found) == 0 && S_ISFIFO(found->st_mode) && found->st_uid == geteuid() && (found->st_mode & 077) == 0)
        return fd;
    close(fd);
    return -EACCES;
}

/* Offers a FIFO from now on; if that fails, offers none, without an error: "Waking" in the ABI. */
SOPHON_RING_FUNCTION_ void sophon_ring_offer_fifo_(sophon_ring *ring)
{
    struct stat found;
    strcpy(ring->spare, ring->path);
    strcat(ring->spare, ".wake");
    ring->fifo = sophon_ring_open_fifo_(ring->spare, &found);
    __atomic_store_n(&ring->header->fifo_inode, ring->fifo < 0 ? 0 : SOPHON_RING_CAST_(uint64_t, found.st_ino),
                     __ATOMIC_RELAXED);
    /* Release: a consumer that sees the pid also sees the inode. */
    __atomic_store_n(&ring->header->fifo_pid, ring->fifo < 0 ? 0 : SOPHON_RING_CAST_(uint32_t, getpid()), __ATOMIC_RELEASE);
}

/* The ring's file has no name any more: creates a new ring and uses it. Returns 0, or why the old ring is kept. */
SOPHON_RING_FUNCTION_ int sophon_ring_renew_(sophon_ring *ring)
{
    const off_t consumer = offsetof(struct sophon_ring_header_, tail);
    sophon_ring made;
    struct stat found;
    uint64_t folder[2];
    int is_ours;
    int error = sophon_ring_look_(ring->path, &found);
    if (error != -ENOENT)
        return error == 0 ? -EEXIST : error;            /* another file is there now */
    error = sophon_ring_folder_of_(ring->path, ring->spare, folder);
    if (error != 0)
        return error;
    if (folder[0] != ring->folder[0] || folder[1] != ring->folder[1])
        return -ENOENT;                 /* the process has changed its root or working folder */
    /* A consumer that has the old ring locked reads it to its end. If there is none, its events move to the new ring. */
    is_ours = sophon_ring_lock_byte_(ring->fd, F_WRLCK, consumer) == 0;
    memset(&made, 0, sizeof made);
    strcpy(ring->spare, ring->path);
    strcat(ring->spare, ".new");
    error = sophon_ring_make_(&made, ring->path, ring->spare, ring->capacity, 0,
                              is_ours ? ring : SOPHON_RING_NULL_);
    if (error != 0) {
        if (is_ours)
            sophon_ring_lock_byte_(ring->fd, F_UNLCK, consumer);    /* the name may come back */
        return error;
    }
    made.header->dropped = made.dropped = ring->dropped;
    made.path = ring->path;
    made.spare = ring->spare;
    made.folder[0] = ring->folder[0];
    made.folder[1] = ring->folder[1];
    made.look_at = ring->look_at;
    __atomic_store_n(&ring->header->producer_pid, 0u, __ATOMIC_RELAXED);
    sophon_ring_unmap_(ring);
    close(ring->fd);
    if (ring->fifo >= 0)
        close(ring->fifo);
    *ring = made;
    sophon_ring_offer_fifo_(ring);
    return 0;
}

/* Checks at intervals whether the ring still has its name. No reservation may be open. */
SOPHON_RING_FUNCTION_ void sophon_ring_look_at_name_(sophon_ring *ring)
{
    struct sophon_ring_time_ now;
    struct stat held;
    int64_t milliseconds;
    if (sophon_ring_clock_gettime_(SOPHON_RING_CLOCK_COARSE_, &now) != 0)
        return;
    milliseconds = now.seconds * 1000 + now.nanoseconds / 1000000;
    if (milliseconds < ring->look_at)
        return;
    ring->look_at = milliseconds + SOPHON_RING_LOOK_;
    if (fstat(ring->fd, &held) == 0 && held.st_nlink == 0 && sophon_ring_renew_(ring) != 0)
        ring->look_at = milliseconds + SOPHON_RING_LOOK_LATER_;
}

SOPHON_RING_FUNCTION_ int sophon_ring_open(sophon_ring **ring, const char *path, uint64_t capacity)
{
    sophon_ring *made;
    char *kept, *spare;
    uint64_t rounded = SOPHON_RING_MIN_CAPACITY_;
    size_t length;
    int error = SOPHON_RING_AGAIN_;
    int tries;
    if (ring == SOPHON_RING_NULL_)
        return -EINVAL;
    *ring = SOPHON_RING_NULL_;
    if (path == SOPHON_RING_NULL_ || *path == '\0' || capacity > SOPHON_RING_MAX_CAPACITY_)
        return -EINVAL;
    while (rounded < capacity)
        rounded *= 2;

    length = strlen(path);
    made = SOPHON_RING_CAST_(sophon_ring *, calloc(1, sizeof *made));
    kept = SOPHON_RING_CAST_(char *, malloc(length + 1));
    spare = SOPHON_RING_CAST_(char *, malloc(length + sizeof ".wake"));
    if (made == SOPHON_RING_NULL_ || kept == SOPHON_RING_NULL_ || spare == SOPHON_RING_NULL_) {
        error = -ENOMEM;
    } else {
        memcpy(kept, path, length + 1);
        memcpy(spare, path, length + 1);
        for (tries = 0; tries < SOPHON_RING_TRIES_ && error == SOPHON_RING_AGAIN_; tries++) {
            memset(made, 0, sizeof *made);
            error = sophon_ring_try_open_(made, path, spare, rounded);
        }
        if (error == SOPHON_RING_AGAIN_)
            error = -EBUSY;             /* so many others were faster: one of them is alive */
    }
    if (error == 0) {
        made->path = kept;
        made->spare = spare;
        sophon_ring_folder_of_(path, spare, made->folder);
        sophon_ring_offer_fifo_(made);
        *ring = made;
    } else {
        free(spare);
        free(kept);
        free(made);
    }
    return error;
}

SOPHON_RING_FUNCTION_ void sophon_ring_close(sophon_ring *ring)
{
    if (ring == SOPHON_RING_NULL_)
        return;
    /* Only the recognizer itself marks the ring as closed, not a child of it. */
    if (__atomic_load_n(&ring->header->producer_pid, __ATOMIC_RELAXED) == SOPHON_RING_CAST_(uint32_t, getpid())) {
        __atomic_store_n(&ring->header->fifo_pid, 0u, __ATOMIC_RELAXED);
        __atomic_store_n(&ring->header->producer_pid, 0u, __ATOMIC_RELAXED);
    }
    sophon_ring_unmap_(ring);
    if (ring->fifo >= 0)
        close(ring->fifo);
    close(ring->fd);                    /* no F_UNLCK: in a child it would release the parent's lock */
    free(ring->spare);
    free(ring->path);
    free(ring);
}

#ifdef __cplusplus
}
#endif

#endif /* SOPHON_RING_H */
